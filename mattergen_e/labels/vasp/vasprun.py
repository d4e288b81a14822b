"""vasprun.xml by pymatgen's parser, with the checks that everything read from it relies on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import brief
from mattergen_e.labels.vasp import dos as vasp_dos
from mattergen_e.labels.vasp.files import read_bytes, reading

if TYPE_CHECKING:
    from pymatgen.io.vasp.outputs import Vasprun


def read_vasprun(path: Path) -> Vasprun:
    """Parse the vasprun.xml of a collinear calculation and check that its parts fit each other.

    Args:
        path: Of the file, which may be compressed.

    Returns:
        The calculation, converged or not; whether its DOS could be read says `check_dos`.

    Raises:
        LabelError: With reason missing_file, unreadable_file, damaged_file or not_collinear.
    """
    from lxml.etree import XMLSyntaxError
    from pymatgen.io.vasp.outputs import Vasprun

    try:
        with reading(path), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            if path.stat().st_size == 0:
                raise LabelError("damaged_file", f"{path.name} is empty")
            vasprun = Vasprun(path, parse_potcar_file=False)
            parameters, n_steps = vasprun.parameters, len(vasprun.ionic_steps)
            collinear = not (parameters.get("LNONCOLLINEAR") or parameters.get("LSORBIT"))
            _ = n_steps > 0 and vasprun.converged_electronic  # read here, where a missing entry is told
            n_sites, n_symbols = len(vasprun.final_structure), len(vasprun.atomic_symbols)
            float(parameters["NELECT"])
    except XMLSyntaxError as error:
        raise LabelError("damaged_file", f"{path.name} is cut off or no XML ({error.msg})") from None
    except LabelError:
        raise
    except Exception as error:  # pymatgen raises whatever the first missing entry leads to
        raise LabelError("damaged_file", f"{path.name} is incomplete or garbled ({brief(error)})") from None
    if not collinear:
        raise LabelError(
            "not_collinear", f"{path.name} is of a non-collinear calculation, whose spins cannot be summed"
        )
    if n_steps == 0 or n_sites != n_symbols:
        raise LabelError("damaged_file", f"{path.name} holds {n_steps} finished steps and {n_sites} sites")
    problem = vasp_dos.damage(vasprun)
    if problem is not None:
        raise LabelError("damaged_file", f"{path.name} is garbled: {problem}")
    return vasprun


def check_dos(vasprun: Vasprun) -> None:
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
