"""`mattergen-e reference build` as a user calls it: kill and rerun, other settings, bad input."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mattergen_e.cli.reference import app
from mattergen_e.errors import UserError
from mattergen_e.reference import Reference
from mattergen_e.reference import build as module
from mattergen_e.reference.build import BuildSettings, build

SLOW = """
import time
from ase.calculators.lj import LennardJones

class Slow(LennardJones):
    def calculate(self, *args, **kwargs):
        time.sleep({seconds})
        super().calculate(*args, **kwargs)

def make():
    return Slow(sigma=2.0, epsilon=0.1, rc=6.0)
"""


def arrays(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.npy"))}


def test_a_killed_build_goes_on_and_gives_the_same_bytes(
    warm: Any, tmp_path: Path, write_dos_cache: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, potential = write_dos_cache(tmp_path / "cache"), tmp_path / "potential.py"
    potential.write_text(SLOW.format(seconds=0.15))
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = BuildSettings(calculator="potential:make", chunk=4)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from pathlib import Path\n"
        "from mattergen_e.reference.build import *\n"
        f"build([Path({str(cache)!r})], Path({str(tmp_path / 'killed')!r}), "
        "BuildSettings(calculator='potential:make', chunk=4), jobs=1)"
    )
    process = warm.start([sys.executable, "-c", code])
    parts, ends = tmp_path / "killed" / "parts", time.monotonic() + 120
    while len(list(parts.glob("part_*.npz"))) < 2 and time.monotonic() < ends and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = sorted(parts.glob("part_*.npz"))
    assert 2 <= len(finished) < 6 and not (tmp_path / "killed" / "manifest.json").exists()
    with pytest.raises(UserError, match="is no reference"):
        Reference.open(tmp_path / "killed")

    computed: list[int] = []
    compute = module.compute_chunk
    monkeypatch.setattr(module, "compute_chunk", lambda task: (computed.append(task.number), compute(task))[1])
    manifest, reused = build([cache], tmp_path / "killed", settings, jobs=1)
    assert not reused and computed == list(range(len(finished), 6))
    whole, _ = build([cache], tmp_path / "whole", settings, jobs=1)
    assert arrays(tmp_path / "killed") == arrays(tmp_path / "whole") and len(arrays(tmp_path / "whole")) == 17
    assert manifest.hash == whole.hash and not parts.exists()
    assert build([cache], tmp_path / "whole", settings)[1]


def test_energies_of_a_file_and_none(tmp_path: Path, write_dos_cache: Callable[..., Path]) -> None:
    cache, energies = write_dos_cache(tmp_path / "cache"), tmp_path / "dft.csv"
    energies.write_text("material_id,energy_per_atom\ntrain-NaCl,-3.7\nNa,-1.3\nCl,-1.8\n")
    runner, out = CliRunner(), tmp_path / "given"
    done = runner.invoke(
        app, ["build", str(cache), "--out", str(out), "--energies", str(energies), "--splits", "train"]
    )
    assert done.exit_code == 0, done.output
    assert "8 crystals, energies of dft.csv for 1, in" in done.output
    reference = Reference.open(out)
    assert len(reference) == 8 and np.isfinite(reference.energies).sum() == 1
    assert reference.energy_source["kind"] == "file" and len(reference.energy_source["sha256"]) == 64
    # -3.7 - (-1.3 - 1.8) / 2 = -2.15
    assert reference.hull().formation_energy("NaCl", -3.7) == pytest.approx(-2.15)
    assert reference.hull().energy_above_hull("NaCl", -3.6) == pytest.approx(0.1)
    assert "Mg" in reference.manifest.missing_elements and "Na" not in reference.manifest.missing_elements
    assert "No energy of" in done.output and "Mg" in done.output

    again = runner.invoke(
        app, ["build", str(cache), "--out", str(out), "--energies", str(energies), "--splits", "train"]
    )
    assert "already in" in again.output
    command = ["build", str(cache), "--out", str(out), "--no-energies", "--limit", "5", "-j", "1"]
    refused = runner.invoke(app, command)
    assert isinstance(refused.exception, UserError) and "--overwrite" in str(refused.exception)
    assert len(Reference.open(out)) == 8
    replaced = runner.invoke(app, [*command, "--overwrite"])
    assert replaced.exit_code == 0 and "5 crystals, no energies, in" in replaced.output
    with pytest.raises(UserError, match="has no energies"):
        Reference.open(out).hull()
    # a damaged one, too, of the same settings
    for name, content in (("formulas.npy", b"noise"), ("manifest.json", b"{")):
        (out / name).write_bytes(content)
        repaired = runner.invoke(app, [*command, "--overwrite"])
        assert repaired.exit_code == 0 and "5 crystals, no energies, in" in repaired.output
        assert len(Reference.open(out)) == 5


def test_bad_input_is_one_sentence(tmp_path: Path, write_dos_cache: Callable[..., Path]) -> None:
    cache, full = write_dos_cache(tmp_path / "cache"), tmp_path / "thesis"
    full.mkdir()
    (full / "thesis.tex").write_text("years of work")
    cases = [
        ([cache], full, BuildSettings(calculator=None), "holds no reference but thesis.tex"),
        ([tmp_path / "no"], tmp_path / "o", BuildSettings(calculator=None), "unknown format"),
        ([full], tmp_path / "o", BuildSettings(calculator=None), "does not exist: make the cache"),
        ([cache], tmp_path / "o", BuildSettings(calculator="gulp"), "is unknown"),
        ([cache], tmp_path / "o", BuildSettings(calculator=None, splits=("all",)), "split all is unknown"),
        ([cache], tmp_path / "o", BuildSettings(energies=tmp_path / "no.csv"), "cannot be read"),
    ]
    for sources, out, settings, sentence in cases:
        with pytest.raises(UserError, match=sentence) as caught:
            build(sources, out, settings, jobs=1)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists() and [p.name for p in full.iterdir()] == ["thesis.tex"]
    done = CliRunner().invoke(app, ["build", str(cache), "--out", "x", "--energies", "e.csv", "--no-energies"])
    assert isinstance(done.exception, UserError) and "exclude each other" in str(done.exception)


def test_a_manifest_that_points_outside_is_refused(tmp_path: Path, write_dos_cache: Callable[..., Path]) -> None:
    build([write_dos_cache(tmp_path / "cache")], tmp_path / "ref", BuildSettings(calculator=None), jobs=1)
    file = tmp_path / "ref" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["arrays"]["../../secret.npy"] = manifest["arrays"]["ids.npy"]
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="outside of the folder"):
        Reference.open(tmp_path / "ref")
