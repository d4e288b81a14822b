"""Mistakes in the words of a training, held against the recipes of the repository and its small models."""

from __future__ import annotations

import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mattergen_e.errors import UserError
from mattergen_e.training.preflight import Preflight, check_recipe
from mattergen_e.upstream.sentences import configuration_sentence

REPOSITORY = Path(__file__).resolve().parents[2]
Check = Callable[..., Any]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cache/train` and `cache/val`, models `base`, `adapted`, `conditioned` and `unfinished`."""
    folder = tmp_path_factory.mktemp("places")
    for split in ("train", "val"):
        (folder / "cache" / split).mkdir(parents=True)
    (folder / "empty").mkdir()
    base = yaml.safe_load((REPOSITORY / "checkpoints/bader_joint_small/config.yaml").read_text())
    embeddings = {"dft_band_gap": {"_target_": "mattergen.property_embeddings.PropertyEmbedding"}}
    for name in ("base", "adapted", "conditioned", "unfinished"):
        (folder / name / "checkpoints").mkdir(parents=True)
        config = yaml.safe_load(yaml.safe_dump(base))
        model = config["lightning_module"]["diffusion_module"]["model"]
        model["property_embeddings_adapt"] = embeddings if name == "adapted" else {}
        model["property_embeddings"] = embeddings if name == "conditioned" else {}
        if name != "adapted":
            config["lightning_module"].pop("descriptors", None)
        (folder / name / "config.yaml").write_text(yaml.safe_dump(config))
        if name != "unfinished":
            (folder / name / "checkpoints" / "last.ckpt").touch()
    return folder


@pytest.fixture
def check(compose: Callable[..., Any], places: Path) -> Check:
    """Composes a recipe with words, as the commands do, and checks it; gives the recipe."""

    def run(*words: str, recipe: str = "joint", data: str | None = "cache", model: str | None = "base") -> Any:
        given = [] if data is None else [f"data_module.root_dir={data}"]
        given += [] if model is None or recipe == "base_small" else [f"adapter.model_path={model}"]
        config = compose(recipe, *given, *words)
        check_recipe(config, places)
        return config

    return run


def test_every_recipe_is_checked() -> None:
    """Those that set a run folder set the check, too; the others are made of them."""
    named = f"{Preflight.__module__}.{Preflight.__qualname__}"
    for path in (REPOSITORY / "configs").glob("*.yaml"):
        recipe = yaml.safe_load(path.read_text())
        if "hydra" in recipe:
            assert recipe["hydra"]["callbacks"]["mattergen_e"]["_target_"] == named, path


@pytest.mark.parametrize("recipe", ["joint", "cdosgen", "site_dos", "base_small", "joint_scratch"])
def test_sound_recipes_pass_and_places_become_absolute(
    check: Check, places: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = check(recipe=recipe, model=None if recipe == "joint_scratch" else "base")
    assert config.data_module.root_dir == str(places / "cache")
    assert config.data_module.train_dataset.cache_path == str(places / "cache" / "train")
    assert not capsys.readouterr().err


def test_places_of_descriptors_become_absolute(check: Check, places: Path) -> None:
    config = check("descriptors=[atomic_dos]", "lightning_module.descriptors.atomic_dos.autoencoder=coder")
    assert config.lightning_module.descriptors.atomic_dos.autoencoder == str(places / "coder")


@pytest.mark.parametrize(
    ("words", "given", "sentence"),
    [
        ([], {"data": None}, "data_module.root_dir is not given: add data_module.root_dir=FOLDER, a cache that"),
        ([], {"data": "nowhere"}, "data_module.root_dir=PLACES/nowhere does not exist: give the folder that"),
        ([], {"data": "empty"}, "data_module.root_dir=PLACES/empty holds no train/: give the folder that"),
        ([], {"model": "nowhere"}, "adapter.model_path=PLACES/nowhere does not exist"),
        ([], {"model": "cache"}, "adapter.model_path=PLACES/cache holds no config.yaml"),
        ([], {"model": "unfinished"}, "adapter.model_path=PLACES/unfinished holds no checkpoint last.ckpt"),
        (["adapter.load_epoch=best"], {}, "adapter.load_epoch=best, but PLACES/base has last: leave load_epoch out"),
        (["adapter.pretrained_name=mine"], {"model": None}, "mine is no published model: there are mattergen_base,"),
        (["adapter_property=[dft_band_gap]"], {"model": "conditioned"}, "conditioned knows 'dft_band_gap' from its"),
        (["lightning_module.optimizer_partial.lr=abc"], {}, "lightning_module.optimizer_partial.lr is 'abc': give a"),
        (["lightning_module.optimizer_partial.lr=-1"], {}, "lightning_module.optimizer_partial.lr is -1: give a numb"),
        (["trainer.max_epochs=abc"], {}, "trainer.max_epochs is 'abc': give a whole number"),
        (["trainer.max_epochs=1.5"], {}, "trainer.max_epochs is 1.5: give a whole number"),
        (["data_module.batch_size.train=0"], {}, "data_module.batch_size.train is 0: give a whole number, at least 1"),
    ],
)
def test_mistakes(check: Check, places: Path, words: list[str], given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check(*words, **given)
    assert sentence.replace("PLACES", str(places)) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trainer.max_epoch=3"], "there is no 'max_epoch' in trainer; there are accelerator, .*mean max_epochs?"),
        (["trainr.max_epochs=3"], "there is no 'trainr'; there are .*did you mean trainer?"),
        (["descriptor=bader"], "there is no 'descriptor'; .*did you mean descriptors?"),
        (["logger=cvs"], "logger=cvs: there is no such file; there are csv, tensorboard, wandb"),
        (
            ["descriptors=[bader,charge]"],
            "descriptors=charge: there is no such file; there are atomic_dos, bader, dumm",
        ),
        (["max_epochs"], "'max_epochs' cannot be read .*: write KEY=VALUE"),
        (["+trainer.max_epochs=3"], "trainer.max_epochs is in the recipe already: write it without '\\+'"),
        (["~trainer.speed"], "there is no 'speed' in trainer"),
    ],
)
def test_words_that_fit_no_recipe(compose: Callable[..., Any], words: list[str], sentence: str) -> None:
    """Hydra's errors, with what there is: found where the error was raised."""
    with pytest.raises(Exception, match=".") as caught:
        compose("joint", *words)
    told = configuration_sentence(caught.value, caught.tb)
    assert told is not None and re.search(sentence, told) and "\n" not in told


def test_a_recipe_that_is_not_there(compose: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match="bader_jont") as caught:
        compose("bader_jont")
    told = configuration_sentence(caught.value, caught.tb)
    assert told is not None and "--config-name=bader_jont: there is no such file" in told
    assert told.endswith("did you mean bader_joint?")


def test_other_errors_are_left_alone() -> None:
    try:
        raise KeyError("a mistake in the program")
    except KeyError as error:
        assert configuration_sentence(error, error.__traceback__) is None
        assert traceback.format_exc()


def test_what_of_an_adapted_model_is_dropped_is_said(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    check("adapter_property=[energy_above_hull]", "descriptors=[dummy]", model="adapted")
    told = capsys.readouterr().err
    assert "adapted was adapted to dft_band_gap before, which this training drops: " in told
    assert "adapter_property=[dft_band_gap,energy_above_hull] keeps it" in told
    assert "adapted generates bader_charge, which this training drops" in told
    check("adapter_property=[energy_above_hull,dft_band_gap]", "descriptors=[bader,dummy]", model="adapted")
    assert not capsys.readouterr().err


def test_a_run_folder_with_a_training_is_refused_before_hydra_writes_to_it(
    check: Check, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MATTERGEN_E_EXISTING", raising=False)
    shutil.copytree(places / "base", places / "run", dirs_exist_ok=True)
    from mattergen_e.training.trainer import existing_training

    with pytest.raises(UserError, match="already holds a training"):
        existing_training(places / "run")
    with pytest.raises(UserError, match="run already holds a training: give another OUTPUT_DIR"):
        config_with_folder(check, places / "run", places)
    monkeypatch.setenv("MATTERGEN_E_EXISTING", "resume")
    config_with_folder(check, places / "run", places)


def config_with_folder(check: Check, folder: Path, here: Path) -> None:
    """Checks a recipe whose run folder Hydra has."""
    from omegaconf import OmegaConf, open_dict

    config = check()
    with open_dict(config):
        config.hydra = OmegaConf.create({"run": {"dir": str(folder)}})
    check_recipe(config, here)


def test_base_properties_of_the_small_denoiser_widen_its_latent(compose: Callable[..., Any]) -> None:
    """MatterGen's GemNet takes the encodings of the time and of each property end to end."""
    group = "lightning_module/diffusion_module/model/property_embeddings"
    place = "lightning_module.diffusion_module.model.property_embeddings"
    for recipe in ("joint_scratch", "base_small"):
        for names in ([], ["dft_band_gap"], ["dft_band_gap", "space_group"]):
            words = [f"+{group}@{place}.{name}={name}" for name in names]
            model = compose(recipe, *words).lightning_module.diffusion_module.model
            assert model.gemnet.latent_dim == 128 * (1 + len(names))


def test_properties_are_hidden_one_by_one_in_training() -> None:
    """As the documentation says, for the recipes here and for MatterGen's own."""
    import torch
    from mattergen.common.data.chemgraph import ChemGraph
    from mattergen.property_embeddings import SetEmbeddingType

    n, p = 4000, 0.2
    for together in (True, False):  # of the recipes here, and of MatterGen's
        torch.manual_seed(0)
        batch = ChemGraph(dft_band_gap=torch.ones(n), hhi_score=torch.ones(n), num_atoms=torch.ones(n))
        hidden = SetEmbeddingType(p, dropout_fields_iid=together)(batch)["_USE_UNCONDITIONAL_EMBEDDING"]
        gap_alone = float((hidden["dft_band_gap"] & ~hidden["hhi_score"]).float().mean())
        assert abs(gap_alone - p * (1 - p)) < 5 * (p * (1 - p) / n) ** 0.5
