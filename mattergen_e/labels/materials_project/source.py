"""The Materials Project as a source: what is asked for is downloaded once into a folder, and labelled from there.

    <downloads>/materials_project.json          marks the folder
    <downloads>/lists/<hash>.json               a query, and the ids that it gave
    <downloads>/<id>/material.json              structure (pymatgen's dictionary), gap, energies
    <downloads>/<id>/dos.npz                    energies, efermi, densities (spins, points), pdos
                                                (sites, orbitals, spins, points), orbitals, cell, numbers, frac
    <downloads>/<id>/charge_density.npz         total, difference (grid) in e times the cell's volume;
                                                cell, numbers, frac
    <downloads>/<id>/charge_density.json        task and potentials behind it
    <downloads>/<id>/dos.absent                 why there is no DOS; likewise charge_density.absent

Every file is written under another name and renamed when it is complete; what is there is not fetched again. Data of
the Materials Project are under CC BY 4.0 (cite Jain et al., APL Materials 1, 011002 (2013)); those from GNoME, under CC
BY-NC 4.0, are left out unless asked for.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from mattergen_e.crystals.findings import Finding, LabelError
from mattergen_e.errors import UserError
from mattergen_e.files import remove_temporary
from mattergen_e.journal import hold
from mattergen_e.labels import bader
from mattergen_e.labels.materials_project import files
from mattergen_e.labels.materials_project.client import Absent, Client
from mattergen_e.labels.materials_project.electrons import check_electrons
from mattergen_e.labels.method import KEY, of_run_type
from mattergen_e.labels.record import Calculation
from mattergen_e.labels.vasp import valence as vasp_valence
from mattergen_e.progress import bar

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from mattergen_e.labels.settings import LabelSettings

Range = tuple[float | None, float | None]

MARK = "materials_project.json"
LISTS = "lists"
FIELDS = ["material_id", "structure", "band_gap", "formation_energy_per_atom", "energy_above_hull"]
#: Materials per request of summaries.
BATCH = 200
#: Two cells are one if no lattice vector and no site differs by more, Å.
SAME_CELL = 0.05
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class UnknownIds(UserWarning):
    """Some of the ids that were asked for are not in the database."""


class Query(BaseModel):
    """What to fetch: the ids, or what all filters together leave; the names are those of mp-api's summary search.

    Attributes:
        ids: Materials by id.
        chemsys: Chemical systems, e.g. Li-Fe-O or Si-*.
        formula: Formulas, e.g. Fe2O3, ABO3, Si*.
        elements: Elements that all are there.
        exclude_elements: Elements that are not.
        num_elements: Fewest and most elements.
        num_sites: Fewest and most sites.
        band_gap: Lowest and highest gap, eV.
        energy_above_hull: Lowest and highest energy above the hull, eV per atom.
        formation_energy: Lowest and highest formation energy, eV per atom.
        is_stable: On the hull or not.
        is_metal: Metal or not.
        theoretical: Never made or made.
        include_gnome: Materials of GNoME too, which may not be used commercially.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: tuple[str, ...] = ()
    chemsys: tuple[str, ...] = ()
    formula: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    exclude_elements: tuple[str, ...] = ()
    num_elements: tuple[int, int] | None = None
    num_sites: tuple[int, int] | None = None
    band_gap: Range | None = None
    energy_above_hull: Range | None = None
    formation_energy: Range | None = None
    is_stable: bool | None = None
    is_metal: bool | None = None
    theoretical: bool | None = None
    include_gnome: bool = False

    def filters(self) -> dict[str, Any]:
        """Arguments of the search, without those that filter nothing."""
        given = self.model_dump(exclude={"ids", "include_gnome"}, exclude_none=True)
        return {name: list(v) if name in _LISTS else v for name, v in given.items() if v not in ((), None)}


_LISTS = ("chemsys", "formula", "elements", "exclude_elements")


def is_download(path: Path) -> bool:
    """Whether a folder was written by `fetch`."""
    return (path / MARK).is_file()


def find(root: str | Path) -> list[Path]:
    """Folders of the materials in a folder of downloads, sorted."""
    return sorted(path.parent for path in Path(root).glob(f"*/{files.MATERIAL}"))


def fetch(
    query: Query,
    out: Path,
    *,
    dos: bool = False,
    charge_density: bool = False,
    interval: float = 0.2,
    rester: Any = None,
    progress: bool = True,
) -> int:
    """Download materials; what is in the folder already is not asked for again.

    The same query in the same folder goes on with the list that it gave the first time.

    Args:
        query: What to fetch.
        out: Folder of downloads, made if it does not exist.
        dos: Fetch densities of states with their projections.
        charge_density: Fetch charge densities, up to 100 MB each.
        interval: Shortest time between two requests in s.
        rester: A client like mp-api's MPRester; None makes one when it is needed, with the key that mp-api finds.
        progress: Show a progress bar on stderr if it is a terminal.

    Returns:
        Number of materials that have all that was asked for, as far as the Materials Project has it.

    Raises:
        UserError: If the query is empty, the key is missing, the network fails, materials could not be fetched (all
            others are stored), or the folder cannot be used.
    """
    if not query.ids and not query.filters():
        raise UserError("Nothing to fetch: name ids or at least one filter, e.g. --chemsys Mg-O.")
    parts = {"dos": _fetch_dos} if dos else {}
    parts |= {"charge_density": _fetch_density} if charge_density else {}
    client = Client(rester, interval)
    with hold(out, advice="mend it"):
        return _fetch(query, out, parts, client, progress)


def _fetch(query: Query, out: Path, parts: dict[str, Any], client: Client, progress: bool) -> int:
    if not is_download(out):
        files.write_json(out / MARK, {"format_version": 1, "licence": "CC BY 4.0", "source": "Materials Project"})
    ids = _list(query, out, client)
    missing = [name for name in ids if not (out / name / files.MATERIAL).is_file()]
    unknown = set(missing)
    with bar("Fetching materials", len(missing), wanted=progress) as advance:
        for batch in batched(missing, BATCH):
            unknown -= _fetch_materials(batch, out, client)
            advance(len(batch))
    if unknown:
        text = f"the Materials Project does not know {len(unknown)} of {len(ids)} ids, e.g. {min(unknown)}"
        warnings.warn(text, UnknownIds, stacklevel=4)
    known = [name for name in ids if (out / name / files.MATERIAL).is_file()]
    with bar("Fetching calculations", len(known), wanted=progress and bool(parts)) as advance:
        for name in known:
            remove_temporary(out / name)
            for part, get_part in parts.items():
                if not any((out / name / f"{part}.{kind}").is_file() for kind in ("npz", "absent")):
                    _fetch_part(client, out / name, part, get_part)
            advance(1)
    client.report(len(known))
    return len(known)


def _list(query: Query, out: Path, client: Client) -> list[str]:
    """The ids that a query stands for; remembered, so that a rerun does not depend on a database that grew."""
    if query.ids:
        return list(dict.fromkeys(_checked(name) for name in query.ids))
    path = out / LISTS / f"{hashlib.sha256(query.model_dump_json().encode()).hexdigest()[:16]}.json"
    if path.is_file():
        try:
            return [_checked(name) for name in files.read_json(path)["ids"]]
        except (LabelError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): remove it, and the search is made anew.") from error
    found = client.search(
        fields=["material_id"], deprecated=False, include_gnome=query.include_gnome, **query.filters()
    )
    ids = sorted({_checked(str(files.get(document, "material_id"))) for document in found})
    if not ids:
        raise UserError("The Materials Project has nothing that passes all filters: loosen them.")
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, {"query": query.model_dump(), "database_version": client.database, "ids": ids, **_now()})
    return ids


def _checked(name: Any) -> str:
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise UserError(f"{str(name)[:40]!r} is not an id of the Materials Project, which looks like mp-149.")
    return name


def _now() -> dict[str, str]:
    return {"created": datetime.now(UTC).replace(microsecond=0).isoformat()}


def _fetch_materials(batch: tuple[str, ...], out: Path, client: Client) -> set[str]:
    """Store the summaries of some materials; returns the ids that the Materials Project knows."""
    found = set()
    for document in client.search(material_ids=list(batch), fields=FIELDS):
        name = str(files.get(document, "material_id"))
        if name in batch:
            (out / name).mkdir(exist_ok=True)
            client.attempt(name, partial(files.write_material, out / name, document, client.database))
            found.add(name)
    return found


def _fetch_part(client: Client, folder: Path, part: str, get_part: Callable[[Client, str, Path], None]) -> None:
    try:
        client.attempt(folder.name, lambda: get_part(client, folder.name, folder))
    except Absent as absent:
        files.write_json(folder / f"{part}.absent", {"why": str(absent), **_now()})


def _fetch_dos(client: Client, name: str, folder: Path) -> None:
    found = client.ask(lambda rester: rester.get_dos_by_material_id(name, load_projections=True))
    if found is None:
        raise Absent("the Materials Project has no DOS of it")
    files.write_dos(folder, found)


def _fetch_density(client: Client, name: str, folder: Path) -> None:
    found = client.ask(lambda rester: rester.get_charge_density_from_material_id(name, inc_task_doc=True))
    density, task = found if isinstance(found, tuple) else (found, None)
    if density is None:
        raise Absent("the Materials Project has no charge density of it")
    files.write_density(folder, density, task)


# -- a downloaded material --------------------------------------------------------------------------------------------


def calculation(folder: Path, settings: LabelSettings) -> Calculation:
    """Turn a downloaded material into the record that all sources share.

    The cell is that of the projected DOS where there is one, else that of the charge density, else the summary's.

    Args:
        folder: `<downloads>/<id>`.
        settings: For the checks of charges.

    Returns:
        The calculation; a part that cannot be used is left out, with a finding.

    Raises:
        LabelError: If the summary, the DOS or the density is damaged, or the summary has no usable structure.
    """
    structure, properties, fields = files.read_material(folder)
    record = {"source": "Materials Project", "database_version": fields.get("database_version")}
    result = Calculation(folder.name, str(folder), structure, properties=properties, record=record)
    if (folder / files.DOS).is_file():
        _add_dos(result, folder)
    if (folder / files.DENSITY).is_file():
        _add_charges(result, folder, settings)
    return result


def _add_dos(result: Calculation, folder: Path) -> None:
    dos, structure, result.inputs[files.DOS] = files.read_dos(folder)
    if structure is None:
        sentence = "the DOS comes without its cell, so that it cannot be given per atom"
        result.findings.append(Finding("total_dos", "other_structure", sentence, refused=True))
        return
    _require_same_formula(structure, result.structure, files.DOS)
    result.structure = structure
    task = files.read_json(folder / files.TASK) if (folder / files.TASK).is_file() else {}
    try:
        result.findings += check_electrons(dos, structure, [str(name) for name in task.get("potcar") or ()])
    except LabelError as error:
        result.findings += [Finding(part, error.reason, error.sentence, True) for part in ("total_dos", "atomic_dos")]
        return
    result.dos = dos


def _add_charges(result: Calculation, folder: Path, settings: LabelSettings) -> None:
    density, structure, task, result.inputs[files.DENSITY] = files.read_density(folder)
    _require_same_formula(structure, result.structure, files.DENSITY)
    result.record |= {key: task.get(key) for key in ("task_id", "run_type", "vasp", "potcar")}
    result.record[KEY] = of_run_type(task.get("run_type")).record()
    if result.dos is None:
        result.structure = structure
    sentence = "the Materials Project has the valence density only, which may have maxima at bonds"
    result.findings.append(Finding("bader", "no_core_density", sentence))
    try:
        if not _same_cell(structure, result.structure):
            raise LabelError("other_structure", "the charge density and the DOS are of other cells or site orders")
        valence = _valence(result, float(density.mean()), task, settings)
        charges, findings = bader.partition(result.structure, density, None, valence, settings.bader)
    except LabelError as error:
        result.findings.append(Finding("bader", error.reason, error.sentence, refused=True))
        return
    result.bader_charge = charges
    result.findings += findings
    result.record["bader"] = {
        "method": settings.bader.method,
        "charge": files.DENSITY,
        "reference": files.DENSITY,
        "grid": list(density.shape),
        "electrons": round(float(density.mean()), 5),
        "valence": sorted({(s.specie.symbol, float(v)) for s, v in zip(result.structure, valence, strict=True)}),
    }


def _valence(
    result: Calculation, electrons: float, task: dict[str, Any], settings: LabelSettings
) -> NDArray[np.float64]:
    """(n_sites,) valence electrons: by the settings, by the names of the potentials, or the only choice that fits."""
    symbols = [site.specie.symbol for site in result.structure]
    known, potcars = dict(settings.bader.valence), [str(name) for name in task.get("potcar") or ()]
    if not set(symbols) <= set(known) and potcars:
        return files.valence_electrons(result.structure, potcars)
    if not set(symbols) <= set(known):
        known |= vasp_valence.guess(result.structure, electrons, settings.bader.neutrality_tolerance, known)
        told = ", ".join(f"{symbol} {known[symbol]:g}" for symbol in dict.fromkeys(symbols))
        sentence = f"the task names no potentials; the only valence that fits the density is taken: {told}"
        result.findings.append(Finding("bader", "valence_guessed", sentence))
    return np.array([known[symbol] for symbol in symbols])


def _require_same_formula(structure: Structure, other: Structure, name: str) -> None:
    ours, theirs = structure.composition.reduced_formula, other.composition.reduced_formula
    if ours != theirs:
        raise LabelError("other_structure", f"{name} is of {ours}, but {files.MATERIAL} of {theirs}")


def _same_cell(structure: Structure, other: Structure) -> bool:
    """Whether two cells have the same vectors and the same species at the same places, in the same order."""
    if structure.species != other.species:
        return False
    delta = structure.frac_coords - other.frac_coords
    shift = (delta - np.round(delta)) @ structure.lattice.matrix
    vectors = structure.lattice.matrix - other.lattice.matrix
    return bool(max(np.linalg.norm(shift, axis=1).max(), np.linalg.norm(vectors, axis=1).max()) < SAME_CELL)
