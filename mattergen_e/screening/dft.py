"""Inputs for DFT of the shortlist: VASP by pymatgen's sets of the Materials Project, GPAW by a script."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymatgen.core import Structure

SCRIPT = Path(__file__).with_name("gpaw_dos.py")

#: What `mattergen-e data label` needs of the static calculation: projections on the sites, and the core density.
STATIC: dict[str, Any] = {"LORBIT": 11, "NEDOS": 3001, "LAECHG": True, "LCHARG": True}


def vasp_inputs(structure: Structure) -> tuple[dict[str, bytes], str | None]:
    """Inputs of a relaxation (MPRelaxSet) and of the calculation of the DOS after it (MPStaticSet).

    POTCARs are written where pymatgen is configured to have them (PMG_VASP_PSP_DIR), POTCAR.spec with their names
    otherwise.

    Args:
        structure: The crystal.

    Returns:
        Contents by path, relax/INCAR and so on, and why there are none, if pymatgen's sets do not cover the crystal.
    """
    from pymatgen.io.vasp.sets import MPRelaxSet, MPStaticSet

    found: dict[str, bytes] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, made in (
                ("relax", MPRelaxSet(structure)),
                ("static", MPStaticSet(structure, user_incar_settings=STATIC)),
            ):
                found |= {f"{name}/{file}": content for file, content in _written(made).items()}
    except Exception as error:  # elements without a pseudopotential, and whatever else a set does not know
        return {}, f"there are no VASP inputs ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return found, None


def _written(made: Any) -> dict[str, bytes]:
    """The files of a set, with POTCAR.spec where POTCARs are not to be had."""
    from pymatgen.core import SETTINGS

    for spec in (False, True) if SETTINGS.get("PMG_VASP_PSP_DIR") else (True,):
        with tempfile.TemporaryDirectory() as folder:
            try:
                made.write_input(folder, potcar_spec=spec)
            except (OSError, ValueError, KeyError):
                if spec:
                    raise
                continue
            return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir()) if file.is_file()}
    raise AssertionError("the last attempt returns or raises")


def gpaw_script() -> bytes:
    """The script that relaxes crystals and computes their DOS with GPAW."""
    return SCRIPT.read_bytes()
