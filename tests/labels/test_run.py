"""`label` over real calculations: right numbers, resumed after a kill, one line for each that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mattergen_e.cli.data import app
from mattergen_e.data.build import build_cache
from mattergen_e.data.cache import load_manifest, open_crystals, open_sites, require_processing
from mattergen_e.errors import UserError
from mattergen_e.labels.run import label, label_calculations
from mattergen_e.labels.settings import LabelSettings
from mattergen_e.spectra.processing import AtomicDosSettings, TotalDosSettings

#: Small crystals of the real data, of all three splits.
NUMBER = 8


@pytest.fixture
def calculations(real_data: Path, tmp_path: Path) -> Path:
    """A folder with some real .npz labels and their lines of the manifest."""
    folder = tmp_path / "gpaw"
    folder.mkdir()
    lines = [json.loads(line) for line in (real_data / "gpaw" / "manifest.jsonl").read_text().splitlines()]
    chosen = [line for split in ("train", "val", "test") for line in lines if line["split"] == split][: NUMBER - 2]
    chosen += [next(line for line in lines if line["split"] == split) for split in ("val", "test")]
    for line in chosen:
        shutil.copy(real_data / "gpaw" / f"{line['material_id']}.npz", folder)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in chosen))
    return folder


def labels_of(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines())
    return {line["material_id"]: line for line in lines}


def test_labels_hold_what_the_calculations_hold(calculations: Path, tmp_path: Path) -> None:
    summary = label([calculations], tmp_path / "labels", properties={"dft_band_gap": "band_gap_mp2018"}, jobs=1)
    assert summary.labelled == NUMBER and not summary.failed
    for name, line in labels_of(tmp_path / "labels").items():
        with np.load(calculations / f"{name}.npz") as given, np.load(tmp_path / "labels" / line["arrays"]) as made:
            np.testing.assert_allclose(line["bader_charge"], given["bader"], atol=1e-6)
            energies, dos = given["energy_grid"], given["dos"]
            window = (energies >= -10) & (energies <= 9.99)
            states = np.trapezoid(dos[window], energies[window]) if hasattr(np, "trapezoid") else np.trapz(
                dos[window], energies[window]
            )  # fmt: skip
            n_sites = len(given["numbers"])
            assert made["total_dos"].shape == (256,) and made["atomic_dos"].shape == (n_sites, 512)
            # Smearing moves states over the edges of the window only.
            assert made["total_dos"].sum() * 20 / 256 * n_sites == pytest.approx(states, rel=0.03, abs=0.2)


def test_second_call_makes_nothing_and_gives_the_same(calculations: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    label([calculations], out, jobs=1)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(out.glob("items/*"))}
    lines = (out / "labels.jsonl").read_bytes()
    summary = label([calculations], out, jobs=2)
    assert summary.reused == NUMBER
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(out.glob("items/*"))} == before
    assert (out / "labels.jsonl").read_bytes() == lines


def test_changed_file_is_labelled_anew(calculations: Path, tmp_path: Path) -> None:
    label([calculations], tmp_path / "labels", jobs=1)
    changed = sorted(calculations.glob("*.npz"))[0]
    with np.load(changed) as given:
        arrays = dict(given) | {"bader": np.zeros(len(given["numbers"]))}
    np.savez(changed, **arrays)
    summary = label([calculations], tmp_path / "labels", jobs=1)
    assert summary.reused == NUMBER - 1
    assert not any(labels_of(tmp_path / "labels")[changed.stem]["bader_charge"])


def test_bad_files_get_a_line_each_and_the_rest_goes_on(calculations: Path, tmp_path: Path) -> None:
    files = sorted(calculations.glob("*.npz"))
    files[0].write_bytes(files[0].read_bytes()[:1000])
    files[1].write_bytes(b"")
    (calculations / "deeper").mkdir()
    shutil.copy(files[2], calculations / "deeper")
    shutil.copy(files[3], calculations / "deeper" / "another-name.npz")
    summary = label([calculations], tmp_path / "labels", jobs=1)
    failed = [json.loads(line) for line in (tmp_path / "labels" / "failed.jsonl").read_text().splitlines()]
    reasons = {Path(line["origin"]).relative_to(calculations).as_posix(): line["reason"] for line in failed}
    assert reasons.pop(files[0].name) in ("damaged_file", "unreadable_file")
    assert reasons.pop(files[1].name) in ("damaged_file", "unreadable_file")
    # The walk is sorted: the deeper folder comes first or last, but one of each pair is left out.
    assert sorted(reasons.values()) == ["duplicate", "duplicate"]
    assert summary.labelled == NUMBER - 2
    assert all("\n" not in line["sentence"] and line["sentence"] for line in failed)


def test_labels_become_a_cache_with_its_processing(calculations: Path, tmp_path: Path) -> None:
    label([calculations], tmp_path / "labels", jobs=1)
    manifest = build_cache([tmp_path / "labels"], tmp_path / "cache", jobs=1)
    assert manifest.crystals == NUMBER and set(manifest.site_values) == {"atomic_dos", "bader_charge"}
    sites, crystals = (manifest.splits["train"].sites, manifest.splits["train"].crystals)
    assert open_sites(tmp_path / "cache" / "train", "atomic_dos").shape == (sites, 512)
    assert open_crystals(tmp_path / "cache" / "train", "total_dos").shape == (crystals, 256)
    read = load_manifest(tmp_path / "cache")
    require_processing(read, "atomic_dos", AtomicDosSettings())
    require_processing(read, "total_dos", TotalDosSettings())
    with pytest.raises(UserError, match="smearing 0.1, but 0.2 is needed"):
        require_processing(read, "atomic_dos", AtomicDosSettings(smearing=0.2))
    with pytest.raises(UserError, match="does not say"):
        require_processing(read.model_copy(update={"processing": {}}), "atomic_dos", AtomicDosSettings())


def test_cache_is_built_from_calculations_directly(calculations: Path, tmp_path: Path) -> None:
    (calculations / "broken.npz").write_bytes(b"nothing")
    result = CliRunner().invoke(app, ["build", str(calculations), "--out", str(tmp_path / "direct"), "--jobs", "1"])
    assert result.exit_code == 0, result.output
    direct = load_manifest(tmp_path / "direct")
    (calculations / "broken.npz").unlink()
    label([calculations], tmp_path / "labels", jobs=1)
    by_labels = build_cache([tmp_path / "labels"], tmp_path / "cache", jobs=1)
    assert direct.splits == by_labels.splits
    assert [item.id for item in direct.dropped] == ["broken"] and (tmp_path / "direct.labels").is_dir()


def test_labels_take_the_place_of_calculations_among_the_sources(calculations: Path, tmp_path: Path) -> None:
    first, second = sorted(calculations.glob("*.npz"))[:2]
    file, out = tmp_path / "x.jsonl", tmp_path / "labels"
    kept, failed = label_calculations([file, first, tmp_path / "y.csv", second], out, jobs=1)
    assert kept == [file, out, tmp_path / "y.csv"] and failed == [] and len(labels_of(out)) == 2
    assert label_calculations([file, out], tmp_path / "none", jobs=1) == ([file, out], [])
    assert not (tmp_path / "none").exists()


def test_options_are_checked_before_calculations_are_labelled(calculations: Path, tmp_path: Path) -> None:
    arguments = ["build", str(calculations), "--out", str(tmp_path / "out"), "--property", "colour batch"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UserError) and "'colour batch' cannot be the name" in str(result.exception)
    assert not (tmp_path / "out.labels").exists()


def test_cache_is_not_built_from_calculations_without_labels(calculations: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder of labels: make one of its calculations with 'mattergen-e data"):
        build_cache([calculations], tmp_path / "out", jobs=1)


def test_labels_made_differently_do_not_mix(calculations: Path, tmp_path: Path) -> None:
    first, second = (sorted(calculations.glob("*.npz"))[i] for i in (0, 1))
    label([first], tmp_path / "a", jobs=1)
    label([second], tmp_path / "b", LabelSettings(atomic_dos=AtomicDosSettings(smearing=0.3)), jobs=1)
    with pytest.raises(UserError, match="other settings"):
        build_cache([tmp_path / "a", tmp_path / "b"], tmp_path / "cache", jobs=1)


def test_line_cannot_name_a_file_outside_its_folder(calculations: Path, tmp_path: Path) -> None:
    label([calculations], tmp_path / "labels", jobs=1)
    lines = [json.loads(line) for line in (tmp_path / "labels" / "labels.jsonl").read_text().splitlines()]
    lines[0]["arrays"] = "../secret.npz"
    (tmp_path / "labels" / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = build_cache([tmp_path / "labels"], tmp_path / "cache", jobs=1)
    assert [(item.reason, item.id) for item in manifest.dropped] == [("broken_entry", lines[0]["material_id"])]


def test_killed_run_goes_on(warm: Any, real_data: Path, tmp_path: Path) -> None:
    """kill -9 in the middle: what was finished stays, and the rest is made by the same call."""
    out = tmp_path / "labels"
    code = "import sys; from mattergen_e.labels.run import label; label([sys.argv[1]], sys.argv[2], jobs=2)"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = warm.start([sys.executable, "-c", code, real_data / "gpaw", out], environment=environment)
    wait_until(lambda: len(list(out.glob("items/*.json"))) >= 20, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = len(list(out.glob("items/*.json")))
    assert not (out / "labels.jsonl").exists()
    with pytest.raises(UserError, match="not finished"):
        build_cache([out], tmp_path / "cache", jobs=1)
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("items/*.json")}
    summary = label([real_data / "gpaw"], out, jobs=2)
    assert len(before) <= summary.reused + 4 and found <= summary.reused + 4
    assert len(summary.outcomes) == 680 and summary.labelled > 600
    kept = sum(file.stat().st_mtime_ns == before.get(file.name) for file in out.glob("items/*.json"))
    assert kept >= summary.reused
    assert not list(out.glob("**/.mattergen_e-*"))


def wait_until(true: Callable[[], bool], process: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)


def test_wrong_sources_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        label([tmp_path / "nowhere"], tmp_path / "labels")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no calculation"):
        label([tmp_path / "empty"], tmp_path / "labels")
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="need no labelling"):
        label([tmp_path / "x.jsonl"], tmp_path / "labels")
    assert not (tmp_path / "labels").exists()
