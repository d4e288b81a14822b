"""Mistakes of a user, through MatterGen's own entry point: refused while the weights are still on the disk.

The models are those of the repository with a checkpoint that nobody can read: whatever is said is said without it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mattergen_e.errors import UserError

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
ENERGIES = np.linspace(-15, 5, 513)[:-1] + 10 / 512  # the centres of 512 bins

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small models, with a checkpoint that holds nothing."""
    folder = tmp_path_factory.mktemp("models")
    for config in CHECKPOINTS.glob("*/config.yaml"):
        (folder / config.parent.name / "checkpoints").mkdir(parents=True)
        shutil.copy(config, folder / config.parent.name)
        (folder / config.parent.name / "checkpoints" / "last.ckpt").write_bytes(b"no weights")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra that fit, or reach too little, or lie elsewhere."""
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "site.npz", energies=ENERGIES, dos=np.exp(-((ENERGIES + 3) ** 2)))
    for name, low, high in (("short", -5, 5), ("late", 6, 9), ("far", 12, 15)):
        np.savez(folder / f"{name}.npz", energies=np.linspace(low, high, 50), dos=np.ones(50))
    return folder


@pytest.fixture
def ask(models: Path, files: Path, tmp_path: Path) -> Ask:
    """Gives the sentence that `mattergen-generate` ends with; nothing is written."""
    from mattergen.scripts.generate import main

    def run(model: str, *overrides: str, sites: list[dict] | None = None, **words: Any) -> str:
        if sites is not None:
            constraints = files / f"{tmp_path.name}.yaml"
            constraints.write_text(yaml.safe_dump({"sites": sites} | words.pop("more", {})))
            overrides += (f"sampler_partial.constraints={constraints}",)
        settings = {"sampling_config_name": "joint", "batch_size": 2} | words
        out = tmp_path / "out"
        with pytest.raises(UserError) as error:
            main(str(out), model_path=str(models / model), sampling_config_overrides=list(overrides), **settings)
        assert not list(out.iterdir()) and "\n" not in str(error.value)
        return str(error.value)

    return run


def test_without_a_mistake_it_is_the_checkpoint_that_is_refused(ask: Ask, files: Path) -> None:
    """So the sentences below come before anything is read of it."""
    assert "last.ckpt is not a safe checkpoint" in ask("base_small")
    site = {"site": 0, "site_dos": {"file": "site.npz"}}
    assert "last.ckpt is" in ask("site_dos_small", "sampler_partial.omega=1", sites=[site])
    wanted = {"dos": {"file": str(files / "short.npz"), "window": [0, 5]}}
    assert "last.ckpt is" in ask("cdosgen_small", "sampler_partial.omega=1", properties_to_condition_on=wanted)


@pytest.mark.parametrize(
    ("model", "site", "sentence"),
    [
        ("base_small", {"bader_charge": 1.0}, "names 'bader_charge', but of sites this model can take the elements of"),
        ("bader_joint_small", {"magmom": 1.0}, "names 'magmom', but of sites this model can take bader_charge."),
        ("bader_joint_small", {"site_dos": {"file": "site.npz"}}, "names 'site_dos', but of sites this model can take"),
        ("bader_joint_small", {"bader_charge": {"file": "site.npz"}}, "'bader_charge' is a spectrum: give one number"),
        ("bader_joint_small", {"bader_charge": [1.0, 2.0]}, "'bader_charge' has 2 numbers: give one number in e."),
        ("site_dos_small", {"site_dos": [1.0, 2.0]}, "'site_dos' has 2 numbers: give a spectrum as {file: FILE}, or 5"),
        ("site_dos_small", {"site_dos": {"file": "short.npz"}}, "is given from -5 to 5 eV, but all of 512 points from"),
        ("site_dos_small", {"bader_charge": 1.0}, "names 'bader_charge', but of sites this model can take site_dos."),
        (
            "base_small",
            {"site": 40, "element": "O"},
            "the sites need crystals of at least 41 sites, which the distribu",
        ),
    ],
)
def test_constraints(ask: Ask, model: str, site: dict[str, Any], sentence: str) -> None:
    assert sentence in ask(model, sites=[{"site": 0} | site])


@pytest.mark.parametrize(
    ("model", "overrides", "words", "sentence"),
    [
        (
            "site_dos_small",
            ["omega=1"],
            {"diffusion_guidance_factor": 2.0},
            "omega 1 and a guidance factor of 2 are bo",
        ),
        ("base_small", ["omega=1"], {}, "omega is 1, but there is nothing that this model could be guided by"),
        ("dos_joint_small", ["omega=0.5"], {}, "omega is 0.5, but there is nothing that this model could be guided"),
        ("site_dos_small", ["omega=much"], {}, "sampler_partial.omega is 'much': give a number."),
        (
            "base_small",
            [],
            {"diffusion_guidance_factor": "much"},
            "--diffusion_guidance_factor is 'much': give a number",
        ),
        ("base_small", ["N=100"], {}, "sampler_partial.N is 100, but this model's atom types were trained with 200"),
        ("base_small", ["volume_per_site=[5,1]"], {}, "volume_per_site is [5, 1]: give the smaller volume first."),
        (
            "base_small",
            ["output.existing=keep"],
            {},
            "output.existing is 'keep': use 'refuse', 'resume' or 'overwrite'",
        ),
        (
            "bader_joint_small",
            ["N=200"],
            {"sampling_config_name": "default"},
            "generates bader_charge together with the",
        ),
        (
            "base_small",
            [],
            {"sampling_config_name": "default"},
            "trained with 200 steps, but the sampling settings take",
        ),
    ],
)
def test_settings(ask: Ask, model: str, overrides: list[str], words: dict[str, Any], sentence: str) -> None:
    assert sentence in ask(model, *(f"sampler_partial.{word}" for word in overrides), **words)


def test_spectra_where_the_model_has_learned_none(ask: Ask, files: Path) -> None:
    wanted = {"dos": str(files / "late.npz")}
    told = ask("cdosgen_small", properties_to_condition_on=wanted)
    assert "'dos' of curve '0' is given nowhere between -10 and 5 eV, where this model has learned spectra" in told


def test_templates(ask: Ask, files: Path, solids: dict[str, Any]) -> None:
    solids["MgO"].copy(site_properties={}).to(filename=str(files / "MgO.cif"), fmt="cif")
    template = {"template": {"structure": "MgO.cif", "time": 0.2}}
    far = [{"site": 4, "element": "O"}]
    assert "site 4 is constrained, but the template gives crystals of 2 sites" in ask(
        "base_small", sites=far, more=template
    )
    more = template | {"num_atoms": "ALEX_MP_20"}
    assert "num_atoms contradicts the template, which has 2 sites" in ask("base_small", sites=[], more=more)
    told = ask("base_small", "condition_loader_partial.num_atoms=4", sites=[], more=template)
    assert "both tell the number of sites" in told


def test_the_grid_of_a_joint_model_is_in_its_checkpoint(
    ask: Ask, models: Path, tiny_autoencoder: Callable[..., Any]
) -> None:
    """A checkpoint of an autoencoder and no weight of the model: they are not missed."""
    import torch

    from mattergen_e.descriptors.autoencoder_slot import to_bytes

    path = models / "dos_joint_small" / "checkpoints" / "last.ckpt"
    content = {"diffusion_module.joint_fields.companions.atomic_dos.autoencoder": to_bytes(tiny_autoencoder())}
    torch.save({"state_dict": content}, path)
    asked = [
        ({"file": "short.npz"}, "is given from -5 to 5 eV, but all of 64 points from -15 to 5 eV is needed"),
        ([1.0, 2.0], "'atomic_dos' has 2 numbers: give a spectrum as {file: FILE}, or 64 points from -15 to 5 eV"),
        ({"file": "late.npz"}, "is given from 6 to 9 eV"),
    ]
    for value, sentence in asked:
        assert sentence in ask("dos_joint_small", sites=[{"site": 0, "atomic_dos": value}])
    path.write_bytes(b"no weights")
    assert "last.ckpt is" in ask("dos_joint_small", sites=[{"site": 0, "atomic_dos": {"file": "short.npz"}}])


def test_classifiers(ask: Ask, files: Path, tmp_path: Path) -> None:
    """Of a predictor, too, the description is enough."""
    from mattergen_e.networks.predictor.folder import DESCRIPTION

    known = CHECKPOINTS / "dos_predictor"

    def told(predictor: Path, target: str = "short.npz", model: str = "base_small") -> str:
        settings = f"{{predictor: {predictor}, target: {files / target}, strength: 1.0}}"
        return ask(model, f"sampler_partial.classifier={settings}")

    assert "knows clean crystals only: give a predictor that was trained with --noisy" in told(known)
    assert f"base_small/{DESCRIPTION} does not exist: give the folder of a predictor" in told(
        CHECKPOINTS / "base_small"
    )

    noisy = tmp_path / "noisy"
    noisy.mkdir()
    content = yaml.safe_load((known / DESCRIPTION).read_text())
    content["network"]["noisy"] = True

    def write() -> None:
        (noisy / DESCRIPTION).write_text(yaml.safe_dump(content))

    write()
    assert "far.npz, curve '0' is given from 12 to 15 eV, which leaves nothing between -10 and 10 eV" in told(
        noisy, "far.npz"
    )
    assert "noisy/predictor.pt does not exist: the folder holds only a part of a predictor" in told(noisy)
    (noisy / "predictor.pt").write_bytes(b"no weights")
    assert "last.ckpt is" in told(noisy)  # a predictor of before, which tells no noise
    content["noise"] = _noise()
    write()
    assert "last.ckpt is" in told(noisy)
    for spectrum, sentence in (("site", "last.ckpt is"), ("short", "'site_dos' is given from -5 to 5 eV, but all of")):
        site = {"site": 0, "site_dos": {"file": f"{spectrum}.npz"}}  # asked of the predictor: base_small takes none
        assert sentence in ask("base_small", f"sampler_partial.classifier.predictor={noisy}", sites=[site])
    content["noise"]["cell"]["limit_density"] = 0.05
    write()
    for model in ("base_small", "bader_joint_small"):
        assert "(cell: limit_density 0.05, here 0.0577" in told(noisy, model=model)


def _noise() -> dict[str, Any]:
    """That of the small models, as in their configuration."""
    return {
        "atomic_numbers": {"kind": "MaskDiffusion", "dim": 101, "offset": 1, "steps": 200, "kept": [0.75, 0.5, 0.25]},
        "cell": {
            "kind": "LatticeVPSDE", "beta_0": 0.1, "beta_1": 20, "limit_density": 0.05771451654022283,
            "limit_info_key": "num_atoms", "limit_var_scaling_constant": 0.25,
        },
        "pos": {
            "kind": "NumAtomsVarianceAdjustedWrappedVESDE", "limit_info_key": "num_atoms", "sigma_max": 5.0,
            "sigma_min": 0.01, "wrapping_boundary": 1.0,
        },
    }  # fmt: skip


def test_a_folder_without_checkpoint(ask: Ask, models: Path) -> None:
    (models / "none").mkdir()
    shutil.copy(CHECKPOINTS / "base_small" / "config.yaml", models / "none")
    assert "none is of no use (No checkpoints found" in ask("none")


def test_command(models: Path, tmp_path: Path, warm: Any) -> None:
    (tmp_path / "c.yaml").write_text("sites: [{site: 0, magmom: 1.0}]")
    settings = f"--sampling_config_overrides=['sampler_partial.constraints={tmp_path / 'c.yaml'}']"
    words = [
        "mattergen-generate",
        f"{tmp_path}/out",
        f"--model_path={models}/base_small",
        "--sampling_config_name=joint",
        settings,
    ]
    done = warm.run(words)
    assert done.returncode == 2, done.stderr[-3000:]
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last
        == f"mattergen-e: {tmp_path}/c.yaml names 'magmom', but of sites this model can take the elements of sites."
    )
    assert "Traceback" not in done.stderr and not list((tmp_path / "out").iterdir())
