"""Model folders: what is kept, and what must not leave the machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from kills import kills

from mattergen_e.cli.export import export as command
from mattergen_e.errors import UserError
from mattergen_e.training.card import read_card
from mattergen_e.training.export import export

MODULE = "mattergen.diffusion.lightning_module.DiffusionLightningModule"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of the form that MatterGen's commands leave."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    config = {
        "lightning_module": {"_target_": MODULE, "descriptors": {}},
        "data_module": {"root_dir": "/somewhere/secret", "properties": ["dft_band_gap"]},
        "trainer": {"default_root_dir": "/somewhere/secret"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    checkpoint = {
        "state_dict": {"a": torch.arange(4.0), "b": torch.zeros(2, 3)},
        "optimizer_states": [{"state": torch.zeros(1000)}],
        "epoch": 4,
        "global_step": 50,
        "pytorch-lightning_version": "2.6.0",
        "mattergen_e": {"seed": 7, "seconds": 1800.0, "versions": {"torch": "2"}, "hardware": {}, "data": None},
    }
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    rows = "epoch,loss_train_epoch,loss_val,step\n0,,9.5,3\n0,8.25,,3\n1,,4.5,6\n1,4.0,,6\n"
    (folder / "metrics.csv").write_text(rows)
    return folder


def test_export_keeps_weights_and_drops_the_rest(run: Path, tmp_path: Path) -> None:
    card = export(run, tmp_path / "model", notes={"name": "m", "licence": "MIT"})
    assert card.parameters == 10
    assert (card.training.epochs, card.training.steps, card.training.seed) == (5, 50, 7)
    assert card.training.hours == 0.5
    assert card.training.loss_last == {"loss_val": 4.5, "loss_train_epoch": 4.0}
    loaded = torch.load(tmp_path / "model" / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(loaded["state_dict"]["a"], torch.arange(4.0))
    assert "optimizer_states" not in loaded
    assert [(stage.run, stage.hours) for stage in card.stages] == [("run", 0.5)]
    for file in ("config.yaml", "card.yaml"):
        assert "secret" not in (tmp_path / "model" / file).read_text()
    assert read_card(tmp_path / "model" / "card.yaml") == card


def test_existing_folder_is_not_touched(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        export(run, target)
    assert (target / "mine.txt").read_text() == "mine"


def test_bad_notes_leave_nothing_behind(run: Path, tmp_path: Path) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(UserError, match="notes for the card"):
        export(run, tmp_path / "model", notes={"colour": "blue"})
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_missing_parts_are_named(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match="does not exist"):
        export(run, tmp_path / "model")
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"no config\.yaml"):
        export(run, tmp_path / "model")


def test_command_says_one_line(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command(run, tmp_path / "model")
    out, err = capfd.readouterr()
    assert out.startswith(f"{tmp_path / 'model'}: 10 parameters") and len(out.splitlines()) == 1
    assert err == ""


def test_autoencoder_stays_in_the_weights_and_its_folder_is_forgotten(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    descriptors = {"atomic_dos": {"dim": 4, "autoencoder": "/somewhere/secret"}, "dummy": {}}
    config["lightning_module"]["descriptors"] = descriptors
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    path, name = run / "checkpoints" / "last.ckpt", "diffusion_module.joint_fields.companions.atomic_dos.autoencoder"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"][name] = torch.arange(200, dtype=torch.uint8)
    torch.save(checkpoint, path)
    card = export(run, tmp_path / "model")
    assert card.parameters == 10  # bytes are no parameters
    text = (tmp_path / "model" / "config.yaml").read_text()
    assert "secret" not in text
    written = yaml.safe_load(text)["lightning_module"]["descriptors"]
    assert written == {"atomic_dos": {"dim": 4, "autoencoder": None}, "dummy": {}}
    loaded = torch.load(tmp_path / "model" / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(loaded["state_dict"][name], torch.arange(200, dtype=torch.uint8))


def test_structure_only_model_gets_no_descriptors(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["lightning_module"]["descriptors"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    export(run, tmp_path / "model")
    assert yaml.safe_load((tmp_path / "model" / "config.yaml").read_text())["lightning_module"] == {"_target_": MODULE}


def test_only_model_folders_are_replaced(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in (None, "[1, 2]", "name: mine", "\xff\xfe"):
        (target / "deep").mkdir(parents=True, exist_ok=True)
        (target / "deep" / "mine.txt").write_text("mine")
        if content is not None:
            (target / "card.yaml").write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match=r"so --overwrite does not replace .*: choose another --out\.$"):
            export(run, target, overwrite=True)
        assert (target / "deep" / "mine.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="does not replace"):
        export(run, tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_run_itself_is_not_replaced(run: Path, tmp_path: Path) -> None:
    before = sorted(path for path in tmp_path.rglob("*"))
    (tmp_path / "link").symlink_to(run)
    for target in (run, tmp_path, run / "checkpoints" / "..", tmp_path / "link"):
        with pytest.raises(UserError, match="is or holds the run"):
            export(run, target, overwrite=True)
    (tmp_path / "link").unlink()
    assert sorted(path for path in tmp_path.rglob("*")) == before
    export(run, run / "model")
    export(run, run / "model", overwrite=True)


def test_killed_anywhere(run: Path, tmp_path: Path) -> None:
    """There is a whole model at every moment, and nothing is left behind."""
    export(run, tmp_path / "old", notes={"name": "old"})
    names = set()
    for place in kills(
        lambda at: export(run, at / "model", notes={"name": "new"}, overwrite=True),
        lambda at: shutil.copytree(tmp_path / "old", at / "model"),
        tmp_path,
    ):
        names.add(read_card(place / "model" / "card.yaml").name)
        torch.load(place / "model" / "checkpoints" / "last.ckpt", weights_only=True)
        export(run, place / "model", notes={"name": "again"}, overwrite=True)
        assert [path.name for path in place.iterdir()] == ["model"]
        assert read_card(place / "model" / "card.yaml").name == "again"
    assert names == {"old", "new"}
