"""Model folders of others: what their configuration may name, for every command that reads one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from mattergen_e import upstream
from mattergen_e.errors import UserError
from mattergen_e.quiet import quiet
from mattergen_e.upstream.trust import VARIABLE, check_at_the_door, check_folder, foreign, read_plain

ROOT = Path(__file__).resolve().parents[2]
MODELS = sorted(path.parent for path in (ROOT / "checkpoints").glob("*/config.yaml"))


def in_model(**values: Any) -> dict[str, Any]:
    """A configuration with these values in its model."""
    return {"lightning_module": {"descriptors": {"spin": values}}}


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_shipped_models_are_made_of_known_parts(folder: Path) -> None:
    assert foreign(read_plain(folder)) == []


@pytest.mark.parametrize("recipe", ["base_small", "bader_joint", "cdosgen", "joint_scratch", "bader_dos_joint"])
def test_what_a_training_writes_is_made_of_known_parts(recipe: str, compose: Callable[..., Any]) -> None:
    from omegaconf import OmegaConf

    config = compose(recipe, "data_module.root_dir=nowhere")
    whole = yaml.safe_load(OmegaConf.to_yaml(config))
    assert [text for text in foreign(whole) if "_target_" in text or text.startswith("lightning_module.")] == []


@pytest.mark.parametrize("recipe", ["default", "csp", "finetune"])
def test_mattergens_own_recipes_are_made_of_known_parts(recipe: str) -> None:
    conf = upstream.DATA / "conf"
    for file in conf.rglob("*.yaml"):
        found = foreign({"lightning_module": {}, "trainer": yaml.safe_load(file.read_text()) or {}})
        assert [text for text in found if ".hydra." not in text and "PROJECT_ROOT" not in text] == [], file


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.hub.load",
        "torch.load",
        "torch.nn.init",
        "torch.nn.modules.os.system",
        "hydra.utils.call",
        "hydra.utils.get_method",
        "pytorch_lightning.Trainer",
        "mattergen.generator.CrystalGenerator",
        "mattergen.common.utils.eval_utils.os.system",
        "mattergen.common.utils.data_utils.os.system",
        "mattergen.denoiser.torch.hub.load",
        "mattergen_e.generation.sampling.joint_sampler",
        "mattergen_e.diffusion.joint.Path",
        "evil_package.Run",
        "os.system()",
        "${trainer.target}",
        7,
        ["os.system"],
        {"a": "b"},
    ],
    ids=str,
)
def test_other_classes_and_functions_are_named(target: Any) -> None:
    found = foreign(in_model(_target_=target))
    assert any(text.startswith("lightning_module.descriptors.spin._target_: ") for text in found)


@pytest.mark.parametrize(
    "target",
    [
        "mattergen.denoiser.GemNetTDenoiser",
        "mattergen.common.diffusion.corruption.LatticeVPSDE.from_vpsde_config",
        "mattergen_e.descriptors.bader.BaderCharge",
        "mattergen_e.conditioning.dos.DosEmbedding",
        "torch.nn.Identity",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.OneCycleLR",
    ],
)
def test_parts_of_models_are_not(target: str) -> None:
    assert foreign(in_model(_target_=target)) == []


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("${data_module.average_density}", True),
        ("${..hidden_dim}", True),
        ("${eval:'(1 + len(${..property_embeddings})) * ${..hidden_dim}'}", True),
        ("${oc.env:PROJECT_ROOT}/common/gemnet/gemnet-dT.json", True),
        ("${oc.env:HOME}", False),
        ("${oc.create:${a}}", False),
        ("${${a}:x}", False),
        ("${a.${b}}", False),
        ("${hydra:runtime.cwd}", False),
        ("${my_resolver:1}", False),
        ("text with ${ shell : 'true' }", False),
    ],
)
def test_interpolations(text: str, allowed: bool) -> None:
    assert (foreign(in_model(value=text)) == []) is allowed
    assert (foreign(in_model(**{text: 1})) == []) is allowed


@pytest.mark.parametrize("key", ["defaults", "hydra"])
def test_keys_that_bring_in_other_files(key: str) -> None:
    assert foreign({"lightning_module": {}, key: []}) == [f"{key}, which brings in other files"]


def test_a_method_by_its_path() -> None:
    transform = {"_target_": "hydra.utils.get_method", "path": "mattergen.common.data.transform.symmetrize_lattice"}
    config = {"lightning_module": {}, "data_module": {"transforms": [transform]}}
    assert foreign(config) == []
    transform["path"] = "os.system"
    assert foreign(config) == ["data_module.transforms.0: os.system"]


def test_a_line_that_moves_the_keys(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# @package lightning_module\nlightning_module: {}\n")
    with pytest.raises(UserError, match="'# @package'"):
        read_plain(tmp_path)


def test_classes_of_a_package_that_registers_a_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spin_package.py").write_text(
        "import os\nimport torch\n\nclass Net(torch.nn.Module):\n    pass\n\ndef run() -> None:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = [f"spin_package.{name}" for name in ("Spin", "Net", "run", "os.system", "torch")]
    refused = [name for name in names if foreign(in_model(_target_=name))]
    assert refused == names
    info = tmp_path / "spin_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spin-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mattergen_e.descriptors]\nspin = spin_package:Spin\n")
    refused = [name for name in names if foreign(in_model(_target_=name))]
    assert refused == ["spin_package.run", "spin_package.os.system", "spin_package.torch"]


# -- the doors


@pytest.fixture
def poisoned(tmp_path: Path) -> tuple[Path, Path]:
    """A model folder whose configuration would make a file, and that file."""
    folder, proof = tmp_path / "model", tmp_path / "proof"
    shutil.copytree(ROOT / "checkpoints" / "bader_joint_small", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["lightning_module"]["descriptors"]["bader_charge"] = {
        "_target_": "pathlib.Path.touch",
        "_args_": [str(proof)],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder, proof


def test_the_door_looks_at_model_folders_alone(poisoned: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = poisoned
    with pytest.raises(UserError, match="descriptors.bader_charge._target_: pathlib.Path.touch"):
        check_at_the_door(folder)
    shutil.rmtree(folder / "checkpoints")  # a recipe of the user's own
    check_at_the_door(folder)
    check_at_the_door(tmp_path)


def test_it_can_be_switched_off(poisoned: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    check_folder(poisoned[0])


@pytest.mark.parametrize(
    "words",
    [
        ("mattergen-generate", "OUT", "--model_path=MODEL", "--batch_size=1", "--sampling_config_name=joint"),
        ("mattergen-generate", "OUT", "--model_path=MODEL", "--batch_size=1"),
        ("mattergen-finetune", "--config-name=dummy_joint", "adapter.model_path=MODEL", "data_module.root_dir=CACHE"),
        ("mattergen-e", "predict", "SI", "--model_path=MODEL", "--out=OUT"),
        ("mattergen-e", "accuracy", "SI", "--model_path=MODEL"),
        ("mattergen-e", "export", "MODEL", "--out=OUT"),
        ("mattergen-e", "doctor", "--model_path=MODEL"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_command_builds_it(
    words: tuple[str, ...],
    poisoned: tuple[Path, Path],
    tmp_path: Path,
    run_command: Callable[..., CompletedProcess[str]],
    write_dos_cache: Callable[..., Path],
) -> None:
    folder, proof = poisoned
    places = {"MODEL": str(folder), "OUT": str(tmp_path / "out"), "SI": str(ROOT / "examples")}
    if "finetune" in words[0]:
        places["CACHE"] = str(write_dos_cache(tmp_path / "cache"))
    given = [word.replace(key, place) for word in words for key, place in [_one(word, places)]]
    result = run_command(*given, check=False)
    doctor = "doctor" in words
    assert result.returncode == (1 if doctor else 2), result.stderr
    said = (result.stdout if doctor else result.stderr).split()
    assert "pathlib.Path.touch" in " ".join(said)
    assert "Traceback" not in result.stderr
    assert not proof.exists()
    assert list(tmp_path.glob("out/*")) == []


def _one(word: str, places: dict[str, str]) -> tuple[str, str]:
    return next(((key, place) for key, place in places.items() if key in word.split("=")), ("\0", ""))


def test_an_expression_of_a_foreign_model_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mattergen_e.upstream.models import load_model

    folder, proof = tmp_path / "model", tmp_path / "proof"
    shutil.copytree(ROOT / "checkpoints" / "base_small", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["lightning_module"]["diffusion_module"]["model"]["hidden_dim"] = f'${{eval:\'open("{proof}", "w")\'}}'
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with quiet(), pytest.raises(Exception, match="is not arithmetic"):
        load_model(folder, device="cpu")
    assert not proof.exists()
