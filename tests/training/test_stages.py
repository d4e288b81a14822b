"""Walking back from a run to the runs that it started from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mattergen_e.training.export import export
from mattergen_e.training.stages import Stage, find_stages, loss_ends
from mattergen_e.upstream.trust import read_plain

MODULE = "mattergen.diffusion.lightning_module.DiffusionLightningModule"

Make = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> Make:
    """Makes a run folder of the form that MatterGen's commands leave, with 0.5 hours per epoch."""

    def make(name: str, epochs: int, start: Path | None = None, recipe: str | None = None, **adapter: Any) -> Path:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        config: dict[str, Any] = {"lightning_module": {"_target_": MODULE}}
        if start is not None or adapter:
            path = None if start is None else str(start)
            config["adapter"] = {"model_path": path, "load_epoch": "last", "pretrained_name": None} | adapter
            config["lightning_module"]["descriptors"] = {"bader_charge": {}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        for epoch in range(epochs):
            record = {"seconds": 1800.0 * (epoch + 1), "seed": 1} | ({"recipe": recipe} if recipe else {})
            content = {"epoch": epoch, "global_step": 10 * (epoch + 1), "pytorch-lightning_version": "2.6.0"}
            content |= {"state_dict": {"a": torch.zeros(3)}, "mattergen_e": record}
            torch.save(content, folder / "checkpoints" / f"epoch={epoch}-loss_val={9 - epoch}.00.ckpt")
            torch.save(content, folder / "checkpoints" / "last.ckpt")
        rows = [f"{epoch},{9 - epoch}.5,{9 - epoch}.0" for epoch in range(epochs)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,loss_train_epoch,loss_val", *rows]) + "\n")
        return folder

    return make


def stages_of(run: Path) -> list[Stage]:
    """The stages that lead to a run's last checkpoint."""
    return find_stages(run, read_plain(run), torch.load(run / "checkpoints" / "last.ckpt"))


def test_stages_of_three_runs(make_run: Make) -> None:
    base = make_run("base", 3, recipe="base_small")
    first = make_run("first", 2, base)
    stages = stages_of(make_run("second", 4, first))
    assert [(s.run, s.starts_from, s.epochs, s.steps, s.hours) for s in stages] == [
        ("base", None, 3, 30, 1.5),
        ("first", "base", 2, 20, 1.0),
        ("second", "first", 4, 40, 2.0),
    ]
    assert [s.command for s in stages] == ["mattergen-train", "mattergen-finetune", "mattergen-finetune"]
    assert [s.recipe for s in stages] == ["base_small", None, None]
    assert [s.descriptors for s in stages] == [[], ["bader_charge"], ["bader_charge"]]
    assert stages[0].loss_first == {"loss_train_epoch": 9.5, "loss_val": 9.0}
    assert stages[0].loss_last == {"loss_train_epoch": 7.5, "loss_val": 7.0}


def test_stage_ends_at_the_checkpoint_that_the_next_one_starts_from(make_run: Make) -> None:
    base = make_run("base", 3)
    stages = stages_of(make_run("tuned", 1, base, load_epoch=1))
    assert (stages[0].epochs, stages[0].hours, stages[0].loss_last["loss_val"]) == (2, 1.0, 8.0)
    best = stages_of(make_run("best", 1, base, load_epoch="best"))
    assert best[0].epochs == 3


def test_walk_ends_where_a_folder_is_gone_or_damaged(make_run: Make, tmp_path: Path) -> None:
    alone = stages_of(make_run("alone", 1, tmp_path / "gone"))
    assert [(s.run, s.starts_from) for s in alone] == [("alone", "gone")]
    base = make_run("base", 1)
    last = base / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:500])
    assert [s.run for s in stages_of(make_run("tuned", 1, base))] == ["tuned"]
    last.unlink()
    assert [s.run for s in stages_of(tmp_path / "tuned")] == ["tuned"]
    (base / "config.yaml").write_text("a: [")
    assert [s.run for s in stages_of(tmp_path / "tuned")] == ["tuned"]


def test_published_model_is_named(make_run: Make) -> None:
    stages = stages_of(make_run("tuned", 1, pretrained_name="mattergen_base"))
    assert [(s.run, s.starts_from) for s in stages] == [("tuned", "mattergen_base")]


def test_runs_that_name_each_other_end_the_walk(make_run: Make, tmp_path: Path) -> None:
    one = make_run("one", 1, tmp_path / "two")
    assert [s.run for s in stages_of(make_run("two", 1, one))] == ["one", "two"]


def test_model_folder_tells_its_own_stages(make_run: Make, tmp_path: Path) -> None:
    export(make_run("first", 2, make_run("base", 3)), tmp_path / "model")
    tuned = make_run("tuned", 1, tmp_path / "model")
    assert [(s.run, s.hours) for s in stages_of(tuned)] == [("base", 1.5), ("first", 1.0), ("tuned", 0.5)]
    card = yaml.safe_load((tmp_path / "model" / "card.yaml").read_text())
    del card["stages"]  # as in version 0.1
    (tmp_path / "model" / "card.yaml").write_text(yaml.safe_dump(card))
    stages = stages_of(tuned)
    assert [(s.run, s.command, s.hours) for s in stages] == [
        ("model", None, 1.0),
        ("tuned", "mattergen-finetune", 0.5),
    ]
    assert stages[0].loss_last == {"loss_train_epoch": 8.5, "loss_val": 8.0}


def test_stages_hold_no_paths(make_run: Make, tmp_path: Path) -> None:
    export(make_run("first", 2, make_run("base", 3)), tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "card.yaml").read_text()


def test_loss_ends_of_no_file(tmp_path: Path) -> None:
    assert loss_ends(tmp_path / "metrics.csv") == ({}, {})
