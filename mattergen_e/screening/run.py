"""One screening from beginning to end."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np

from mattergen_e import provenance
from mattergen_e.crystals.dictionary import read_dictionary
from mattergen_e.energies.calculators import check_device, describe, require
from mattergen_e.energies.relaxation import RelaxSettings
from mattergen_e.errors import UserError
from mattergen_e.evaluation.candidates import Candidates, read_candidates
from mattergen_e.evaluation.run import default_folder
from mattergen_e.evaluation.spectra import predicted
from mattergen_e.evaluation.spectra.predicted import Spectrum
from mattergen_e.evaluation.steps import Context
from mattergen_e.files import add_array
from mattergen_e.matching import unique
from mattergen_e.networks.predictor.folder import describe as describe_predictor
from mattergen_e.networks.predictor.folder import load
from mattergen_e.reference import Reference
from mattergen_e.screening import dft, energies, output, ranking
from mattergen_e.screening.ranking import Row
from mattergen_e.screening.settings import ScreenSettings
from mattergen_e.screening.target import Target, read_target
from mattergen_e.spectra.grid import EnergyGrid

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.networks.predictor.model import Predictor


@dataclass(frozen=True)
class Screening:
    """What a screening found.

    Attributes:
        folder: Of the shortlist.
        summary: Content of screening.json, without the hashes of the files.
        rows: Of all crystals asked for.
        shortlist: Those of the shortlist, the nearest to the target first.
        computed: Results that this run computed, by stage.
        left: Inputs for DFT that somebody changed: they were not written.
    """

    folder: Path
    summary: dict[str, Any]
    rows: list[Row]
    shortlist: list[Row]
    computed: dict[str, int]
    left: list[str]


def screen(
    path: str | Path,
    settings: ScreenSettings,
    relaxation: RelaxSettings | None = None,
    *,
    out: str | Path,
    reference: str | Path | None = None,
    evaluation: str | Path | None = None,
    jobs: int | None = None,
    backend: str = "loky",
    progress: bool = True,
) -> Screening:
    """Find the generated crystals that are worth DFT for a target spectrum (DOSMatGen, section 3.3).

    A rerun computes only what is missing; a changed setting only what depends on it.

    Args:
        path: What to screen; see `evaluation.candidates.read_candidates`.
        settings: What is wanted.
        relaxation: How to relax; the predictor runs on the same device.
        out: Folder of the shortlist.
        reference: Folder written by `mattergen-e reference build`; without, formation energies refer to the elements
            as computed here, and there is no hull.
        evaluation: Folder of an evaluation of the same crystals, whose relaxations are used where the calculator and
            the settings are the same; by default `evaluation` in the output folder.
        jobs: Workers; None for one per core.
        backend: Of joblib: loky, threading, dask[:ADDRESS] or ray[:ADDRESS].
        progress: Show progress bars on stderr if it is a terminal.

    Returns:
        What was found and written.

    Raises:
        UserError: If the input, the target, the predictor, the reference or a setting is wrong, or the folder in use.
    """
    path, folder, relaxation = Path(path), Path(out), relaxation or RelaxSettings()
    opened, warnings = _check(settings, relaxation, reference)
    candidates = read_candidates(path)
    source = Source(settings, candidates, relaxation.device)
    target = read_target(settings, source.grid, source.curves_of)
    with output.held(folder):
        context = Context(folder, candidates, opened, jobs, backend, progress)  # type: ignore[arg-type]
        known = Path(evaluation) if evaluation is not None else default_folder(path)
        relaxed, taken = energies.relaxed(context, relaxation, known)
        places = energies.formation(context, relaxed, relaxation)
        rows = ranking.make_rows(candidates, relaxed, places, settings)
        structures = _structures(candidates, relaxed, ranking.kept(rows))
        spectra = source.spectra(context, structures)
        ranking.measure(rows, spectra, target, settings)
        shortlist = _ranked(context, rows, structures, settings)
        summary = {
            "format": output.FORMAT,
            "counts": {"asked": len(rows), "dropped": ranking.counts(rows), "shortlist": len(shortlist)},
            "lowest": ranking.nearest_miss(rows),
            "shortlist": shortlist,
            "target": {"file": settings.target.name, **target.about()},
            "predictor": source.about(),
            **_about(candidates, settings, relaxation, opened),
            "relaxations_of_evaluation": taken,
            "warnings": warnings,
            "timings": {stage: round(seconds, 3) for stage, seconds in context.timings.items()},
        }
        contents, problems = _contents(rows, shortlist, structures, spectra, target, source.label)
        summary["warnings"] = [*warnings, *problems]
        left = output.write(folder, contents, summary)
    return Screening(folder, summary, rows, shortlist, context.computed, left)


def _check(
    settings: ScreenSettings, relaxation: RelaxSettings, reference: str | Path | None
) -> tuple[Reference | None, list[str]]:
    """What can be checked before anything else is read; the opened reference, and warnings."""
    require(relaxation.calculator)
    check_device(relaxation.device)
    if reference is None:
        if settings.max_energy_above_hull is not None:
            raise UserError("--max-energy-above-hull needs a hull: give --reference, or leave it away.")
        return None, []
    opened = Reference.open(reference)
    opened.verify()
    warning = energies.check_reference(opened, relaxation)
    return opened, [] if warning is None else [warning]


# -- where the spectra come from --------------------------------------------------------------------------------------


class Source:
    """The forward predictor, read when it is first used, or the spectra that the crystals came with.

    Attributes:
        label: What the spectra are, for pictures.
        grid: Of the spectra that are compared.
        curves_of: Makes curves of the crystals of a structure file; None without a predictor.
    """

    def __init__(self, settings: ScreenSettings, candidates: Candidates, device: str) -> None:
        """Looks for the spectra.

        Raises:
            UserError: If there is no predictor, or no crystal has a spectrum.
        """
        self._settings, self._candidates, self._device = settings, candidates, device
        of_sites = settings.site is not None
        if settings.predictor is None:
            self.label, self.curves_of = "generated", None
            self.grid = _generated_grid(candidates)
            return
        grids = describe_predictor(settings.predictor).network.grids
        self.label = "predicted"
        self.grid: EnergyGrid = grids.sites if of_sites else grids.total
        self.curves_of = self._curves_of

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor."""
        assert self._settings.predictor is not None
        return load(self._settings.predictor, self._device)

    def _curves_of(self, path: Path) -> list[Any]:
        return predicted.curves_of(self.predictor, path)

    def spectra(self, context: Context, relaxed: Mapping[int, Structure]) -> dict[int, Spectrum]:
        """Spectra of crystals by index."""
        of_sites = self._settings.site is not None
        if self._settings.predictor is not None:
            return predicted.predicted(context, self.predictor, relaxed, of_sites)
        chosen = {candidate.index: candidate for candidate in self._candidates if candidate.index in relaxed}
        return predicted.generated(chosen, self.grid, of_sites)

    def about(self) -> dict[str, Any]:
        """What is written down."""
        if self._settings.predictor is None:
            return {"kind": "generated"}
        return {"kind": "predictor", "name": self._settings.predictor.name, "fingerprint": self.predictor.fingerprint}


def _generated_grid(candidates: Candidates) -> EnergyGrid:
    grid = next((candidate.spectra.grid for candidate in candidates if candidate.spectra is not None), None)
    if grid is None:
        raise UserError(
            "--generated needs crystals that a joint model generated with their densities of states, and none of these "
            "has one: leave it away, and a predictor makes them."
        )
    return grid


# -- the shortlist ----------------------------------------------------------------------------------------------------


def _structures(candidates: Candidates, relaxed: Mapping[str, Any], rows: Sequence[Row]) -> dict[int, Structure]:
    """Relaxed structures by index, with the site properties that the crystals were generated with."""
    by_index = {candidate.index: candidate for candidate in candidates}
    found = {}
    for row in rows:
        candidate = by_index[row["index"]]
        assert candidate.structure is not None
        structure = read_dictionary(relaxed[candidate.key]["structure"])
        for name, values in candidate.structure.site_properties.items():
            structure.add_site_property(name, list(values))
        found[row["index"]] = structure
    return found


def _ranked(
    context: Context, rows: Sequence[Row], structures: Mapping[int, Structure], settings: ScreenSettings
) -> list[Row]:
    """Ranks what is kept, each crystal once."""
    found = ranking.ordered(rows)
    first = unique([structures[row["index"]] for row in found], jobs=context.jobs, backend=context.backend)
    return ranking.rank(found, first, settings.top)


def _contents(
    rows: Sequence[Row],
    shortlist: Sequence[Row],
    structures: Mapping[int, Structure],
    spectra: Mapping[int, Spectrum],
    target: Target,
    label: str,
) -> tuple[dict[str, bytes], list[str]]:
    """Files of the shortlist by path, and what is missing among them."""
    from mattergen_e.screening.plots import draw

    contents = {
        f"{output.SHORTLIST}.csv": output.to_csv(shortlist),
        f"{output.SHORTLIST}.json": output.to_json(list(shortlist)),
        output.ALL: output.to_csv(rows),
    }
    problems, curves = [], []
    for row in shortlist:
        structure, spectrum = structures[row["index"]], spectra[row["index"]]
        assert not isinstance(spectrum, str)
        curves.append(spectrum[row["site"] or 0])
        contents[f"{output.CRYSTALS}/{row['id']}.cif"] = output.to_cif(structure)
        contents[f"{output.PLOTS}/{row['rank']:02d}_{row['id']}.png"] = draw(row, curves[-1], target, label)
        inputs, problem = dft.vasp_inputs(structure)
        contents |= {f"{output.VASP}/{row['id']}/{name}": content for name, content in inputs.items()}
        problems += [] if problem is None else [f"{row['id']}: {problem}."]
    if shortlist:
        contents[output.SPECTRA] = _curve_file(shortlist, np.stack(curves), target)
        contents[output.SCRIPT] = dft.gpaw_script()
    return contents, problems


def _curve_file(shortlist: Sequence[Row], curves: Any, target: Target) -> bytes:
    """The spectra as a file that `conditioning.files` reads, and the target; NaN where nothing was asked."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        add_array(archive, "energies", target.grid.energies)
        add_array(archive, "dos", curves.astype(np.float32))
        add_array(archive, "names", np.array([row["id"] for row in shortlist]))
        add_array(archive, "target", np.where(target.mask, target.values, np.nan).astype(np.float32))
    return buffer.getvalue()


def _about(
    candidates: Candidates, settings: ScreenSettings, relaxation: RelaxSettings, reference: Reference | None
) -> dict[str, Any]:
    """The parts of screening.json that say how and with what."""
    inputs = [*candidates.files, *([settings.target] if settings.target.is_file() else [])]
    return {
        "settings": {**settings.model_dump(mode="json"), "relaxation": relaxation.model_dump(mode="json")},
        "calculator": describe(relaxation.calculator),
        "reference": None
        if reference is None
        else {"name": reference.name, "hash": reference.hash, "energy_source": reference.energy_source},
        "provenance": {
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "inputs": {str(file): provenance.hash_file(file) for file in inputs if file.is_file()},
            "command": list(sys.argv),
            "seed": settings.seed,
        },
    }
