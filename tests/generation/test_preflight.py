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
from mattergen_e.upstream import DATA
from mattergen_e.upstream.arguments import check_flags, checked

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
    told = yaml.safe_load((folder / "base_small" / "config.yaml").read_text())
    told["lightning_module"]["diffusion_module"]["model"]["property_embeddings_adapt"] = _properties()
    (folder / "told" / "checkpoints").mkdir(parents=True)
    (folder / "told" / "config.yaml").write_text(yaml.safe_dump(told))
    (folder / "told" / "checkpoints" / "last.ckpt").write_bytes(b"no weights")
    return folder


def _properties() -> dict[str, Any]:
    """Settings of conditions as MatterGen has them: numbers, a space group, a chemical system."""
    folder = DATA / "conf/lightning_module/diffusion_module/model/property_embeddings"
    names = ("dft_band_gap", "dft_mag_density", "space_group", "chemical_system")
    text = {name: (folder / f"{name}.yaml").read_text() for name in names}
    return {
        n: yaml.safe_load(t.replace("${lightning_module.diffusion_module.model.hidden_dim}", "128"))
        for n, t in text.items()
    }


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
    by_field = "sampler_partial.eta={default:16,bader_charge:inf}"
    assert "last.ckpt is" in ask("bader_joint_small", by_field, sampling_config_name="fast")
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
    ("content", "overrides", "sentence"),
    [
        ({"composition": {"Na": 1, "Cl": 1}}, [], "last.ckpt is not a safe checkpoint"),
        ({"cell": [4, 4, 4, 90, 90, 90], "num_atoms": 4}, [], "last.ckpt is not a safe checkpoint"),
        ({"elements": ["B", "He"]}, [], "elements: He is an element that MatterGen does not generate."),
        ({"composition": {"Na": 1, "Cl": 1}, "num_atoms": 3}, [], "the composition Na1 Cl1 has 2 sites, but num_atoms"),
        ({"composition": "NaCl"}, ["num_atoms=5"], "Na1 Cl1 has 2 sites, but condition_loader_partial.num_atoms gives"),
        (
            {"all_elements": True},
            [],
            "all_elements asks for every element of a system: give elements, or a chem",
        ),
        ({"cell": [12, 12, 12, 90, 90, 90], "num_atoms": 2}, [], "the given cell has 864 cubic angstrom per site"),
        ({"cell": [4, 4, 4, 90, 90, 90], "num_atoms": 4}, ["volume_per_site=[20,null]"], "the given cell has 16 cubic"),
    ],
)
def test_elements_and_cells(ask: Ask, content: dict[str, Any], overrides: list[str], sentence: str) -> None:
    parts = {"num_atoms": "condition_loader_partial", "volume_per_site": "sampler_partial"}
    words = [f"{parts[word.split('=')[0]]}.{word}" for word in overrides]
    assert sentence in ask("base_small", *words, sites=[], more=content)


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
        ("base_small", ["steps=0"], {"sampling_config_name": "fast"}, "sampler_partial.steps is 0: give the number of"),
        ("base_small", ["eta=-1"], {"sampling_config_name": "fast"}, "sampler_partial.eta is -1: give a number from 0"),
        ("base_small", ["eta={bader_charge:1}"], {"sampling_config_name": "fast"}, "eta names 'bader_charge', which"),
        (
            "base_small",
            ["times=[1,0.2,0.5,0]"],
            {"sampling_config_name": "fast"},
            "give times that descend from 1 to 0.",
        ),
        ("base_small", ["steps=5", "N=200"], {}, "sampler_partial.N is of MatterGen's sampler: leave it out, or"),
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


# -- values of conditions


@pytest.mark.parametrize(
    ("settings", "wanted", "sentence"),
    [
        ("joint", {"space_group": 300}, "'space_group' is 300: give a number from 1 to 230, or a Hermann-Mauguin sym"),
        ("default", {"chemical_system": "He-O"}, "MatterGen generates no He: leave it out, which asks for 'O'."),
        ("joint", {"chemical_system": "He-O"}, "MatterGen generates no He: leave it out, which asks for 'O'."),
        ("default", {"dft_band_gap": "abc"}, "'dft_band_gap' is 'abc': give a number in eV, or a list of numbers"),
        ("joint", {"dft_band_gap": [1, "abc"]}, "'dft_band_gap' is 'abc': give a number in eV"),
        (
            "default",
            {"hhi_score": 1},
            "names 'hhi_score', but this model was trained to be conditioned on chemical_sys",
        ),
        ("default", {"dft_band_gap": [1, 3]}, "several values of 'dft_band_gap' need --sampling_config_name=joint"),
    ],
)
def test_values_of_the_wrong_kind(ask: Ask, settings: str, wanted: Any, sentence: str) -> None:
    """Under the settings of this package and under MatterGen's own; all kinds are in test_properties.py."""
    words: dict[str, Any] = {"properties_to_condition_on": wanted, "sampling_config_name": settings}
    steps = [] if settings == "joint" else ["sampler_partial.N=200"]
    assert sentence in ask("told", *steps, **words)


def test_values_that_are_taken(ask: Ask) -> None:
    wanted = {"space_group": "Fm-3m", "chemical_system": ["Li", "O"], "dft_band_gap": [1, 3]}
    assert "last.ckpt is not a safe" in ask("told", properties_to_condition_on=wanted)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            {"ranges": {"dft_band_gap": [0.0, 9.5], "num_atoms": [2, 40]}},
            "the training data, which reach from 0 to 9.5 eV",
        ),
        ({}, "far from the training data, which lie mostly between -3 and 6 eV"),
    ],
    ids=["recorded", "scaler alone"],
)
def test_what_the_model_has_not_seen_is_said_before_its_weights_are_read(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any], told: str
) -> None:
    import torch
    from mattergen.scripts.generate import main

    shutil.copytree(models / "told", tmp_path / "model")
    scaler = "diffusion_module.model.property_embeddings_adapt.dft_band_gap.scaler"
    state = {f"{scaler}.means": torch.tensor([1.5]), f"{scaler}.stds": torch.tensor([1.5])}
    content = {"state_dict": state, "mattergen_e": record}
    torch.save(content, tmp_path / "model" / "checkpoints" / "last.ckpt")
    with pytest.raises(Exception, match=r"."):  # there are no weights in it
        main(
            str(tmp_path / "out"),
            model_path=str(tmp_path / "model"),
            batch_size=2,
            sampling_config_name="joint",
            sampling_config_overrides=["condition_loader_partial.num_atoms=[4,60]"],
            properties_to_condition_on={"dft_band_gap": [-5, 2.0, 30]},
        )
    shown = capsys.readouterr().err
    assert "'dft_band_gap' is asked to be -5, 30 eV, " in shown and told in shown
    assert (
        f"crystals of 60 sites are asked for, but the training crystals had {'2 to 40' if record else '1 to 20'}"
        in shown
    )


# -- words of the command


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"batch_size": "abc"}, "--batch_size is 'abc': give a whole number, at least 1."),
        ({"num_batches": 0}, "--num_batches is 0: give a whole number, at least 1."),
        ({"batch_size": 2.5}, "--batch_size is 2.5: give a whole number"),
        ({"sampling_config_overrides": "[sampler_partial.N=3]"}, "write it with both quotes"),
        ({"config_overrides": {"a": 1}}, "--config_overrides is {'a': 1}: write it with both quotes"),
        ({"sampling_config_overrides": "sampler_partial.N=3"}, "sampler_partial.N is 3, but this model's atom types"),
        ({"sampling_config_overrides": ["condition_loader_partial.num_atoms=2.5"]}, "num_atoms is 2.5, but num_atoms"),
        ({"sampling_config_overrides": ["condition_loader_partial.num_atoms=MP"]}, "num_atoms is 'MP', but num_atoms"),
        (
            {"checkpoint_epoch": "best"},
            "has no checkpoint 'best': it has last, and --checkpoint_epoch is 'last', 'best'",
        ),
        ({"checkpoint_epoch": 7}, "Epoch 7 not found in checkpoints"),
        ({"checkpoint_epoch": "newest"}, "--checkpoint_epoch is 'newest': give 'last', 'best' or the number"),
        ({"diffusion_guidance_factor": "much"}, "--diffusion_guidance_factor is 'much': give a number."),
        ({"record_trajectories": "yes"}, "--record_trajectories is 'yes': give True or False."),
        ({"target_compositions": "NaCl"}, "--target_compositions is 'NaCl': give a list of dictionaries of elements"),
        ({"pretrained_name": "mattergen_base"}, "two models are named: give either"),
        ({"model_path": None}, "no model is named: give either --model_path"),
        (
            {"model_path": None, "pretrained_name": "mine"},
            "--pretrained_name=mine is no published model: there are matt",
        ),
    ],
)
def test_words_of_the_wrong_kind(models: Path, tmp_path: Path, words: dict[str, Any], sentence: str) -> None:
    """Through the function that `fire` calls in the command; nothing is written."""
    from mattergen.scripts.generate import main

    given = {"model_path": str(models / "base_small"), "sampling_config_name": "joint", "batch_size": 2} | words
    with pytest.raises(UserError) as error:
        checked(main)(str(tmp_path / "out"), **given)
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--seed=1"],
            "--seed=1 is no option of this command: the seed is set by MATTERGEN_E_SEED=1 before the command;",
        ),
        (["--batchsize", "4"], "--batchsize is no option of this command: .*did you mean batch_size"),
        (["-x=3"], "-x=3 is no option of this command"),
        (["--batch-size=4", "--norecord_trajectories", "-b=3", "out", "--", "--verbose"], None),
    ],
)
def test_flags_that_the_command_does_not_have(words: list[str], sentence: str | None) -> None:
    from mattergen.scripts.generate import main

    if sentence is None:
        check_flags(words, main)
    else:
        with pytest.raises(UserError, match=sentence):
            check_flags(words, main)


def test_an_unknown_flag_ends_the_command_before_the_run(models: Path, tmp_path: Path, warm: Any) -> None:
    done = warm.run(["mattergen-generate", f"{tmp_path}/out", f"--model_path={models}/base_small", "--seed=1"])
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr.strip().splitlines()[-1].startswith("mattergen-e: --seed=1 is no option of this command")
