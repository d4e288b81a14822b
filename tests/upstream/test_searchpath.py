"""The Hydra plugin: what MatterGen's commands see of it, and what other Hydra applications do not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mattergen_e import upstream
from mattergen_e.generation import hooks

PLUGIN = "hydra_plugins.mattergen_e_searchpath"
COMPLETE = {piece.path.name: piece.present for piece in upstream.package_data()}
needs_repair = pytest.mark.skipif(COMPLETE["conf"], reason="this MatterGen has its own configuration files")

FOREIGN_APPLICATION = """
import sys
if "--without-plugins" in sys.argv:  # as in an environment where nobody offers any
    import types
    sys.argv.remove("--without-plugins")
    sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")
    sys.modules["hydra_plugins"].__path__ = []
import hydra
from omegaconf import OmegaConf

@hydra.main(config_path="conf", config_name="joint", version_base="1.3")
def main(cfg):
    print(OmegaConf.to_yaml(cfg), sorted({"torch", "mattergen", "mattergen_e"} & set(sys.modules)))

main()
"""

CHECKOUT = """
import sys, json
import mattergen
import mattergen_e.upstream as upstream
upstream.prepare = lambda: None  # not about MatterGen's code: its imports take seconds
from pathlib import Path
from hydra import initialize_config_dir, compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

root = Path(mattergen.__file__).parent
found = {"root": str(root), "present": [p.present for p in upstream.package_data()]}
for kind, folder in (("recipes", root / "conf"), ("sampling", root.parent / "sampling_conf")):
    with initialize_config_dir(str(folder), version_base="1.3"):
        path = GlobalHydra.instance().config_loader().get_search_path().get_path()
        found[kind] = {
            "path": [(e.provider, e.path) for e in path if e.provider in ("main", "mattergen-e")],
            "default": OmegaConf.to_container(compose("default")),
            "joint": sorted(compose("joint", return_hydra_config=False)),
        }
print(json.dumps(found))
"""


def run_python(code: str, *words: str, **environment: str) -> str:
    """Standard output of a script in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


# -- other applications


def test_plugin_is_declared_for_coming_versions_of_hydra() -> None:
    points = {point.name: point for point in entry_points(group="hydra.plugins")}
    assert points["mattergen_e"].load().__name__ == PLUGIN


def test_plugin_imports_nothing_heavy() -> None:
    code = f"import sys, {PLUGIN}; print(sorted({{'torch', 'mattergen', 'mattergen_e', 'numpy'}} & set(sys.modules)))"
    assert run_python(code) == "[]\n"


def test_plugin_takes_no_time_in_other_applications() -> None:
    code = f"""
import importlib.util, time
import hydra.core.plugins
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
spec = importlib.util.find_spec({PLUGIN!r})

def once():
    start = time.perf_counter()
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.MatterGenESearchPath().manipulate_search_path(ConfigSearchPathImpl())
    return time.perf_counter() - start

print(min(once() for _ in range(30)))
"""
    assert float(run_python(code)) < 0.005


@pytest.fixture
def application(tmp_path: Path) -> Callable[..., str]:
    """A Hydra application that has nothing to do with MatterGen, with a recipe of the same name as one of ours."""
    (tmp_path / "conf" / "trainer").mkdir(parents=True)
    (tmp_path / "conf" / "joint.yaml").write_text("defaults:\n  - trainer: auto\n  - _self_\nanswer: 42\n")
    (tmp_path / "conf" / "trainer" / "auto.yaml").write_text("mine: true\n")
    (tmp_path / "app.py").write_text(FOREIGN_APPLICATION)

    def run(*words: str, check: bool = True) -> str:
        result = subprocess.run(
            [sys.executable, "app.py", "hydra.run.dir=.", "hydra.output_subdir=null", *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert (result.returncode == 0) is check, result.stderr
        return result.stdout + result.stderr

    return run


def test_other_applications_do_not_notice(application: Callable[..., str]) -> None:
    assert application() == application("--without-plugins")
    assert application() == "trainer:\n  mine: true\nanswer: 42\n []\n"
    assert application("--info", "searchpath") == application("--info", "searchpath", "--without-plugins")
    assert "In 'joint': Could not find 'trainer/default'" in application("trainer=default", check=False)


# -- applications that use MatterGen


@pytest.fixture
def search_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], list[tuple[str, str]]]]:
    """The search path of an application whose folder is given, in a process that has MatterGen; main and ours only."""
    import mattergen  # noqa: F401
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.setattr(upstream, "prepare", lambda: None)
    monkeypatch.setattr(hooks, "prepare", lambda: None)

    def look(folder: Path) -> list[tuple[str, str]]:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(folder), version_base="1.3"):
            path = GlobalHydra.instance().config_loader().get_search_path().get_path()
        return [(e.provider, e.path.removeprefix("file://")) for e in path if e.provider in ("main", "mattergen-e")]

    yield look
    GlobalHydra.instance().clear()


def test_host_wins_ties(search_path: Callable[[Path], Any], tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    host = tmp_path / "conf"  # the name tells recipes from sampling settings, whatever this process has imported
    (host / "trainer").mkdir(parents=True)
    (host / "joint.yaml").write_text("defaults:\n  - trainer: auto\n  - descriptors: bader\n  - _self_\nanswer: 42")
    (host / "trainer" / "auto.yaml").write_text("mine: true\n")
    assert [provider for provider, _ in search_path(host)] == ["main", *["mattergen-e"] * 2]
    with initialize_config_dir(str(host), version_base="1.3"):
        config = compose("joint")
    assert config.answer == 42
    assert config.trainer == {"mine": True}
    assert "bader_charge" in config.lightning_module.descriptors  # the host lacks it, so ours is found


def test_missing_folder_of_another_application_is_not_replaced(
    search_path: Callable[[Path], Any], tmp_path: Path
) -> None:
    for name in ("conf", "sampling_conf"):
        assert search_path(tmp_path / name)[0] == ("main", str(tmp_path / name))


def test_sampling_settings_or_recipes_by_what_the_host_looks_for(
    search_path: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "mattergen.generator", raising=False)
    for name in ("conf", "sampling_conf", "own"):
        (tmp_path / name).mkdir()
    ours = {name: Path(search_path(tmp_path / name)[1][1]).name for name in ("conf", "sampling_conf", "own")}
    assert ours == {"conf": "configs", "sampling_conf": "sampling", "own": "configs"}
    monkeypatch.setitem(sys.modules, "mattergen.generator", sys)  # mattergen-generate --sampling_config_path=own
    assert Path(search_path(tmp_path / "own")[1][1]).name == "sampling"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """MatterGen as a git checkout has it: the package with its own configuration files, and sampling_conf beside it."""
    spec = find_spec("mattergen")
    assert spec is not None and spec.origin is not None
    package = tmp_path / "mattergen"
    ignore = shutil.ignore_patterns("__pycache__", "tests", "evaluation", "conf")
    shutil.copytree(Path(spec.origin).parent, package, ignore=ignore)
    for folder in (package / "conf", tmp_path / "sampling_conf"):
        folder.mkdir()
        (folder / "default.yaml").write_text("whose: the checkout's\n")
    (package / "common/gemnet/gemnet-dT.json").write_text("{}")
    return tmp_path


def test_checkout_of_mattergen_is_not_shadowed(checkout: Path) -> None:
    found = json.loads(run_python(CHECKOUT, PYTHONPATH=str(checkout)))
    assert found["root"] == str(checkout / "mattergen")
    assert found["present"] == [True, True, True]
    for kind, folder in (("recipes", checkout / "mattergen" / "conf"), ("sampling", checkout / "sampling_conf")):
        main, ours, *own = found[kind]["path"]
        assert [path for _, path in own] == (["mattergen-e://adapter_property"] if kind == "recipes" else [])
        assert (main[0], main[1].removeprefix("file://")) == ("main", str(folder))
        assert ours[0] == "mattergen-e"
        assert found[kind]["default"] == {"whose": "the checkout's"}
        assert found[kind]["joint"]


@pytest.mark.slow
def test_command_in_a_checkout_repairs_nothing(checkout: Path) -> None:
    code = """
import sys
sys.argv[0] = "mattergen-train"
from mattergen.scripts.run import mattergen_main
import mattergen.common.gemnet.gemnet as gemnet
before = gemnet.MODELS_PROJECT_ROOT
mattergen_main()
print("unchanged" if gemnet.MODELS_PROJECT_ROOT is before else "repaired")
"""
    shown = run_python(code, "--cfg", "job", PYTHONPATH=str(checkout)).split("\n")
    assert [line for line in shown if line][-2:] == ["whose: the checkout's", "unchanged"]


# -- what the wheel of MatterGen lacks


@needs_repair
def test_missing_folders_of_mattergen_are_replaced(search_path: Callable[[Path], Any]) -> None:
    for piece in upstream.package_data()[:2]:
        assert search_path(piece.path)[0] == ("main", str(piece.carried))


@needs_repair
def test_base_recipe_has_the_published_settings(compose: Callable[..., Any]) -> None:
    config = compose("default", "data_module=alex_mp_20", "trainer.devices=4", "trainer.accumulate_grad_batches=2")
    module = config.lightning_module.diffusion_module
    assert module.model.hidden_dim == module.model.gemnet.latent_dim == module.model.gemnet.emb_size_edge == 512
    assert (module.model.gemnet.num_blocks, module.model.gemnet.cutoff, module.model.gemnet.max_neighbors) == (4, 7, 50)
    assert module.model.gemnet.atom_embedding.with_mask_type is True
    assert module.corruption.discrete_corruptions.atomic_numbers.d3pm.schedule.num_steps == 1000
    assert module.corruption.sdes.cell.vpsde_config.limit_density == pytest.approx(0.05771451654022283)
    assert module.loss_fn.weights == {"cell": 1.0, "pos": 0.1, "atomic_numbers": 1.0}
    assert config.data_module.batch_size == {"train": 64, "val": 64}
    assert config.trainer.max_epochs == 2200
    assert "verbose" not in config.lightning_module.scheduler_partials[0].scheduler


@needs_repair
def test_structure_prediction_recipe_keeps_the_atom_types(compose: Callable[..., Any]) -> None:
    module = compose("csp").lightning_module.diffusion_module
    assert "discrete_corruptions" not in module.corruption
    assert set(module.loss_fn.weights) == {"cell", "pos"}


@needs_repair
def test_overrides_of_mattergens_documentation_work(compose: Callable[..., Any]) -> None:
    group = "lightning_module/diffusion_module/model/property_embeddings"
    names = [path.stem for path in (upstream.DATA / "conf" / group).glob("*.yaml")]
    assert len(names) == 8
    base = "lightning_module.diffusion_module.model.property_embeddings"
    model = compose("default", *[f"+{group}@{base}.{n}={n}" for n in names]).lightning_module.diffusion_module.model
    assert sorted(model.property_embeddings) == sorted(names)
    assert model.gemnet.latent_dim == 512 * 9
    adapter = "adapter.adapter.property_embeddings_adapt"
    words = ["adapter.pretrained_name=mattergen_base", "data_module=mp_20", "~trainer.logger"]
    config = compose("finetune", *words, *[f"+{group}@{adapter}.{n}={n}" for n in names])
    assert config.lightning_module.optimizer_partial.lr == 5e-6
    assert sorted(config.adapter.adapter.property_embeddings_adapt) == sorted(names)


@needs_repair
def test_sampling_settings(compose: Callable[..., Any]) -> None:
    config = compose("default", "sampler_partial.N=50", "+condition_loader_partial.batch_size=4", sampling=True)
    assert config.sampler_partial.eps_t == pytest.approx(0.02)
    assert set(config.sampler_partial.predictor_partials) == {"pos", "cell", "atomic_numbers"}
    assert set(compose("csp", sampling=True).sampler_partial.predictor_partials) == {"pos", "cell"}


# -- our adapters


@pytest.mark.parametrize(
    "names",
    [[], ["dft_band_gap"], ["dft_band_gap", "formation_energy_per_atom", "energy_above_hull"]],
    ids=["none", "one", "three"],
)
def test_adapters_take_the_width_of_the_pretrained_denoiser(compose: Callable[..., Any], names: list[str]) -> None:
    from omegaconf import OmegaConf, open_dict

    config = compose("joint", f"adapter_property=[{','.join(names)}]", "data_module.root_dir=unused")
    adapter = config.adapter.adapter
    assert list(adapter.property_embeddings_adapt) == names
    with open_dict(config):  # as mattergen-finetune does
        adapter.hidden_dim = 24
        config.lightning_module.diffusion_module = {"model": adapter}
    for embeddings in (
        adapter.property_embeddings_adapt,
        config.lightning_module.diffusion_module.model.property_embeddings_adapt,
    ):
        resolved: Any = OmegaConf.to_container(embeddings, resolve=True)
        for name in names:
            assert resolved[name]["name"] == name
            assert resolved[name]["unconditional_embedding_module"]["hidden_dim"] == 24
            assert resolved[name]["conditional_embedding_module"]["d_model"] == 24


def test_adapters_join_mattergens_own_recipe(compose: Callable[..., Any]) -> None:
    config = compose("finetune", "+adapter_property=[dft_band_gap,energy_above_hull]")
    assert list(config.adapter.adapter.property_embeddings_adapt) == ["dft_band_gap", "energy_above_hull"]
