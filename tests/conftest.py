"""Real crystals and tiny models that the tests share; nothing heavy is imported before a fixture is asked for."""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from warm import BIN, Server

pytest_plugins = ["scheduling"]

REPOSITORY = Path(__file__).resolve().parents[1]

#: A denoiser of about ten thousand parameters; every number is far below those of the recipes.
TINY = (
    "lightning_module.diffusion_module.model.hidden_dim=16",
    *(
        f"lightning_module.diffusion_module.model.gemnet.{key}={value}"
        for key, value in {
            "emb_size_edge": 16,
            "emb_size_trip": 8,
            "emb_size_rbf": 8,
            "emb_size_cbf": 8,
            "emb_size_bil_trip": 8,
            "num_spherical": 3,
            "num_radial": 6,
            "num_blocks": 1,
            "cutoff": 5.0,
            "max_neighbors": 12,
            "max_cell_images_per_dim": 2,
        }.items()
    ),
    "lightning_module.diffusion_module.corruption.discrete_corruptions.atomic_numbers.d3pm.schedule.num_steps=10",
)

#: Bader charges of the size that density functionals give for these solids, before they are shifted to neutrality.
CHARGES: dict[str, dict[str, float]] = {
    "NaCl": {"Na": 0.86, "Cl": -0.86},
    "CsCl": {"Cs": 0.83, "Cl": -0.83},
    "MgO": {"Mg": 1.71, "O": -1.71},
    "ZnS": {"Zn": 0.87, "S": -0.87},
    "TiO2": {"Ti": 2.05, "O": -1.02},
    "BaTiO3": {"Ba": 1.57, "Ti": 2.14, "O": -1.24},
    "Li2O": {"Li": 0.88, "O": -1.75},
    "Mg2Si": {"Mg": 1.36, "Si": -2.72},
}


def _conventional_cells() -> dict[str, Any]:
    from pymatgen.core import Lattice, Structure

    make = Structure.from_spacegroup
    cubic, tetragonal, hexagonal = Lattice.cubic, Lattice.tetragonal, Lattice.hexagonal
    return {
        "NaCl": make("Fm-3m", cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "CsCl": make("Pm-3m", cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "MgO": make("Fm-3m", cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "ZnS": make("P6_3mc", hexagonal(3.82, 6.26), ["Zn", "S"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]]),
        "TiO2": make("P4_2/mnm", tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
        "BaTiO3": make(
            "P4mm",
            tetragonal(3.99, 4.04),
            ["Ba", "Ti", "O", "O"],
            [[0, 0, 0], [0.5, 0.5, 0.515], [0.5, 0.5, 0.975], [0.5, 0, 0.485]],
        ),
        "Li2O": make("Fm-3m", cubic(4.62), ["Li", "O"], [[0.25, 0.25, 0.25], [0, 0, 0]]),
        "Mg2Si": make("Fm-3m", cubic(6.35), ["Mg", "Si"], [[0.25, 0.25, 0.25], [0, 0, 0]]),
    }


@pytest.fixture(scope="session")
def warm() -> Iterator[Server]:
    """A server that runs commands in processes of their own, without importing everything anew."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def run_command(tmp_path_factory: pytest.TempPathFactory, warm: Server) -> Callable[..., CompletedProcess[str]]:
    """Runs a command of this environment in an empty folder, without the network.

    `fresh` starts a new Python for it, as a shell does.
    """
    folder = tmp_path_factory.mktemp("cwd")

    def run(*words: str | Path, check: bool = True, fresh: bool = False, **environment: str) -> CompletedProcess[str]:
        command = [str(BIN / str(words[0])), *map(str, words[1:])]
        settings = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
        if fresh:
            result = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=600)
        else:
            result = warm.run(command, cwd=folder, environment=settings)
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command)}\n{result.stdout[-3000:]}\n{result.stderr[-6000:]}")
        return result

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real data, or a skip."""
    folder = Path(os.environ.get("MATTERGEN_E_DATA", REPOSITORY.parent / "shared" / "data"))
    if not all((folder / name).exists() for name in ("mp_structures.csv.gz", "vasp", "gpaw")):
        pytest.skip(f"no real data in {folder}: set MATTERGEN_E_DATA")
    return folder


@pytest.fixture(scope="session")
def solids() -> dict[str, Any]:
    """Eight solids in the cell that MatterGen trains on, with neutral charges as site property `bader_charge`."""
    from mattergen_e.crystals.alignment import reduce_cell

    found = {}
    for name, conventional in _conventional_cells().items():
        structure = reduce_cell(conventional)
        charges = np.array([CHARGES[name][site.specie.symbol] for site in structure])
        structure.add_site_property("bader_charge", (charges - charges.mean()).tolist())
        found[name] = structure
    return found


@pytest.fixture(scope="session")
def conventional() -> dict[str, Any]:
    """The same solids in their conventional cells, as a file would have them."""
    return _conventional_cells()


@pytest.fixture(scope="session")
def to_batch() -> Callable[..., Any]:
    """Makes a collated batch of structures, with their site properties of the given names, as the data loader does."""
    import torch
    from mattergen.common.data.collate import collate

    from mattergen_e.crystals.graphs import to_graph

    def make(
        structures: Sequence[Any], fields: Sequence[str] = ("bader_charge",), **properties: Sequence[float]
    ) -> Any:
        graphs = []
        for i, structure in enumerate(structures):
            extra: dict[str, Any] = {}
            for name in fields:
                values = np.array(structure.site_properties[name], dtype=np.float32)
                extra[name] = torch.from_numpy(values.reshape(len(structure), -1))
                extra[f"{name}_batch"] = torch.zeros(len(structure), dtype=torch.long)
            extra |= {name: torch.tensor(values[i], dtype=torch.float) for name, values in properties.items()}
            graphs.append(to_graph(structure).replace(**extra))
        return collate(graphs)

    return make


@pytest.fixture(scope="session")
def compose() -> Callable[..., Any]:
    """Composes a recipe as MatterGen's commands do: from MatterGen's own folder, found through the search path plugin.

    `sampling=True` looks where `mattergen-generate` looks for --sampling_config_name.
    """
    import hydra
    import mattergen  # noqa: F401 (the plugin wakes up in MatterGen's applications only)
    from hydra.core.global_hydra import GlobalHydra

    from mattergen_e.upstream import package_data

    folders = {item.path.name: str(item.path) for item in package_data()}

    def make(name: str, *overrides: str, sampling: bool = False) -> Any:
        GlobalHydra.instance().clear()
        folder = folders["sampling_conf" if sampling else "conf"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with hydra.initialize_config_dir(folder, version_base="1.1"):
                return hydra.compose(name, overrides=list(overrides))

    return make


@pytest.fixture(scope="session")
def _recipe(compose: Callable[..., Any]) -> Any:
    import torch

    from mattergen_e import upstream

    torch.set_num_threads(1)
    recipe = compose("joint_scratch", "data_module.root_dir=unused", *TINY)
    upstream.prepare()
    return recipe


@pytest.fixture(scope="session")
def make_module(_recipe: Any) -> Callable[..., Any]:
    """Makes MatterGen's tiny diffusion module, without descriptors.

    `adapter=True` takes the denoiser that `mattergen-finetune` makes, with the band gap as a condition. The rest are
    changes of the denoiser's `gemnet` section. The same seed gives the same weights.
    """
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf, open_dict

    gap = OmegaConf.load(REPOSITORY / "configs/adapter_property/dft_band_gap.yaml")

    def make(*, adapter: bool = False, seed: int = 0, steps: int = 10, hidden_dim: int = 16, **gemnet: Any) -> Any:
        recipe = deepcopy(_recipe)
        section = recipe.lightning_module.diffusion_module
        with open_dict(recipe):
            section.corruption.discrete_corruptions.atomic_numbers.d3pm.schedule.num_steps = steps
            section.model.hidden_dim = hidden_dim
            section.model.gemnet.update(gemnet)
            if adapter:
                section.model._target_ = "mattergen.adapter.GemNetTAdapter"
                section.model.property_embeddings_adapt = gap
                section.model.gemnet._target_ = "mattergen.common.gemnet.gemnet_ctrl.GemNetTCtrl"
                section.model.gemnet.condition_on_adapt = ["dft_band_gap"]
        torch.manual_seed(seed)
        module = instantiate(section)
        if adapter:
            embedding = module.model.property_embeddings_adapt["dft_band_gap"]
            embedding.fit_scaler(torch.tensor([0.0, 2.0, 4.0]))
        return module.eval()

    return make


@pytest.fixture(scope="session")
def make_joint(make_module: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a tiny joint model: `descriptors` by name, Bader charges by default; keywords go to `make_module`.

    Random weights take the place of the zeros that embeddings and heads start from, unless `fresh`.
    """
    import torch

    from mattergen_e.descriptors import BaderCharge, Descriptor
    from mattergen_e.diffusion.joint import JointDiffusionLightningModule

    def make(
        descriptors: Mapping[str, Descriptor] | None = None,
        *,
        fresh: bool = False,
        shares: Mapping[str, float] | None = None,
        **module: Any,
    ) -> Any:
        model = JointDiffusionLightningModule(
            diffusion_module=make_module(**module),
            descriptors=descriptors or {"bader_charge": BaderCharge()},
            shares=shares,
        )
        if not fresh:
            with torch.random.fork_rng():
                torch.manual_seed(7)
                fields = model.diffusion_module.joint_fields
                for network in (*fields.embeddings.values(), *fields.heads.values()):
                    torch.nn.init.normal_(network[-1].weight, std=0.5)
                    torch.nn.init.normal_(network[-1].bias, std=0.5)
                if module.get("adapter"):
                    for layers in model.diffusion_module.model.gemnet.cond_mixin_layers.values():
                        for layer in layers:
                            torch.nn.init.normal_(layer.weight, std=0.5)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def steady() -> Callable[..., Any]:
    """Makes an untrained model generate cells of ordinary density, and returns it.

    The noise of the cell comes from the exact score of a narrow distribution around MatterGen's mean cube, plus a
    little of the network's own; without, the cells of an untrained network grow beyond all bounds.
    """

    def make(model: Any) -> Any:
        module = model.diffusion_module
        sde = module.corruption.sdes["cell"]

        def hook(denoiser: Any, args: tuple, kwargs: dict, output: Any) -> Any:
            x, t = kwargs.get("x", args[0] if args else None), kwargs.get("t", args[1] if len(args) > 1 else None)
            cell = x["cell"]
            _, std = sde.marginal_prob(cell, t, batch=x)
            noise = (cell - sde.get_limit_mean(cell, x)) / std
            return output.replace(cell=-noise + 0.1 * output["cell"].tanh())

        if not getattr(module, "is_steady", False):
            module.model.register_forward_hook(hook, with_kwargs=True)
            module.is_steady = True
        return model

    return make


@pytest.fixture(scope="session")
def make_sampler(compose: Callable[..., Any], steady: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a sampler from configs/sampling/joint.yaml for a model, which it makes keep its cells in order."""
    from hydra.utils import instantiate

    settings = compose("joint", sampling=True)

    def make(model: Any, **changes: Any) -> Any:
        return instantiate(settings.sampler_partial)(pl_module=steady(model), **changes)

    return make


@pytest.fixture(scope="session")
def dos_processing() -> Any:
    """How made-up spectra are said to be made: a grid of 64 points."""
    from mattergen_e.spectra.grid import EnergyGrid
    from mattergen_e.spectra.processing import AtomicDosSettings

    return AtomicDosSettings(grid=EnergyGrid(minimum=-15, maximum=5, points=64), smearing=0.5)


@pytest.fixture(scope="session")
def tiny_autoencoder(dos_processing: Any) -> Callable[..., Any]:
    """Makes an untrained autoencoder of 64 points and 4 latents; the same seed gives the same weights."""
    import torch

    from mattergen_e.networks.autoencoder.model import Autoencoder
    from mattergen_e.networks.autoencoder.network import Network, NetworkSettings

    settings = NetworkSettings(points=64, latents=4, channels=(4, 4, 4), kernel=3, groups=2, reduced=2, pooled=4)

    def make(seed: int = 0, processing: Any = dos_processing, **changes: Any) -> Autoencoder:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = Network(settings.model_copy(update=changes))
        return Autoencoder(network, processing, {"made": "by hand"})

    return make


@pytest.fixture(scope="session")
def make_dos(tiny_autoencoder: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the descriptor `atomic_dos` of a model that has its (untrained) autoencoder already."""
    from mattergen_e.descriptors import AtomicDos

    def make(seed: int = 0, **fields: Any) -> AtomicDos:
        descriptor = AtomicDos(**{"dim": 4, **fields})
        descriptor.slot.put(tiny_autoencoder(seed), "the test")
        return descriptor

    return make


@pytest.fixture(scope="session")
def write_dos_cache(solids: dict[str, Any], dos_processing: Any) -> Callable[..., Path]:
    """Writes a cache of the solids with the splits train, val and test, with charges, gaps and made-up spectra.

    A spectrum is a peak whose place tells the element. `change` may alter the spectra of a split in place.
    """
    from datetime import UTC, datetime

    from mattergen_e.data.cache import Manifest, write_split

    def make(folder: Path, *, change: Callable[[str, Any], None] | None = None, processing: Any = None) -> Path:
        crystals, splits = list(solids.values()), {}
        numbers = np.concatenate([s.atomic_numbers for s in crystals])
        core = {
            "pos": np.concatenate([s.frac_coords % 1.0 for s in crystals]),
            "cell": np.stack([s.lattice.matrix for s in crystals]),
            "atomic_numbers": numbers.astype(np.int64),
            "num_atoms": np.array([len(s) for s in crystals]),
        }
        charges = np.concatenate([s.site_properties["bader_charge"] for s in crystals]).astype(np.float32)
        grid = dos_processing.grid
        for seed, split in enumerate(("train", "val", "test")):
            centres = -12.0 + numbers / 5 + np.random.default_rng(seed).normal(scale=0.3, size=len(numbers))
            spectra = (2 * np.exp(-0.5 * (grid.energies - centres[:, None]) ** 2)).astype(np.float32)
            if change is not None:
                change(split, spectra)
            ids = np.array([f"{split}-{name}" for name in solids])
            sites = {"atomic_dos": spectra, "bader_charge": charges[:, None]}
            gaps = {"dft_band_gap": np.linspace(0.0, 5.0, len(crystals))}
            splits[split] = write_split(folder / split, {**core, "structure_id": ids}, sites, {}, gaps)
        made = dos_processing.model_dump(mode="json") if processing is None else processing
        manifest = Manifest(
            mattergen_e_version="0", packages={}, created=datetime.now(UTC), settings={}, sources=[], splits=splits,
            site_values={}, processing={"atomic_dos": made}, properties={}, dropped_by_reason={}, dropped=[],
        )  # fmt: skip
        (folder / "manifest.json").write_text(manifest.model_dump_json())
        return folder

    return make


@pytest.fixture
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the random numbers out of torch: every normal number is zero."""
    import torch

    monkeypatch.setattr(torch, "randn_like", lambda x, **_: torch.zeros_like(x))
    monkeypatch.setattr(torch, "randn", lambda *size, **options: torch.zeros(*size, **options))


@pytest.fixture(scope="session")
def tiny_predictor() -> Callable[..., Any]:
    """Makes an untrained predictor of densities of states of a few thousand parameters, which depends on the structure.

    Takes the grids of the spectra of sites and of crystals, their smearing (eV), whether it knows noised crystals, its
    variance at the times, and a record.
    """
    import torch

    from mattergen_e.networks.predictor.data import Processing
    from mattergen_e.networks.predictor.grids import Grids
    from mattergen_e.networks.predictor.guidance import TIMES
    from mattergen_e.networks.predictor.model import Predictor
    from mattergen_e.networks.predictor.network import Network
    from mattergen_e.networks.predictor.settings import EncoderSettings, NetworkSettings
    from mattergen_e.spectra.processing import AtomicDosSettings, TotalDosSettings

    torch.set_num_threads(1)
    encoder = EncoderSettings(
        hidden_dim=16, emb_size_edge=16, emb_size_trip=8, emb_size_rbf=8, emb_size_cbf=8, emb_size_bil_trip=8,
        num_spherical=3, num_radial=6, num_blocks=1, cutoff=5.0, max_neighbors=12,
    )  # fmt: skip

    def make(
        sites: Any,
        total: Any,
        noisy: bool = False,
        smearing: float = 0.5,
        variance: Sequence[float] = (0.1,) * TIMES,
        record: dict[str, Any] | None = None,
    ) -> Any:
        shape = NetworkSettings(
            encoder=encoder, grids=Grids(sites=sites, total=total), width=16, layers=1, element=4, nodes=5, noisy=noisy
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Network(shape)
            for layer in (network.change, network.weights):
                torch.nn.init.normal_(layer.weight, std=0.3)
        processing = Processing(
            atomic_dos=AtomicDosSettings(grid=sites, smearing=smearing),
            total_dos=TotalDosSettings(grid=total, smearing=smearing),
        )
        return Predictor(network, processing, list(variance), record)

    return make


@pytest.fixture
def list_of_conditions() -> Iterator[None]:
    """Gives MatterGen's list of conditions back as it was: elsewhere, `dos` is a generated field."""
    from mattergen.common.utils.globals import PROPERTY_SOURCE_IDS

    before = list(PROPERTY_SOURCE_IDS)
    yield
    PROPERTY_SOURCE_IDS[:] = before


@pytest.fixture
def make_dos_module(_recipe: Any) -> Callable[..., Any]:
    """Makes the module that `mattergen-finetune` makes of the tiny one with configs/adapter_property/dos.yaml.

    `mixed` draws the adapter's last layers at random: at zero, where they start, the condition has no effect.
    """
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf, open_dict

    file = REPOSITORY / "configs/adapter_property/dos.yaml"

    def make(*, mixed: bool = True, **settings: Any) -> Any:
        recipe = deepcopy(_recipe)
        model = recipe.lightning_module.diffusion_module.model
        with open_dict(recipe):
            model._target_ = "mattergen.adapter.GemNetTAdapter"
            model.property_embeddings_adapt = OmegaConf.load(file)
            model.property_embeddings_adapt.dos.conditional_embedding_module.update(settings)
            model.gemnet._target_ = "mattergen.common.gemnet.gemnet_ctrl.GemNetTCtrl"
            model.gemnet.condition_on_adapt = ["dos"]
        torch.manual_seed(0)
        module = instantiate(recipe.lightning_module.diffusion_module)
        if mixed:
            for layer in module.model.gemnet.cond_mixin_layers["dos"]:
                torch.nn.init.normal_(layer.weight, std=0.5)
        return module.eval()

    return make


@pytest.fixture
def spectra() -> np.ndarray:
    """Three made-up spectra on the grid of the condition, (3, 256) states/eV per atom: a peak on a floor of 0.1."""
    from mattergen_e.spectra.grid import TOTAL_GRID

    centres = np.array([[-4.0], [-1.0], [3.0]])
    return (0.1 + 2 * np.exp(-0.5 * (TOTAL_GRID.energies - centres) ** 2)).astype(np.float32)


@dataclass
class Run:
    """A VASP run: its DOS and its integrated DOS as written, and the gap between its eigenvalues in eV."""

    raw: Any
    integrated: np.ndarray
    gap: float
    symbols: list[str]

    @property
    def density(self) -> np.ndarray:
        """States/eV with the integral that was written: differences of the integrated DOS over those of the energies.

        VASP's tetrahedron DOS misses or counts twice what is narrower than its mesh; its integral does not.
        """
        energies, states = np.pad(self.raw.energies, 1, mode="edge"), np.pad(self.integrated, 1, mode="edge")
        return (states[2:] - states[:-2]) / (energies[2:] - energies[:-2])


@pytest.fixture(scope="session")
def read_vasp(real_data: Path) -> Callable[[str], Run]:
    """Reads the vasprun.xml of a folder by pymatgen; spins and orbitals summed here, by hand."""
    from pymatgen.io.vasp import Vasprun

    from mattergen_e.spectra.raw import RawDos

    def read(name: str) -> Run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = Vasprun(str(real_data / "vasp" / name / "vasprun.xml.gz"), parse_potcar_file=False)
        sites = [sum(sum(spins.values()) for spins in orbitals.values()) for orbitals in run.pdos]
        raw = RawDos(
            energies=run.tdos.energies - run.efermi,
            total=np.array(sum(run.tdos.densities.values())),
            sites=np.array(sites) if sites else None,
        )
        gap = run.eigenvalue_band_properties[0]
        assert isinstance(gap, float)
        symbols = [site.specie.symbol for site in run.final_structure]
        return Run(raw, np.array(sum(run.idos.densities.values())), float(gap), symbols)

    return read


@pytest.fixture(scope="session")
def gpaw_runs(real_data: Path) -> dict[str, Any]:
    """The first 40 stored GPAW calculations by id."""
    from mattergen_e.spectra.raw import RawDos

    found = {}
    for file in sorted((real_data / "gpaw").glob("*.npz"))[:40]:
        with np.load(file, allow_pickle=False) as data:
            sites = data["pdos"].astype(float).sum(axis=1)
            found[file.stem] = RawDos(data["energy_grid"].astype(float), data["dos"].astype(float), sites)
    return found
