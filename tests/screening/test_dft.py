"""Inputs for DFT."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.screening import dft


def test_vasp_inputs_are_those_of_the_materials_project(textbook: dict[str, Any]) -> None:
    from pymatgen.core import Structure
    from pymatgen.io.vasp.inputs import Incar, Kpoints

    found, problem = dft.vasp_inputs(textbook["Mg2Si"])
    assert problem is None
    files = ("INCAR", "KPOINTS", "POSCAR", "POTCAR.spec")
    assert sorted(found) == sorted(f"{step}/{name}" for step in ("relax", "static") for name in files)
    relax, static = (Incar.from_str(found[f"{step}/INCAR"].decode()) for step in ("relax", "static"))
    assert (relax["IBRION"], relax["ISIF"], relax["ENCUT"]) == (2, 3, 520)
    assert (static["NSW"], static["LORBIT"], static["NEDOS"]) == (0, 11, 3001)
    assert static["LAECHG"] and static["LCHARG"]
    assert found["static/POTCAR.spec"].decode().split() == ["Mg_pv", "Si"]
    assert Kpoints.from_str(found["static/KPOINTS"].decode()).kpts[0][0] >= 6
    poscar = Structure.from_str(found["relax/POSCAR"].decode(), fmt="poscar")
    assert poscar.matches(textbook["Mg2Si"])


def test_a_crystal_without_pseudopotentials_is_said() -> None:
    from pymatgen.core import Lattice, Structure

    found, problem = dft.vasp_inputs(Structure(Lattice.cubic(5.0), ["Fm"], [[0, 0, 0]]))
    assert found == {} and problem is not None and problem.startswith("there are no VASP inputs (")
    assert "\n" not in problem


# -- GPAW -------------------------------------------------------------------------------------------------------------


def test_the_script_stands_alone() -> None:
    """It runs in another Python, without this package."""
    tree = ast.parse(dft.gpaw_script(), feature_version=(3, 9))
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    known = {"__future__", "argparse", "pathlib", "typing", "numpy", "gpaw", "ase"}
    assert {name.partition(".")[0] for name in imported} == known


def test_the_help_of_the_script(tmp_path: Path) -> None:
    script = tmp_path / "gpaw_dos.py"
    script.write_bytes(dft.gpaw_script())
    result = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    assert "--no-relax" in result.stdout and "--kpoint-density" in result.stdout


def test_settings_are_those_of_data_compute() -> None:
    from mattergen_e.labels.computed.calculation import ComputeSettings

    defaults, settings = dft.gpaw_script().decode(), ComputeSettings()
    for option, value in (
        ("cutoff", settings.cutoff),
        ("kpoint-density", settings.kpoint_density),
        ("smearing", settings.smearing),
        ("dos-width", settings.dos_width),
    ):
        assert f'"--{option}", type=float, default={value},' in defaults


def test_the_script_runs(textbook: dict[str, Any], tmp_path: Path) -> None:
    """Eight valence electrons of the two atoms of MgSe lie below the Fermi energy, in a gap."""
    from mattergen_e.labels.computed.compute import find_python
    from mattergen_e.targets.files import read_curves

    try:
        python = find_python().path
    except Exception as error:
        pytest.skip(str(error))
    (tmp_path / "gpaw_dos.py").write_bytes(dft.gpaw_script())
    textbook["MgSe"].to(filename=str(tmp_path / "gen_0.cif"))
    command = [python, "gpaw_dos.py", "gen_0.cif", "--steps", "1", "--kpoint-density", "1.5"]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, env=kept)
    assert result.returncode == 0, result.stderr
    (curve,) = read_curves(tmp_path / "gen_0.dos.npz")
    below = curve.energies < 0
    assert np.trapz(curve.dos[below], curve.energies[below]) == pytest.approx(4.0, abs=0.01)
    assert (tmp_path / "gen_0.relaxed.cif").exists()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=kept)
    assert "gen_0.dos.npz exists" in again.stdout
