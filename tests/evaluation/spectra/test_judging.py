"""Spectra of crystals against their targets, by a predictor and by labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.evaluation.candidates import read_candidates, structure_key
from mattergen_e.evaluation.labels import Label, Labels
from mattergen_e.evaluation.settings import EvaluationSettings
from mattergen_e.evaluation.spectra.judging import judge, load_predictor, plan
from mattergen_e.evaluation.steps import Context
from mattergen_e.spectra.grid import TOTAL_GRID, EnergyGrid


@pytest.fixture
def structures(solids: dict[str, Any]) -> list[Any]:
    """Six crystals."""
    return list(solids.values())[:6]


@pytest.fixture
def run(dos_run: Callable[..., Path], structures: list[Any], tmp_path: Path) -> Path:
    """Six crystals, two for a curve, and one that failed."""
    return dos_run(tmp_path / "run", structures, failed=1)


def context(run: Path) -> Context:
    return Context(run / "evaluation", read_candidates(run), cast(Any, None), jobs=1, progress=False)


def directly(model: Path, structures: list[Any]) -> np.ndarray:
    """Spectra per atom without the stage."""
    from mattergen_e.crystals.reading import NamedStructure
    from mattergen_e.networks.predictor.folder import load
    from mattergen_e.networks.predictor.output import predict_structures

    named = [NamedStructure(str(i), structure) for i, structure in enumerate(structures)]
    return np.stack([found.total for found in predict_structures(load(model), named)])


def write_split(folder: Path, structures: list[Any]) -> Path:
    """The arrays of a split that are read for its crystals."""
    folder.mkdir()
    arrays = {
        "structure_id": np.array(["three", "other", "one"]),
        "num_atoms": np.array([len(s) for s in structures]),
        "cell": np.stack([s.lattice.matrix for s in structures]),
        "atomic_numbers": np.concatenate([s.atomic_numbers for s in structures]),
        "pos": np.concatenate([s.frac_coords for s in structures]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_predicted_spectra_against_the_targets(run: Path, structures: list[Any], dos_model: Path, peaks: Any) -> None:
    here = context(run)
    made, lacking = plan(
        run, here.candidates, EvaluationSettings(dos_predictor=dos_model), load_predictor(dos_model), None
    )
    assert made is not None and lacking is None
    judged = judge(here, made, {})
    spectra, wanted = directly(dos_model, structures), peaks[[0, 0, 1, 1, 2, 2]]
    cosines = (spectra * wanted).sum(1) / np.linalg.norm(spectra, axis=1) / np.linalg.norm(wanted, axis=1)
    np.testing.assert_allclose([judged.rows[i]["dos_cosine"] for i in range(6)], cosines, rtol=1e-4)
    block = judged.block
    assert block["cosine"]["value"] == pytest.approx(cosines.mean(), rel=1e-4)
    assert (block["asked"], block["crystals"], block["structures"]) == (7, 6, {"generated": 6})
    assert block["not_judged"] == {"not_generated": 1} and "truth" not in block
    assert judged.rows[6] == {"dos_target": "one"}
    np.testing.assert_allclose(judged.arrays["generated"], spectra, rtol=1e-3, atol=1e-5)
    json.dumps(block, allow_nan=False)
    again = context(run)
    assert judge(again, made, {}).block == block and again.computed == {"spectra": 0}


def test_the_relaxed_crystal_is_the_one_that_counts(run: Path, structures: list[Any], dos_model: Path) -> None:
    larger = structures[2].copy()
    larger.scale_lattice(1.2 * larger.volume)
    key = structure_key(structures[2])
    relaxed = {key: {"ok": True, "structure": larger.as_dict()}, structure_key(structures[1]): {"ok": False}}
    here = context(run)
    made, _ = plan(run, here.candidates, EvaluationSettings(), load_predictor(dos_model), None)
    assert made is not None
    judged = judge(here, made, relaxed)
    assert judged.block["structures"] == {"generated": 5, "relaxed": 1}
    np.testing.assert_allclose(judged.arrays["generated"][2], directly(dos_model, [larger])[0], rtol=1e-3, atol=1e-5)


def test_against_the_right_crystals(run: Path, structures: list[Any], dos_model: Path, tmp_path: Path) -> None:
    """The split has the crystals of the curves one and three; crystal 0 is the former, crystal 5 is not the latter."""
    split = write_split(tmp_path / "test", [structures[3], structures[1], structures[0]])
    here = context(run)
    settings = EvaluationSettings(dos_predictor=dos_model, truth=split)
    made, _ = plan(run, here.candidates, settings, load_predictor(dos_model), None)
    assert made is not None
    judged = judge(here, made, {})
    truth = judged.block["truth"]
    # crystals 0, 1, 4, 5 and the failed one, 6, were asked for these curves
    assert (truth["structure_match"]["count"], truth["structure_match"]["total"]) == (1, 5)
    assert (truth["composition_match"]["count"], truth["crystals"]) == (1, 2)
    assert judged.rows[0]["dos_structure_match"] is True and judged.rows[5]["dos_composition_match"] is False
    assert "dos_structure_match" not in judged.rows[2]
    spectra = directly(dos_model, structures)
    right = spectra[[0, 0, 3, 3]]
    expected = np.abs(spectra[[0, 1, 4, 5]] - right).mean()
    assert truth["mae_generated_predicted"]["value"] == pytest.approx(expected, rel=1e-3)
    targets = judged.arrays["targets"][[0, 0, 2, 2]]
    assert truth["mae_predicted_target"]["value"] == pytest.approx(np.abs(right - targets).mean(), rel=1e-3)


def labels_of(folder: Path, structures: list[Any], spectra: Any, grid: EnergyGrid = TOTAL_GRID) -> Labels:
    items = []
    for i, spectrum in enumerate(spectra):
        arrays = {} if spectrum is None else {"total_dos": spectrum}
        np.savez(folder / f"{i}.npz", **arrays)
        items.append(Label(f"gen_{i}", structures[i], None, folder / f"{i}.npz"))
    return Labels(items, ATOMIC, "labels (sha256 00)", "00", grid)


ATOMIC = EnergyGrid(minimum=-15, maximum=5, points=64)


def test_labels_in_the_place_of_the_predictor(run: Path, structures: list[Any], peaks: Any, tmp_path: Path) -> None:
    """Crystal 0 has its target, crystal 1 that of others, crystal 2 no spectrum, the others no label."""
    labels = labels_of(tmp_path, structures, [peaks[0], peaks[1], None])
    here = context(run)
    made, lacking = plan(run, here.candidates, EvaluationSettings(), None, labels)
    assert made is not None and lacking is None
    judged = judge(here, made, {})
    assert judged.rows[0]["dos_cosine"] == pytest.approx(1) and judged.rows[1]["dos_cosine"] < 0.01
    assert judged.block["source"] == "labels labels (sha256 00)" and judged.block["structures"] == {"labelled": 2}
    reasons = {"it has no label": 3, "its label has no total_dos": 1, "not_generated": 1}
    assert judged.block["not_judged"] == reasons
    assert judged.block["cosine"]["random"] is None and "single target" in judged.block["no_random"]


def test_nothing_that_judges_is_one_sentence(run: Path, structures: list[Any], tmp_path: Path) -> None:
    here = context(run)
    for labels in (None, labels_of(tmp_path, structures, [None])):
        made, sentence = plan(run, here.candidates, EvaluationSettings(), None, labels)
        assert made is not None and "--dos-predictor MODEL" in str(sentence)
        assert judge(here, made, {}).block == {} and here.computed == {}
    (run / "target_dos.npz").unlink()
    made, sentence = plan(run, here.candidates, EvaluationSettings(), None, None)
    assert made is None and "target_dos.npz is missing" in str(sentence)


def test_what_cannot_be_judged(
    run: Path, dos_run: Callable[..., Path], structures: list[Any], dos_model: Path, tmp_path: Path
) -> None:
    plain = dos_run(tmp_path / "plain", structures, told=False)
    candidates, predictor = read_candidates(plain), load_predictor(dos_model)
    assert plan(plain, candidates, EvaluationSettings(), None, None) == (None, None)
    with pytest.raises(UserError, match=r"--dos-predictor is given, but .* add --dos-target FILE"):
        plan(plain, candidates, EvaluationSettings(dos_predictor=dos_model), predictor, None)
    request = {"file": run / "target_dos.npz"}
    with pytest.raises(UserError, match="which nothing judges: add --dos-predictor"):
        plan(plain, candidates, EvaluationSettings(dos_target=request), None, None)
    split = write_split(tmp_path / "test", structures[:3])
    np.save(split / "structure_id.npy", np.array(["x", "y", "z"]))
    for folder, words in ((split, r"has none of the 3 crystals .*\(the first is one\)"), (run, "is no split")):
        with pytest.raises(UserError, match=words):
            plan(plain, candidates, EvaluationSettings(dos_target=request, truth=folder), predictor, None)


def test_a_predictor_on_another_grid(dos_model: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(UserError, match="does not exist"):
        load_predictor(tmp_path)
    folder = Path(shutil.copytree(dos_model, tmp_path / "other"))
    text = (folder / "predictor.yaml").read_text()
    (folder / "predictor.yaml").write_text(text.replace("points: 256", "points: 128"))
    with pytest.raises(UserError):
        load_predictor(folder)
