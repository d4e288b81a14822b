"""CIFs with symmetry beside those in P 1."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.cif import CifFile

from mattergen_e.generation.formats import CIF_ZIP_NAME, SYMMETRIZED_NAME, Generated, batch_files

#: Of the crystals as the literature has them (International Tables numbers).
SPACE_GROUPS = {
    "NaCl": 225, "CsCl": 221, "MgO": 225, "ZnS": 186, "TiO2": 136, "BaTiO3": 99, "Li2O": 225, "Mg2Si": 225,
}  # fmt: skip


def members(content: bytes) -> dict[str, str]:
    """Files of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def generated(structures: list[Structure]) -> list[Generated]:
    """Crystals of one batch."""
    return [Generated(index=i, batch=0, structure=s, conditions={}, seed=1) for i, s in enumerate(structures)]


@pytest.mark.parametrize("shift", [0.0, 0.02], ids=["exact", "as generated"])
def test_symmetrised_cells_have_their_space_group(solids: dict[str, Any], shift: float) -> None:
    """Read back by pymatgen's parser: the same crystal, and the space group of the literature."""
    noise = np.random.default_rng(0)
    structures = []
    for name in SPACE_GROUPS:
        structure = solids[name].copy()
        for site in range(len(structure)):
            structure.translate_sites([site], noise.normal(scale=shift / 3, size=3), frac_coords=False)
        structures.append(structure)
    files = batch_files(generated(structures))
    assert len(members(files[CIF_ZIP_NAME])) == len(structures)
    written = members(files[SYMMETRIZED_NAME])
    assert list(written) == [f"gen_{i}.cif" for i in range(len(structures))]
    for (name, number), text in zip(SPACE_GROUPS.items(), written.values(), strict=True):
        block = next(iter(CifFile.from_str(text).data.values())).data
        assert int(block["_symmetry_Int_Tables_number"]) == number, name
        assert len(block["_atom_site_type_symbol"]) <= 4  # the asymmetric unit
        read = Structure.from_str(text, fmt="cif", primitive=True)
        assert StructureMatcher(primitive_cell=True).fit(read, solids[name].copy(site_properties={})), name


def test_a_crystal_without_symmetry_is_in_p1() -> None:
    """Two atoms in one place: spglib finds nothing there."""
    together = Structure(np.eye(3) * 4, ["Na", "Na"], [[0.1, 0.1, 0.5], [0.1, 0.1, 0.5]])
    (text,) = members(batch_files(generated([together]))[SYMMETRIZED_NAME]).values()
    block = next(iter(CifFile.from_str(text).data.values())).data
    assert int(block["_symmetry_Int_Tables_number"]) == 1 and len(block["_atom_site_type_symbol"]) == 2


def test_no_crystals_no_file() -> None:
    assert SYMMETRIZED_NAME not in batch_files([])
