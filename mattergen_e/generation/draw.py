"""Generation, batch by batch: takes the place of MatterGen's `draw_samples_from_sampler` for joint samplers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mattergen.common.data.collate import collate
from pymatgen.core import Lattice, Structure
from tqdm.auto import tqdm

from mattergen_e import provenance
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.dos_embedding import DosEmbedding
from mattergen_e.diffusion.sampler import JointSampler
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import SeededConditionLoader, seed_batch
from mattergen_e.generation.store import Generated, RunStore
from mattergen_e.spectra.objects import CrystalSpectra, complete_dos
from mattergen_e.upstream import check_known

#: Smallest volume per site (cubic angstrom) of a crystal that is kept; solid hydrogen under pressure has more.
LEAST_VOLUME = 1.0


@dataclass
class BatchResult:
    """Crystals of one batch: a structure per condition (None where all draws were degenerate) and how often redrawn.

    `spectra` has those of the sites of each crystal, None where the model generates none.
    """

    structures: list[Structure | None]
    redraws: list[int]
    trajectories: list[list[Any]]
    spectra: list[CrystalSpectra | None]

    @property
    def dropped(self) -> int:
        """Number of degenerate draws."""
        return sum(self.redraws) + sum(s is None for s in self.structures)


def draw(
    sampler: JointSampler,
    condition_loader: Iterable[tuple[Any, Any]],
    properties_to_condition_on: Mapping[str, Any] | None = None,
    output_path: Path | None = None,
    cfg: Any = None,
    record_trajectories: bool = True,
    progress_callback: Callable[..., object] | None = None,
) -> list[Structure]:
    """Generates all batches of a run and writes each as it ends.

    Args:
        sampler: Brings the model, its descriptors and the settings of the output.
        condition_loader: Batches of conditions.
        properties_to_condition_on: Conditions by name, recorded with each crystal.
        output_path: Folder for the results; None to only return them.
        cfg: The model's configuration; kept for MatterGen's signature.
        record_trajectories: Ignored: `sampler_partial.output.trajectories` decides, and is off by default.
        progress_callback: Called with `progress=`, the finished share of the batches (MatterGen after 1.0.3 gives it).

    Returns:
        All crystals of the run, those of a resumed run included, with descriptors as site properties; with spectra of
        sites as attribute `dos`, a `SiteDos`, if the model generates them.

    Raises:
        UserError: If a condition is unknown to the model, if the conditions fix the composition, which the model
            generates, or if the folder must not be written.
    """
    conditions = dict(properties_to_condition_on or {})
    model: Any = sampler.diffusion_module.model
    check_known(list(conditions), list(model.cond_fields_model_was_trained_on))
    _check_compositions(sampler, condition_loader)
    _check_targets(sampler, condition_loader)
    if conditions and sampler._guidance_scale == 0:
        print(
            "mattergen-e: a guidance factor of 0 generates as if no property was asked for: add "
            "--diffusion_guidance_factor=2.0.",
            file=sys.stderr,
        )
    settings = _settings(sampler, condition_loader, conditions)
    store = None
    if output_path is not None:
        store = RunStore.open(
            Path(output_path),
            existing=sampler.output.existing,
            settings=settings,
            provenance=_provenance(sampler),
            fields={name: _field(descriptor) for name, descriptor in sampler.descriptors.items()},
        )
    seed = store.seed if store is not None else settings["seed"]
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(condition_loader, SeededConditionLoader):
        condition_loader.seed = seed
    with store if store is not None else nullcontext():
        if output_path is not None and isinstance(condition_loader, SeededConditionLoader):
            condition_loader.save_targets(Path(output_path))
        try:
            batches = _reporting(condition_loader, progress_callback)
            told = condition_loader.told if isinstance(condition_loader, SeededConditionLoader) else _nothing
            made = _all_batches(sampler, batches, lambda i: conditions | told(i), seed, store, output_path)
        except KeyboardInterrupt:
            _say_how_to_go_on(store)
            raise
        if store is None:
            return [_with_dos(crystal) for crystal in made]
        store.finish()
        return [_with_dos(crystal) for crystal in store.read()]


def _nothing(index: int) -> dict[str, Any]:
    """No conditions of its own for any crystal."""
    return {}


def _with_dos(crystal: Generated) -> Structure:
    """The structure, with its spectra as an attribute: in `properties` they would end up in every file."""
    structure: Any = crystal.structure
    if crystal.spectra is not None:
        structure.dos = complete_dos(structure, crystal.spectra.spectra, crystal.spectra.grid)
    return structure


def _reporting(loader: Iterable[tuple[Any, Any]], callback: Callable[..., object] | None) -> Iterator[tuple[Any, Any]]:
    """The batches, with a progress bar and reports to a caller who wants them."""
    total = len(loader) if isinstance(loader, Sized) else None
    for batch, item in enumerate(tqdm(loader, total=total, desc="Generating samples")):
        if callback is not None and total:
            callback(progress=batch / total)
        yield item
    if callback is not None:
        callback(progress=1.0)


def _all_batches(
    sampler: JointSampler,
    batches: Iterable[tuple[Any, Any]],
    conditions: Callable[[int], dict[str, Any]],
    seed: int,
    store: RunStore | None,
    output_path: Path | None,
) -> list[Generated]:
    made: list[Generated] = []
    first = 0
    for batch, (data, _) in enumerate(batches):
        begin = time.perf_counter()
        indices = range(first, first + data.get_batch_size())
        first = indices.stop
        if store is not None and batch in store.done:
            continue
        result = sample_batch(sampler, data, seed, batch)
        crystals = [
            Generated(index=i, batch=batch, structure=s, conditions=conditions(i), seed=seed, redraws=r, spectra=d)
            for i, s, r, d in zip(indices, result.structures, result.redraws, result.spectra, strict=True)
            if s is not None
        ]
        made += crystals
        if store is None:
            continue
        failed = sum(s is None for s in result.structures)
        seconds = time.perf_counter() - begin
        store.write_batch(batch, crystals, seconds=seconds, dropped=result.dropped, failed=failed)
        if result.trajectories and output_path is not None:
            _write_trajectories(Path(output_path), batch, result.trajectories)
    return made


def sample_batch(sampler: JointSampler, conditions: Any, seed: int, batch: int) -> BatchResult:
    """Draws one batch, and draws anew what came out degenerate, up to `sampler.output.redraws` rounds."""
    graphs = conditions.to_data_list()
    result = BatchResult([None] * len(graphs), [0] * len(graphs), [], [None] * len(graphs))
    pending = list(range(len(graphs)))
    for attempt in range(sampler.output.redraws + 1):
        seed_batch(seed, batch, attempt)
        data = collate([graphs[i] for i in pending])
        if sampler.output.trajectories and attempt == 0:
            _, mean, steps = sampler.sample_with_record(data, None)
            result.trajectories = _by_crystal(steps)
        else:
            _, mean = sampler.sample(data, None)
        healthy = is_healthy(mean, sampler.guard.parked, sampler.guard.largest_volume, list(sampler.descriptors))
        structures = to_structures(mean, sampler.descriptors)
        spectra = to_spectra(mean, sampler.descriptors, healthy.tolist())
        left = []
        for i, good, structure, dos in zip(pending, healthy.tolist(), structures, spectra, strict=True):
            if good:
                result.structures[i] = structure
                result.spectra[i] = dos
                result.redraws[i] = attempt
            else:
                left.append(i)
        pending = left
        if not pending:
            break
    for i in pending:
        result.redraws[i] = sampler.output.redraws
    return result


def is_healthy(batch: Any, parked: torch.Tensor, largest_volume: float, fields: Sequence[str]) -> torch.Tensor:
    """Which crystals of a sampled batch are crystals at all, shape (n_crystals,), bool.

    Args:
        batch: The sampled batch.
        parked: Crystals that became degenerate on the way, shape (n_crystals,).
        largest_volume: Largest volume per site in cubic angstrom.
        fields: Names of the descriptors.
    """
    sites, n_crystals = batch.get_batch_idx("pos"), len(batch["num_atoms"])
    numbers = batch["atomic_numbers"]
    good_sites = batch["pos"].isfinite().all(dim=1) & (numbers >= 1) & (numbers <= 100)
    for name in fields:
        good_sites &= batch[name].isfinite().all(dim=1)
    bad = torch.zeros(n_crystals, device=sites.device).index_add_(0, sites, (~good_sites).float()) > 0
    cell = batch["cell"]
    finite = cell.isfinite().flatten(1).all(dim=1)
    volume = torch.linalg.det(torch.nan_to_num(cell)).abs() / batch["num_atoms"]
    return finite & ~bad & ~parked & (volume >= LEAST_VOLUME) & (volume <= 1.001 * largest_volume)


def to_structures(batch: Any, descriptors: Mapping[str, Descriptor]) -> list[Structure | None]:
    """The crystals of a batch with decoded descriptors as site properties; None for what is not a crystal."""
    sizes = batch["num_atoms"].tolist()
    numbers = batch["atomic_numbers"].cpu().split(sizes)
    positions = (batch["pos"] % 1.0).double().cpu().split(sizes)
    cells = batch["cell"].double().cpu().numpy()
    values = {name: d.decode(batch[name]).cpu().split(sizes) for name, d in descriptors.items()}
    structures: list[Structure | None] = []
    for i, cell in enumerate(cells):
        properties: dict[str, list] = {}
        for name, descriptor in descriptors.items():
            properties |= descriptor.site_properties(values[name][i].numpy())
        try:
            structures.append(
                Structure(Lattice(cell), numbers[i].tolist(), positions[i].numpy(), site_properties=properties)
            )
        except (ValueError, KeyError):
            structures.append(None)
    return structures


def to_spectra(
    batch: Any, descriptors: Mapping[str, Descriptor], wanted: Sequence[bool]
) -> list[CrystalSpectra | None]:
    """Spectra of the sites of the wanted crystals of a batch, of the first descriptor that has any."""
    sizes = batch["num_atoms"].tolist()
    spectra: list[CrystalSpectra | None] = [None] * len(sizes)
    for name, descriptor in descriptors.items():
        values = descriptor.decode(batch[name]).cpu().split(sizes)
        for i, needed in enumerate(wanted):
            if needed and spectra[i] is None:
                spectra[i] = descriptor.spectra(values[i].numpy())
    return spectra


def _check_targets(sampler: JointSampler, loader: Any) -> None:
    """Refuses spectra that give nothing in the energies that the model has learned."""
    model: Any = sampler.diffusion_module.model
    embeddings = {**model.property_embeddings, **getattr(model, "property_embeddings_adapt", {})}
    for name, target in loader.targets.items() if isinstance(loader, SeededConditionLoader) else ():
        embedding = getattr(embeddings.get(name), "conditional_embedding_module", None)
        if isinstance(embedding, DosEmbedding):
            embedding.check_targets(target)


def _check_compositions(sampler: JointSampler, loader: Any) -> None:
    """Refuses MatterGen's loader of compositions: the sampler would replace the given elements and not say so."""
    conditions = getattr(loader, "dataset", None) or [{}]
    given = conditions[0]["atomic_numbers"] if "atomic_numbers" in conditions[0] else torch.empty(0)
    if "atomic_numbers" in sampler.diffusion_module.corruption.corrupted_fields and bool((given > 0).any()):
        raise UserError(
            "target_compositions needs a model trained for crystal structure prediction, without diffusion of atom "
            "types, and MatterGen's --sampling_config_name=csp: this model generates the elements itself."
        )


def _settings(sampler: JointSampler, loader: Any, conditions: dict[str, Any]) -> dict[str, Any]:
    own = loader.settings() if isinstance(loader, SeededConditionLoader) else {"seed": None, "conditions": {}}
    return {
        **own,
        "conditions": {name: own["conditions"].get(name, value) for name, value in conditions.items()},
        "steps": sampler.N,
        "eps_t": sampler._eps_t,
        "corrector_steps": sampler._n_steps_corrector,
        "guidance_factor": sampler._guidance_scale,
        "volume_per_site": [sampler.guard.least_volume, sampler.guard.largest_volume],
        "descriptors": sorted(sampler.descriptors),
        "weights_sha256": provenance.hash_weights(sampler.diffusion_module.state_dict()),
    }


def _provenance(sampler: JointSampler) -> dict[str, Any]:
    return {"versions": provenance.versions(), "hardware": provenance.hardware(), "device": str(sampler._device)}


def _field(descriptor: Descriptor) -> dict[str, Any]:
    """What run.json says of a descriptor."""
    quantity = descriptor.quantity()
    return {
        "place": quantity.place,
        "dim": quantity.dim,
        "unit": quantity.unit,
        "probes": quantity.probes,
        "label": descriptor.title,
    }


def _say_how_to_go_on(store: RunStore | None) -> None:
    if store is not None:
        print(
            f"mattergen-e: interrupted with {len(store.done)} batches written; the same command with "
            "MATTERGEN_E_EXISTING=resume finishes the rest.",
            file=sys.stderr,
        )


def _by_crystal(steps: list[Any]) -> list[list[Any]]:
    """Recorded batches as one list of states per crystal."""
    per_step = [step.to_data_list() for step in steps]
    return [list(states) for states in zip(*per_step, strict=True)]


def _write_trajectories(folder: Path, batch: int, trajectories: list[list[Any]]) -> None:
    """One zip of extxyz files per batch, as MatterGen names them."""
    from mattergen.generator import dump_trajectories

    target = folder / f"trajectories_batch_{batch}"
    target.mkdir(exist_ok=True)
    dump_trajectories(output_path=target, all_trajs_list=trajectories)
