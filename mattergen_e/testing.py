"""What every descriptor has to keep to, for the tests of whoever writes one.

    from mattergen_e.testing import check_descriptor

    def test_my_descriptor() -> None:
        check_descriptor(MyDescriptor())

It runs in seconds on a processor: the descriptor is attached to a denoiser of a few thousand parameters.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mattergen.common.data.collate import collate
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from mattergen_e.data.build import build_cache
from mattergen_e.data.dataset import JointCrystalDataset
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.held import ClampedDescriptor
from mattergen_e.diffusion.joint import Preparation, Shares, attach
from mattergen_e.diffusion.prediction import denoise_descriptors
from mattergen_e.generation.formats import Generated, batch_files, read_files
from mattergen_e.generation.results import physical, to_crystals

#: Settings of the tiny denoiser; cutoff and neighbours cut no shell of equal distances in two.
_GEMNET = {
    "num_targets": 1, "latent_dim": 16, "emb_size_atom": 16, "emb_size_edge": 16, "emb_size_trip": 8,
    "emb_size_rbf": 8, "emb_size_cbf": 8, "emb_size_bil_trip": 8, "num_spherical": 3, "num_radial": 6,
    "num_blocks": 2, "cutoff": 4.2, "max_neighbors": 500, "max_cell_images_per_dim": 3, "otf_graph": True,
    "regress_stress": True,
}  # fmt: skip


def tiny_module(seed: int = 0) -> Any:
    """MatterGen's diffusion module with a denoiser of a few thousand random parameters, without descriptors."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from mattergen_e import upstream

    upstream.prepare()
    recipe = OmegaConf.create(
        {
            "_target_": "mattergen.diffusion.diffusion_module.DiffusionModule",
            "model": {
                "_target_": "mattergen.denoiser.GemNetTDenoiser",
                "hidden_dim": 16,
                "gemnet": {
                    "_target_": "mattergen.common.gemnet.gemnet.GemNetT",
                    "atom_embedding": {
                        "_target_": "mattergen.common.gemnet.layers.embedding_block.AtomEmbedding",
                        "emb_size": 16,
                        "with_mask_type": True,
                    },
                    **_GEMNET,
                },
                "denoise_atom_types": True,
                "atom_type_diffusion": "mask",
                "property_embeddings": {},
                "property_embeddings_adapt": {},
            },
            "corruption": {
                "_target_": "mattergen.diffusion.corruption.multi_corruption.MultiCorruption",
                "sdes": {
                    "pos": {
                        "_target_": "mattergen.common.diffusion.corruption.NumAtomsVarianceAdjustedWrappedVESDE",
                        "wrapping_boundary": 1.0,
                        "sigma_max": 5.0,
                        "limit_info_key": "num_atoms",
                    },
                    "cell": {
                        "_target_": "mattergen.common.diffusion.corruption.LatticeVPSDE.from_vpsde_config",
                        "vpsde_config": {
                            "beta_min": 0.1,
                            "beta_max": 20,
                            "limit_density": 0.0577,
                            "limit_var_scaling_constant": 0.25,
                        },
                    },
                },
                "discrete_corruptions": {},
            },
            "loss_fn": {
                "_target_": "mattergen.common.loss.MaterialsLoss",
                "reduce": "sum",
                "include_pos": True,
                "include_cell": True,
                "include_atomic_numbers": False,
                "weights": {"cell": 1.0, "pos": 0.1},
            },
            "pre_corruption_fn": {
                "_target_": "mattergen.property_embeddings.SetEmbeddingType",
                "p_unconditional": 0.2,
                "dropout_fields_iid": False,
            },
        }
    )
    with torch.random.fork_rng(devices=[]), redirect_stderr(io.StringIO()):
        torch.manual_seed(seed)
        return instantiate(recipe).eval()


def _crystals() -> list[Structure]:
    """Three crystals of 2, 2 and 5 sites, sheared so that no two directions are equal."""
    shear = np.array([[1.0, 0.04, 0.09], [0.0, 1.05, 0.07], [0.0, 0.0, 1.11]])
    salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    blende = Structure(Lattice([[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]]), ["Zn", "S"], [[0, 0, 0], [0.25] * 3])
    oxide = Structure(
        Lattice.cubic(4.0),
        ["Ba", "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.52], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    )
    return [Structure(Lattice(s.lattice.matrix @ shear), s.species, s.frac_coords) for s in (salt, blende, oxide)]


def _batch(structures: Sequence[Structure], descriptor: Descriptor, seed: int = 1) -> Any:
    """The crystals with random diffused values of the descriptor."""
    from mattergen_e.crystals.graphs import to_graph

    batch = collate([to_graph(structure) for structure in structures])
    rows = descriptor.rows(batch)
    noisy = torch.randn(len(rows), descriptor.dim, generator=torch.Generator().manual_seed(seed))
    return batch.replace(**{descriptor.name: noisy, f"{descriptor.name}_batch": rows})


def _shaken(module: Any) -> None:
    """Random weights in place of the zeros that the parts of the descriptor start from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for parameter in module.joint_fields.parameters():
            torch.nn.init.normal_(parameter, std=0.3)


@torch.no_grad()
def _output(module: Any, batch: Any) -> Any:
    return module.model(batch, torch.linspace(0.2, 0.8, len(batch["num_atoms"])))


def check_descriptor(descriptor: Descriptor) -> None:
    """Checks that a descriptor can be generated, predicted, held and written.

    - Its rows belong to the crystals: `rows` and `count` agree.
    - Values survive encoding, and the forms in which a run is written.
    - A fresh model gives the structure what it gave without the descriptor, bit by bit; with other weights the
      descriptor is heard.
    - The order of the sites does not matter, nor does a rotation of the crystal.
    - Given rows stay as they are through its constraint, and the constraint leaves the shape and finite numbers.
    - Training has a finite loss and gradients; the same seed gives the same values.
    - Values of labels follow their sites, also those of a supercell, into a cache and out of it, where they come from
      a cache (spectra, whose labels carry how they were made, are left out).

    Args:
        descriptor: Ready to decode: one with a companion, such as an autoencoder, brings it.

    Raises:
        AssertionError: If it does not; the message says what.
    """
    structures = _crystals()
    batch = _batch(structures, descriptor)
    _check_rows(descriptor, batch)
    _check_values(descriptor, batch, structures)
    fresh, module = tiny_module(), tiny_module()
    attach(module, {descriptor.name: descriptor}, Shares(predict=0.3, given=0.3))
    _check_start(descriptor, fresh, module, batch)
    _check_training(descriptor, module, batch)
    _shaken(module)
    _check_symmetry(descriptor, module, structures)
    _check_held(descriptor, batch)
    _check_seeds(descriptor, module, batch)
    if descriptor.from_cache and not descriptor.quantity().spectrum:
        _check_cache(descriptor, batch, structures)


def _check_rows(descriptor: Descriptor, batch: Any) -> None:
    rows, counts = descriptor.rows(batch), descriptor.count(batch["num_atoms"])
    assert torch.equal(torch.bincount(rows, minlength=len(counts)), counts), "rows and count disagree"
    assert bool((rows.diff() >= 0).all()), "the rows of a crystal do not stand together"
    assert descriptor.corruption().T == 1, "the corruption must end at time 1, as MatterGen's do"


def _check_values(descriptor: Descriptor, batch: Any, structures: Sequence[Structure]) -> None:
    x = descriptor.after_step(batch[descriptor.name], s=1.0, ds=0.1, batch_idx=descriptor.rows(batch))
    assert torch.allclose(descriptor.encode(descriptor.decode(x)), x, atol=1e-5), "decode and encode do not fit"
    batch = batch.replace(**{descriptor.name: x})
    fields = {descriptor.name: descriptor}
    drawn = [crystal for crystal in to_crystals(batch, fields, [True] * len(structures)) if crystal is not None]
    assert len(drawn) == len(structures), "a crystal was lost"
    crystals = [Generated(index=i, batch=0, conditions={}, seed=0, **vars(crystal)) for i, crystal in enumerate(drawn)]
    files = batch_files(crystals)
    for before, after in zip(crystals, read_files(files.__getitem__), strict=True):
        assert before.values == after.values, "values of the crystal change in the files"
        for name in before.structure.site_properties:
            same = np.allclose(before.structure.site_properties[name], after.structure.site_properties[name])
            assert same, f"the column '{name}' changes in the files"
        for name, artefact in before.artefacts.items():
            for key, array in artefact.arrays.items():
                assert np.array_equal(array, after.artefacts[name].arrays[key]), f"the array '{key}' changes"
        written = before.structure.site_properties or before.values or before.artefacts or before.spectra is not None
        assert written, "nothing of the descriptor is written"
    assert [len(values) for values in physical(batch, fields)[descriptor.name]] == descriptor.count(
        batch["num_atoms"]
    ).tolist(), "the values are split in another way than count says"


def _check_start(descriptor: Descriptor, fresh: Any, module: Any, batch: Any) -> None:
    before, after = _output(fresh, batch), _output(module, batch)
    for name in ("pos", "cell", "atomic_numbers"):
        assert torch.equal(before[name], after[name]), f"a fresh field changes '{name}' of the structure: start at zero"
    assert after[descriptor.name].shape == batch[descriptor.name].shape, "the head gives another shape"
    assert bool(after[descriptor.name].isfinite().all()), "the head gives numbers that are not finite"
    shaken = tiny_module()
    attach(shaken, {descriptor.name: descriptor}, Shares())
    _shaken(shaken)
    assert not torch.equal(before["pos"], _output(shaken, batch)["pos"]), "the structure never hears of the field"


def _check_training(descriptor: Descriptor, module: Any, batch: Any) -> None:
    physical_values = descriptor.decode(batch[descriptor.name])
    labelled = batch.replace(**{descriptor.name: physical_values})
    prepared = Preparation(lambda x: x, {descriptor.name: descriptor}, Shares(predict=0.0))(labelled)
    assert prepared[descriptor.name].shape == physical_values.shape, "training values have another shape"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss, parts = module.calc_loss(labelled)
    assert bool(loss.isfinite()) and descriptor.name in parts, "the loss is not finite"
    loss.backward()
    moved = [p for p in module.joint_fields.parameters() if p.grad is not None and bool(p.grad.any())]
    assert moved, "no parameter of the descriptor gets a gradient"
    module.zero_grad()


def _check_symmetry(descriptor: Descriptor, module: Any, structures: Sequence[Structure]) -> None:
    batch = _batch(structures, descriptor)
    plain = _output(module, batch)
    order = torch.cat([torch.arange(len(s)).flip(0) + batch.ptr[i] for i, s in enumerate(structures)])
    rows = order if descriptor.place == "site" else torch.arange(len(batch[descriptor.name]))
    turned = [Structure.from_sites(list(reversed(list(s)))) for s in structures]
    mixed = _batch(turned, descriptor).replace(**{descriptor.name: batch[descriptor.name][rows]})
    found = _output(module, mixed)
    assert torch.allclose(found[descriptor.name], plain[descriptor.name][rows], atol=1e-4), "the order of sites matters"
    assert torch.allclose(found["pos"], plain["pos"][order], atol=1e-4), "the order of sites matters to the structure"
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rotated = [Structure(Lattice(s.lattice.matrix @ quarter), s.species, s.frac_coords) for s in structures]
    again = _output(module, _batch(rotated, descriptor))
    assert torch.allclose(again[descriptor.name], plain[descriptor.name], atol=1e-3), "a rotation matters"


def _check_held(descriptor: Descriptor, batch: Any) -> None:
    x, rows = batch[descriptor.name], descriptor.rows(batch)
    given = descriptor.after_step(x, s=1.0, ds=0.1, batch_idx=rows)[0]
    clamp = ClampedDescriptor(descriptor, {0: given})
    clamp.begin(batch["num_atoms"])
    for s in (0.5, 1.0):
        out = clamp.after_step(x, s=s, ds=0.1, batch_idx=rows)
        assert out.shape == x.shape and bool(out.isfinite().all()), "the constraint gives another shape, or no numbers"
    first = torch.cat([torch.zeros(1, dtype=torch.long), descriptor.count(batch["num_atoms"]).cumsum(0)[:-1]])
    assert torch.allclose(out[first], given.expand(len(first), -1), atol=1e-6), "a given row was moved"


def _check_seeds(descriptor: Descriptor, module: Any, batch: Any) -> None:
    fields, found = {descriptor.name: descriptor}, []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            found.append(denoise_descriptors(module, batch, fields, 3)[descriptor.name])
    assert bool(found[0].isfinite().all()), "denoising ends with numbers that are not finite"
    assert torch.equal(found[0], found[1]), "the same seed gives other values"
    assert not torch.equal(found[0], found[2]), "another seed gives the same values"


def _check_cache(descriptor: Descriptor, batch: Any, structures: Sequence[Structure]) -> None:
    x = descriptor.after_step(batch[descriptor.name], s=1.0, ds=0.1, batch_idx=descriptor.rows(batch))
    values = [v.double().numpy() for v in descriptor.decode(x).split(descriptor.count(batch["num_atoms"]).tolist())]
    for times in (1, 2) if descriptor.place != "grid" else (1,):
        with tempfile.TemporaryDirectory() as folder:
            lines = [_line(descriptor, i, s, v, times) for i, (s, v) in enumerate(zip(structures, values, strict=True))]
            Path(folder, "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            build_cache(
                [Path(folder, "labels.jsonl")],
                Path(folder, "cache"),
                site_values=[descriptor.name],
                strict=True,
                quantities=[descriptor.quantity()],
                merge_tolerance=1e-6,
                neutrality_tolerance=1e-3,
                jobs=1,
                progress=False,
            )
            items = JointCrystalDataset.from_cache_path(
                str(Path(folder, "cache", "train")), {descriptor.name: descriptor}
            )
            for i, structure in enumerate(structures):
                item = items[i]
                found = item[descriptor.name].double().numpy()
                before = _invariant(descriptor, structure.lattice.matrix, structure.atomic_numbers, values[i])
                after = _invariant(descriptor, item["cell"][0].double().numpy(), item["atomic_numbers"].tolist(), found)
                what = "values do not follow their sites into the cache" if times == 1 else "a supercell changes values"
                assert before.shape == after.shape and np.allclose(before, after, atol=1e-3), what


def _line(descriptor: Descriptor, index: int, structure: Structure, values: NDArray[Any], times: int) -> dict[str, Any]:
    """A line of labels: the crystal, or a supercell of it, with its values as a calculation would give them."""
    cell, n_sites = structure.copy(), len(structure)
    if descriptor.place == "site":
        rows = values.copy()
        if descriptor.frame == "crystal":  # along the supercell's longer vector a component is smaller
            rows.reshape(n_sites, -1, 3)[:, :, 0] /= times
        cell.add_site_property("row", rows.tolist())
    cell.make_supercell([times, 1, 1])
    told: Any = values[0].tolist()
    if descriptor.place == "site":
        told = [row if descriptor.dim > 1 else row[0] for row in cell.site_properties["row"]]
        cell.remove_site_property("row")
    elif descriptor.place == "grid":
        told = values.reshape(*descriptor.probes, descriptor.dim).tolist()
    return {"id": f"c{index}", "structure": cell.as_dict(), descriptor.name: told, "split": "train"}


def _invariant(
    descriptor: Descriptor, matrix: NDArray[Any], numbers: Sequence[int], values: NDArray[Any]
) -> NDArray[Any]:
    """What the choice of the cell and the order of its sites leave: sorted rows, of sites with their element."""
    if descriptor.frame == "crystal":
        vectors = values.reshape(len(values), -1, 3) @ matrix
        values = np.linalg.norm(vectors, axis=-1)
    if descriptor.place == "site":
        values = np.concatenate([np.array(numbers, dtype=float)[:, None], values], axis=1)
    return values[np.lexsort(np.round(values, 4).T[::-1])]
