"""Generation, batch by batch: takes the place of MatterGen's `draw_samples_from_sampler` for joint samplers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mattergen.generator import dump_trajectories
from pymatgen.core import Structure
from tqdm.auto import tqdm

from mattergen_e import provenance
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.diffusion.sampler import JointSampler
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.fitting import Fitting
from mattergen_e.generation.outline import outline_of_diffusion
from mattergen_e.generation.preflight import check_conditions
from mattergen_e.generation.store import Generated, RunStore
from mattergen_e.spectra.objects import complete_dos
from mattergen_e.upstream import Terminated, check_known, interrupted_without_traceback, told_to_end, typed


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
        record_trajectories: True if `sampler_partial.output.trajectories` is to be, where the command line says so
            (MatterGen's default, which nobody asked for, is ignored).
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
    check_conditions(outline_of_diffusion(sampler.diffusion_module, sampler.descriptors), condition_loader)
    if record_trajectories and typed("record_trajectories"):
        sampler.output = replace(sampler.output, trajectories=True)
    if conditions and sampler._guidance_scale == 0:
        print(
            "mattergen-e: a guidance factor of 0 generates as if no property was asked for: add "
            "--diffusion_guidance_factor=2.0.",
            file=sys.stderr,
        )
    settings = _settings(sampler, condition_loader, conditions)
    with interrupted_without_traceback(), told_to_end():
        store = None
        if output_path is not None:
            store = RunStore.open(
                Path(output_path),
                existing=sampler.output.existing,
                settings=settings,
                provenance=_provenance(sampler),
                fields={name: _field(descriptor) for name, descriptor in sampler.descriptors.items()},
            )
        return _run(sampler, condition_loader, conditions, store, settings["seed"], progress_callback)


def _run(
    sampler: JointSampler,
    loader: Iterable[tuple[Any, Any]],
    conditions: Mapping[str, Any],
    store: RunStore | None,
    seed: int | None,
    progress_callback: Callable[..., object] | None,
) -> list[Structure]:
    """All batches of a run whose folder is open."""
    seed = seed if store is None else store.seed
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(loader, ConditionLoader):
        loader.seed = seed
    with store if store is not None else nullcontext():
        if store is not None and isinstance(loader, ConditionLoader):
            loader.save_targets(store.folder)
        try:
            batches = _reporting(loader, progress_callback)
            made = _all_batches(sampler, batches, lambda i: {**conditions, **_targets(loader, i)}, seed, store)
        except (KeyboardInterrupt, Terminated):
            _say_how_to_go_on(store)
            raise
        if store is None:
            return [_with_dos(crystal) for crystal in made]
        store.finish()
        return [_with_dos(crystal) for crystal in store.read()]


def _targets(loader: Any, index: int) -> dict[str, Any]:
    """What is written down of the spectra that a crystal was asked for; MatterGen's loaders have none."""
    return loader.record(index) if isinstance(loader, ConditionLoader) else {}


def _with_dos(crystal: Generated) -> Structure:
    """The structure, with values of the crystal as its properties and spectra as an attribute."""
    structure: Any = crystal.structure
    structure.properties |= crystal.values
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
) -> list[Generated]:
    made: list[Generated] = []
    fitting, first = Fitting(sampler), 0
    for batch, (data, _) in enumerate(batches):
        begin = time.perf_counter()
        indices = range(first, first + data.get_batch_size())
        first = indices.stop
        if store is not None and batch in store.done:
            continue
        result = fitting.sample(data, seed, batch)
        crystals = [
            Generated(index=i, batch=batch, conditions=conditions(i), seed=seed, redraws=redraws, **vars(drawn))
            for i, drawn, redraws in zip(indices, result.crystals, result.redraws, strict=True)
            if drawn is not None
        ]
        made += crystals
        if store is None:
            continue
        seconds = time.perf_counter() - begin
        store.write_batch(batch, crystals, seconds=seconds, dropped=result.dropped, failed=result.failed)
        if result.trajectories:
            _write_trajectories(store.folder, batch, result.trajectories)
    return made


def _settings(sampler: JointSampler, loader: Any, conditions: dict[str, Any]) -> dict[str, Any]:
    own = loader.settings() if isinstance(loader, ConditionLoader) else {"seed": None, "conditions": {}}
    return {
        **own,
        "conditions": {name: own["conditions"].get(name, value) for name, value in conditions.items()},
        **sampler.steps_record(),
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
        "frame": quantity.frame,
        "label": descriptor.title,
    }


def _say_how_to_go_on(store: RunStore | None) -> None:
    if store is not None:
        print(
            f"mattergen-e: interrupted with {len(store.done)} batches written; the same command with "
            "MATTERGEN_E_EXISTING=resume finishes the rest.",
            file=sys.stderr,
        )


def _write_trajectories(folder: Path, batch: int, trajectories: list[list[Any]]) -> None:
    """One zip of extxyz files per batch, as MatterGen names them."""
    target = folder / f"trajectories_batch_{batch}"
    target.mkdir(exist_ok=True)
    dump_trajectories(output_path=target, all_trajs_list=trajectories)
