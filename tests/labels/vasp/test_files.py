from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.io.vasp.outputs import VolumetricData

from mattergen_e.crystals.findings import LabelError
from mattergen_e.labels.vasp.files import choose_files, is_calculation, one_scale, read_density, walk

Copy = Callable[[str], Path]
FEW = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def calculations(root: Path, denied: Callable[[OSError], Any] | None = None) -> Iterator[Path]:
    return (folder for folder, names in walk(root, denied) if is_calculation(names))


def test_finds_folders_once_and_goes_past_closed_ones(tmp_path: Path) -> None:
    for name in (
        "b/vasprun.xml",
        "a/CHGCAR.gz",
        "a/deep/AECCAR0.bz2",
        "c/CHG.relax2.xz",
        "d/OUTCAR",
        "e/vasprun.xml.bak",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "f" / "vasprun.xml").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "CHGCAR").touch()
    found = list(calculations(tmp_path))
    assert [str(p.relative_to(tmp_path)) for p in found] == ["a", "a/deep", "b", "c"]
    assert list(calculations(tmp_path / "b")) == [tmp_path / "b"]
    (tmp_path / "a").chmod(0)
    if os.access(tmp_path / "a", os.R_OK):  # of root
        return
    denied: list[OSError] = []
    assert [p.name for p in calculations(tmp_path, denied.append)] == ["b", "c"]
    assert [error.filename for error in denied] == [str(tmp_path / "a")]
    with pytest.raises(PermissionError):
        list(calculations(tmp_path))
    (tmp_path / "a").chmod(0o755)


def test_the_last_step_counts(tmp_path: Path) -> None:
    names = ["vasprun.xml.relax1.gz", "vasprun.xml.relax2.gz", "CHGCAR.relax1.gz", "CHGCAR.relax2.gz", "POTCAR", "CHG"]
    for name in names:
        (tmp_path / name).touch()
    chosen = {name: path.name for name, path in choose_files(tmp_path).items()}
    assert chosen == {"vasprun.xml": "vasprun.xml.relax2.gz", "CHGCAR": "CHGCAR.relax2.gz", "POTCAR": "POTCAR"}
    (tmp_path / "vasprun.xml.gz").touch()
    assert choose_files(tmp_path)["vasprun.xml"].name == "vasprun.xml.gz"
    (tmp_path / "vasprun.xml").touch()
    assert choose_files(tmp_path)["vasprun.xml"].name == "vasprun.xml"


@FEW
@given(data=st.data())
@pytest.mark.parametrize("name", ["NaMgF3_pydefect/CHG", "NaMgF3_pydefect/AECCAR2", "Si_aiida/CHGCAR"])
def test_cut_density_is_damaged(unpacked: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = (unpacked / name).read_bytes()
    end = data.draw(st.integers(0, len(content) - 1) | st.integers(len(content) - 200, len(content) - 1))
    path = tmp_path / "CHGCAR"
    path.write_bytes(content[:end])
    if not content[end:].strip():
        return
    with pytest.raises(LabelError) as caught:
        read_density(path)
    assert caught.value.reason == "damaged_file" and "CHGCAR" in caught.value.sentence


def test_reads_the_numbers_that_pymatgen_reads(vasp_data: Path) -> None:
    for name in ("Si_aiida/CHGCAR.gz", "NaMgF3_pydefect/AECCAR0.gz"):
        _, expected, _ = VolumetricData.parse_file(vasp_data / name)
        np.testing.assert_array_equal(read_density(vasp_data / name).values, expected["total"])


def test_magnetisation_is_left_out_and_three_components_are_refused(copy: Copy) -> None:
    path = copy("Si") / "CHGCAR"
    head, grid = re.split(r"(?=\n +32 +32 +32\n)", path.read_text())
    path.write_text(head + grid + "   0.0000000 0.0000000" + grid)
    np.testing.assert_allclose(read_density(path).values.mean(), 8.0, atol=1e-6)
    path.write_text(head + grid * 4)
    with pytest.raises(LabelError) as caught:
        read_density(path)
    assert caught.value.reason == "not_collinear"
    for wrong in (
        grid.replace(" 32   32   32", " 32   32   31", 1),
        grid + "   1.0 2.0 3.0\n",
        grid * 3,
        grid + "end\n",
    ):
        path.write_text(head + wrong)
        with pytest.raises(LabelError) as caught:
            read_density(path)
        assert caught.value.reason == "damaged_file"


def small_density(
    second: str, vectors: str = "4 0 0\n0 4 0\n0 0 4", kind: str = "Direct", sites: str = "0 0 0\n.5 .5 .5"
) -> str:
    grid = " ".join("0.5" for _ in range(8))
    return f"CsCl\n{second}\n{vectors}\nCs Cl\n1 1\n{kind}\n{sites}\n\n2 2 2\n{grid}\n"


@pytest.mark.parametrize("kind", ["Direct", "Cartesian"])
def test_three_scaling_factors_stretch_the_axes(tmp_path: Path, kind: str) -> None:
    """VASP 6: a cube of 4 Å whose x, y and z are stretched by 1, 1.5 and 2, wherever its vectors point."""
    sites = "0 0 0\n.5 .5 .5" if kind == "Direct" else "0 0 0\n2 2 2"
    path = tmp_path / "CHGCAR"
    path.write_text(small_density("1.0 1.5 2.0", kind=kind, sites=sites))
    structure = read_density(path).structure
    np.testing.assert_allclose(structure.lattice.abc, [4, 6, 8])
    np.testing.assert_allclose(structure.cart_coords[1], [2, 3, 4])
    path.write_text(small_density("1 1 2", "0 4 4\n4 0 4\n4 4 0", kind, sites))
    np.testing.assert_allclose(read_density(path).structure.lattice.matrix, [[0, 4, 8], [4, 0, 8], [4, 4, 0]])


def test_one_scaling_factor_is_left_alone(tmp_path: Path) -> None:
    text = small_density("-64.0")
    assert one_scale(text) == text
    path = tmp_path / "CHGCAR"
    path.write_text(text)
    assert read_density(path).structure.volume == pytest.approx(64)


@pytest.mark.parametrize("factors", ["1 0 1", "1 -1 1", "1 nan 1", "1 x 1"])
def test_factors_that_stretch_nothing_are_damage(tmp_path: Path, factors: str) -> None:
    path = tmp_path / "CHGCAR"
    path.write_text(small_density(factors))
    with pytest.raises(LabelError) as caught:
        read_density(path)
    assert caught.value.reason == "damaged_file"
