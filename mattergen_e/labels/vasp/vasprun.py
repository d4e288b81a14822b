"""vasprun.xml by pymatgen's parser, with the checks that everything read from it relies on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import brief
from mattergen_e.labels.vasp import bands
from mattergen_e.labels.vasp.files import read_bytes, reading
from mattergen_e.labels.vasp.valence import of_vasprun

if TYPE_CHECKING:
    from mattergen_e.labels.vasp.parser import Parser

#: Parameters without which nothing can be said of a calculation.
NEEDED = ("NELECT", "NELM", "ISPIN", "ISMEAR", "SIGMA", "LNONCOLLINEAR", "LSORBIT")
#: Largest difference between NELECT and the electrons of the potentials, e.
CHARGE_TOLERANCE = 0.01


def read_vasprun(path: Path, *, allow_unconverged: bool = False) -> Parser:
    """Parse the vasprun.xml of a collinear calculation of a neutral cell and check that its parts fit each other.

    Labels and targets are read by this function, so that the same rules hold for both.

    Args:
        path: Of the file, which may be compressed.
        allow_unconverged: Take calculations whose electronic steps did not converge.

    Returns:
        The calculation; whether its DOS could be read says `check_dos`.

    Raises:
        LabelError: With reason missing_file, unreadable_file, damaged_file, not_collinear, not_converged or charged.
    """
    vasprun = _parse(path)
    parameters = vasprun.parameters
    if parameters.get("LNONCOLLINEAR") or parameters.get("LSORBIT"):
        raise LabelError(
            "not_collinear", f"{path.name} is of a non-collinear calculation, whose spins cannot be summed"
        )
    n_steps, n_sites, n_symbols = len(vasprun.ionic_steps), len(vasprun.final_structure), len(vasprun.atomic_symbols)
    if n_steps == 0 or n_sites != n_symbols:
        raise LabelError("damaged_file", f"{path.name} holds {n_steps} finished steps and {n_sites} sites")
    problem = bands.damage(vasprun)
    if problem is not None:
        raise LabelError("damaged_file", f"{path.name} is garbled: {problem}")
    if not vasprun.converged_electronic and not allow_unconverged:
        raise LabelError("not_converged", f"the last electronic steps of {path.name} did not converge (NELM reached)")
    _check_neutral(path, vasprun)
    return vasprun


def _parse(path: Path) -> Parser:
    from lxml.etree import XMLSyntaxError

    from mattergen_e.labels.vasp.parser import Parser

    try:
        with reading(path), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            if path.stat().st_size == 0:
                raise LabelError("damaged_file", f"{path.name} is empty")
            vasprun = Parser(path, parse_potcar_file=False)
            _ = vasprun.converged_electronic  # read here, where a missing entry is told
            _ = len(vasprun.final_structure), len(vasprun.atomic_symbols)
            unreadable = [name for name in NEEDED if name in vasprun.unreadable]
            if unreadable:
                raise LabelError("damaged_file", f"{path.name} gives {unreadable[0]} as asterisks, no number")
            float(vasprun.parameters["NELECT"])
    except XMLSyntaxError as error:
        raise LabelError("damaged_file", f"{path.name} is cut off or no XML ({error.msg})") from None
    except LabelError:
        raise
    except Exception as error:  # pymatgen raises whatever the first missing entry leads to
        raise LabelError("damaged_file", f"{path.name} is incomplete or garbled ({brief(error)})") from None
    return vasprun


def _check_neutral(path: Path, vasprun: Parser) -> None:
    """Refuse charged cells: their spectra, gap and charges are those of a crystal on a background that nobody has."""
    valence = of_vasprun(path, len(vasprun.final_structure))
    if valence is None:
        return
    electrons, neutral = float(vasprun.parameters["NELECT"]), float(valence.sum())
    if not abs(electrons - neutral) <= CHARGE_TOLERANCE:
        raise LabelError(
            "charged",
            f"{path.name} is of a charged cell ({neutral - electrons:+g} e): it holds {electrons:g} electrons and its "
            f"potentials bring {neutral:g}; calculate the neutral cell (without NELECT)",
        )


def check_dos(vasprun: Parser) -> None:
    """Check that pymatgen could read the DOS; where it could not, say why.

    Raises:
        LabelError: With reason no_fermi_energy or bad_dos.
    """
    if getattr(vasprun, "dos_has_errors", True) or not hasattr(vasprun, "tdos"):
        content = read_bytes(Path(vasprun.filename))
        start = content.rfind(b"<dos")
        if start < 0:
            raise LabelError("bad_dos", "vasprun.xml holds no DOS")
        head = content[start : start + 300]
        if b'name="efermi"' not in head or b"*" in head.split(b'name="efermi"')[1][:60]:
            raise LabelError("no_fermi_energy", "vasprun.xml gives no Fermi energy with its DOS")
        raise LabelError("bad_dos", "the DOS of vasprun.xml is garbled")
