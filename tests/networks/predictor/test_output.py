"""Spectra of structures in any cell, and the file that they go to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mattergen_e.crystals.reading import NamedStructure
from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.output import predict_structures, write_spectra
from mattergen_e.spectra.files import read_dos


def named(structures: dict[str, Any]) -> list[NamedStructure]:
    return [NamedStructure(name, structure) for name, structure in structures.items()]


def test_the_cell_does_not_matter(
    make_predictor: Callable[..., Any], solids: dict[str, Any], conventional: dict[str, Any]
) -> None:
    predictor = make_predictor()
    primitive = {found.id: found for found in predict_structures(predictor, named(solids), batch_size=3)}
    for found in predict_structures(predictor, named(conventional)):
        reference = primitive[found.id]
        assert found.sites.shape == (len(found.structure), 64) and found.structure is conventional[found.id]
        np.testing.assert_allclose(found.total, reference.total, rtol=2e-3, atol=2e-4)
        for element in set(found.structure.species):
            rows, others = (
                [i for i, site in enumerate(s.structure) if site.specie == element] for s in (found, reference)
            )
            mean, wanted = found.sites[rows].mean(0), reference.sites[others].mean(0)
            np.testing.assert_allclose(mean, wanted, rtol=2e-3, atol=2e-4)


def test_file(make_predictor: Callable[..., Any], conventional: dict[str, Any], tmp_path: Path) -> None:
    predictor, path = make_predictor(), tmp_path / "predicted.npz"
    spectra = predict_structures(predictor, named(conventional))
    write_spectra(path, spectra, predictor)
    read = read_dos(path, range(len(spectra)))
    for found, expected in zip(read, spectra, strict=True):
        np.testing.assert_array_equal(found.spectra, expected.sites)
        assert found.grid == predictor.grids.sites and found.fingerprint == predictor.fingerprint
        assert found.latents.shape == (len(expected.structure), 0)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["ids"].tolist() == list(conventional)
        total = predictor.grids.total
        assert arrays["total_window"].tolist() == [total.minimum, total.maximum]
        np.testing.assert_array_equal(arrays["total_energies"], total.energies)
        np.testing.assert_array_equal(arrays["total"], [found.total for found in spectra])
    assert list(tmp_path.iterdir()) == [path]


def test_refusals(make_predictor: Callable[..., Any], tmp_path: Path) -> None:
    disordered = Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(UserError, match="structure 'alloy' has partially occupied sites"):
        predict_structures(make_predictor(), [NamedStructure("alloy", disordered)])
