"""The one door to MatterGen: repairs, safe checkpoints, sentences instead of tracebacks."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mattergen_e import upstream
from mattergen_e.errors import UserError

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def gemnet() -> Any:
    """The module of MatterGen that reads the scale factors."""
    import mattergen.common.gemnet.gemnet as module

    upstream.prepare()
    return module


class Malicious:
    """An object that runs a command when it is unpickled carelessly."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


# -- package data


def test_every_piece_of_package_data_is_there_or_carried() -> None:
    pieces = upstream.package_data()
    assert [piece.path.name for piece in pieces] == ["conf", "sampling_conf", "gemnet-dT.json"]
    assert all(piece.carried.exists() for piece in pieces)


def test_missing_mattergen_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps mattergen==1.0.3"):
        upstream.package_data()


def test_scale_factors_of_a_complete_mattergen_are_left_alone(
    gemnet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "common/gemnet").mkdir(parents=True)
    (tmp_path / "common/gemnet/gemnet-dT.json").write_text("{}")
    monkeypatch.setattr(gemnet, "MODELS_PROJECT_ROOT", tmp_path)
    upstream.prepare()
    assert tmp_path == gemnet.MODELS_PROJECT_ROOT


def test_missing_scale_factors_are_replaced(gemnet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gemnet, "MODELS_PROJECT_ROOT", tmp_path)
    upstream.prepare()
    assert Path(gemnet.MODELS_PROJECT_ROOT) == upstream.DATA / "package"


def test_scale_factors_reach_the_network(make_module: Callable[..., Any]) -> None:
    state = make_module().state_dict()
    factors = {name.split("gemnet.")[1]: float(value) for name, value in state.items() if name.endswith("scale_factor")}
    assert factors["int_blocks.0.trip_interaction.scale_rbf.scale_factor"] == pytest.approx(18.873615, rel=1e-5)
    assert factors["out_blocks.0.scale_sum.scale_factor"] == pytest.approx(1.643785, rel=1e-5)


# -- preparing


def test_preparing_twice_changes_nothing(gemnet: Any) -> None:
    from mattergen.common.utils.data_classes import MatterGenCheckpointInfo

    before = MatterGenCheckpointInfo.from_hf_hub.__func__, gemnet.MODELS_PROJECT_ROOT
    upstream.prepare()
    assert before == (MatterGenCheckpointInfo.from_hf_hub.__func__, gemnet.MODELS_PROJECT_ROOT)


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("/usr/bin/mattergen-train", True),
        ("mattergen-generate", True),
        ("mattergen-evaluate", True),
        ("/somewhere/mattergen-e", False),
        ("mattergen-e.exe", False),
        ("pytest", False),
    ],
)
def test_whose_command_this_is(program: str, answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "--flag"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert upstream.is_mattergen_command() is answer


def test_user_error_ends_a_command_of_mattergen_but_not_a_python_caller(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @upstream.exit_on_user_error
    def fails() -> None:
        raise UserError("the file is empty: fill it.")

    monkeypatch.setattr(sys, "argv", ["notebook"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(UserError):
        fails()
    monkeypatch.setattr(sys, "argv", ["mattergen-train"])
    with pytest.raises(SystemExit) as ended:
        fails()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "mattergen-e: the file is empty: fill it.\n"


def test_conditions_are_registered_once() -> None:
    from mattergen.common.utils.globals import PROPERTY_SOURCE_IDS

    before = list(PROPERTY_SOURCE_IDS)
    try:
        upstream.register_property("dielectric_constant")
        upstream.register_property("dielectric_constant")
        assert [*before, "dielectric_constant"] == PROPERTY_SOURCE_IDS == upstream.known_properties()
    finally:
        PROPERTY_SOURCE_IDS[:] = before


# -- checkpoints


def test_checkpoint_with_configuration_containers_loads(gemnet: Any, tmp_path: Path) -> None:
    import numpy as np
    import torch
    from omegaconf import OmegaConf

    settings = OmegaConf.create({"lr": 1e-4, "name": "Adam", "steps": [1, 2], "more": {"on": True, "none": None}})
    content = {
        "state_dict": {"weight": torch.ones(2)},
        "hyper_parameters": {"settings": settings},
        "callbacks": {"best": np.float64(0.5), "folder": Path("checkpoints")},
    }
    torch.save(content, tmp_path / "last.ckpt")
    loaded = upstream.load_checkpoint(tmp_path / "last.ckpt")
    assert loaded["hyper_parameters"]["settings"] == settings
    assert loaded["callbacks"]["folder"] == Path("checkpoints")
    # as MatterGen itself loads, where torch's default is the safe way
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["best"] == 0.5


@pytest.mark.parametrize("bare", [False, True], ids=["torch", "pickle"])
def test_checkpoint_with_code_is_refused_unread(bare: bool, tmp_path: Path) -> None:
    import torch

    proof, path = tmp_path / "proof", tmp_path / "last.ckpt"
    content = {"state_dict": {}, "gift": Malicious(f"touch {proof}")}
    if bare:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match="not a safe checkpoint") as caught:
        upstream.load_checkpoint(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not proof.exists()


def test_checkpoint_that_is_damaged_or_absent(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "last.ckpt"
    with pytest.raises(UserError, match="does not exist"):
        upstream.load_checkpoint(path)
    torch.save({"state_dict": {"weight": torch.ones(1000)}}, path)
    whole = path.read_bytes()
    for content in (b"", whole[:10], whole[: len(whole) // 2], b"half a file"):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            upstream.load_checkpoint(path)
        assert len(str(caught.value).splitlines()) == 1


# -- published checkpoints


def test_published_checkpoint_without_network_is_one_sentence(gemnet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mattergen.common.utils.data_classes as data_classes
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(**_: Any) -> str:
        raise LocalEntryNotFoundError("no network\nand no copy")

    monkeypatch.setattr(data_classes, "hf_hub_download", unreachable)
    with pytest.raises(UserError, match="'mattergen_base' is not on this machine") as caught:
        data_classes.MatterGenCheckpointInfo.from_hf_hub("mattergen_base")
    assert len(str(caught.value).splitlines()) == 1


def test_other_errors_of_published_checkpoints_stay_what_they_are(gemnet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mattergen.common.utils.data_classes as data_classes

    def broken(**_: Any) -> str:
        raise KeyError("a mistake in the program")

    monkeypatch.setattr(data_classes, "hf_hub_download", broken)
    with pytest.raises(KeyError):
        data_classes.MatterGenCheckpointInfo.from_hf_hub("mattergen_base")


def test_published_checkpoint_that_is_here_is_found(
    gemnet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import mattergen.common.utils.data_classes as data_classes

    monkeypatch.setattr(data_classes, "hf_hub_download", lambda repo_id, filename: str(tmp_path / filename))
    info = data_classes.MatterGenCheckpointInfo.from_hf_hub("mp_20_base", config_overrides=["a=1"])
    assert info.model_path == tmp_path / "checkpoints" / "mp_20_base"
    assert info.config_overrides == ["a=1"]


@pytest.mark.slow
def test_finetuning_a_published_model_offline(tmp_path: Path) -> None:
    words = [
        "adapter.pretrained_name=mattergen_base",
        "data_module=crystals",
        f"data_module.root_dir={tmp_path}",
        "data_module.train_dataset={_target_: builtins.dict}",
        "data_module.val_dataset={_target_: builtins.dict}",
        "trainer.accelerator=cpu",
        "trainer.strategy=auto",
        "trainer.logger=false",
        "trainer.callbacks=[]",
        "trainer.max_epochs=1",
    ]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OUTPUT_DIR": str(tmp_path / "run"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    result = subprocess.run(
        [str(BIN / "mattergen-finetune"), "--config-name=finetune", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr[-3000:]
    assert result.stderr.strip().splitlines()[-1].startswith("mattergen-e: the published checkpoint 'mattergen_base'")
    assert "Traceback" not in result.stderr


@pytest.fixture
def generate(gemnet: Any) -> Callable[..., Any]:
    """MatterGen's generator in Python on the small model of the repository."""
    from mattergen.common.utils.data_classes import MatterGenCheckpointInfo
    from mattergen.generator import CrystalGenerator

    model = Path(__file__).resolve().parents[2] / "checkpoints" / "bader_joint_small"

    def make(info: str = str(model), **settings: Any) -> Any:
        words = {"batch_size": 1, "num_batches": 1, "sampling_config_name": "joint"} | settings
        return CrystalGenerator(MatterGenCheckpointInfo(info), **words)

    return make


def test_compositions_of_a_python_caller_are_one_sentence(generate: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="target_compositions needs a model trained for crystal structure prediction"):
        generate().generate(target_compositions_dict=[{"Na": 1, "Cl": 1}], output_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_compositions_of_the_command_are_one_sentence(
    generate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mattergen-generate"])
    upstream.watch_for_early_errors()
    with pytest.raises(AssertionError) as caught:
        generate(target_compositions_dict=[{"Na": 1, "Cl": 1}])
    with pytest.raises(SystemExit) as ended:
        sys.excepthook(AssertionError, caught.value, caught.tb)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"mattergen-e: {upstream.COMPOSITIONS}\n"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"sampling_config_name": "joints"},
            "--sampling_config_name or .*: joints: there is no such file; .*did you mean joint",
        ),
        (
            {"sampling_config_overrides": ["sampler_partial.omgea=1"]},
            "overrides: sampler_partial.omgea is no setting .* no 'omgea' in sampler_partial; .*did you mean omega",
        ),
        ({"info": "/nowhere"}, "--model_path or --config_overrides: .* not found. Check that .* '/nowhere' exists"),
    ],
)
def test_settings_that_are_none_are_one_sentence(
    generate: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    settings: dict[str, Any],
    sentence: str,
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mattergen-generate"])
    upstream.watch_for_early_errors()
    with pytest.raises(Exception, match="onfig|override") as caught:
        generate(**settings).generate(output_dir=str(tmp_path))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        sys.excepthook(caught.type, caught.value, caught.tb)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and re.search(sentence, told) and told.count("\n") == 1


@pytest.mark.slow
def test_generating_with_a_published_model_offline(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [str(BIN / "mattergen-generate"), str(tmp_path / "out"), "--pretrained-name=mattergen_base"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr[-3000:]
    assert result.stderr.strip().splitlines()[-1].startswith("mattergen-e: the published checkpoint is not on this")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("program", "watched"), [("mattergen-generate", True), ("pytest", False)])
def test_only_commands_of_mattergen_are_watched(program: str, watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", before)
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{program}"])
    upstream.watch_for_early_errors()
    assert (sys.excepthook is not before) == watched


@pytest.mark.parametrize("raised", [KeyError("a mistake in the program"), OSError("no network")])
def test_hook_takes_errors_of_the_hub_only(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    passed_on: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: passed_on.append(error))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mattergen-generate"])
    upstream.watch_for_early_errors()

    def from_hf_hub() -> None:
        raise raised

    with pytest.raises(type(raised)) as caught:
        from_hf_hub()
    if isinstance(raised, KeyError):
        sys.excepthook(KeyError, raised, caught.tb)
        assert passed_on == [raised]
    else:
        with pytest.raises(SystemExit) as ended:
            sys.excepthook(OSError, raised, caught.tb)
        assert ended.value.code == 2 and not passed_on


@pytest.mark.parametrize("model", ["base_small", "bader_joint_small"])
def test_small_models_with_mattergens_own_sampling_name_the_flag(model: str, tmp_path: Path, warm: Any) -> None:
    """They are trained with 200 steps, MatterGen's settings take 1000."""
    folder = Path(__file__).resolve().parents[2] / "checkpoints" / model
    result = warm.run(["mattergen-generate", tmp_path / "out", f"--model_path={folder}", "--batch_size=1"])
    assert result.returncode == 2, result.stderr[-3000:]
    last = result.stderr.strip().splitlines()[-1]
    assert (
        last.startswith("mattergen-e: this model was trained with 200 steps") and "--sampling_config_name=joint" in last
    )
    assert "Traceback" not in result.stderr
