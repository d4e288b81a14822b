"""Files of one downloaded material: written from what the Materials Project's client gives, read back without trust.

The layout is that of `mattergen_e.labels.materials_project.source`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.fields import read_property, read_structure
from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import brief
from mattergen_e.files import replacing
from mattergen_e.labels.arrays import make_structure, read_arrays
from mattergen_e.labels.vasp.valence import potentials
from mattergen_e.spectra.raw import RawDos

if TYPE_CHECKING:
    from pymatgen.core import Structure

MATERIAL, DOS, DENSITY, TASK = "material.json", "dos.npz", "charge_density.npz", "charge_density.json"
PROPERTIES = {
    "dft_band_gap": "band_gap",
    "formation_energy_per_atom": "formation_energy_per_atom",
    "energy_above_hull": "energy_above_hull",
}
MAX_JSON = 64 << 20


def get(document: Any, name: str) -> Any:
    """A field of a document, which may be a model or a dictionary; None where it has none."""
    return document.get(name) if isinstance(document, dict) else getattr(document, name, None)


# -- writing ----------------------------------------------------------------------------------------------------------


def write_json(path: Path, content: Any) -> None:
    """Write a file that is whole at every moment."""
    with replacing(path) as target:
        target.write(json.dumps(content, indent=1, default=str).encode() + b"\n")


def write_material(folder: Path, document: Any, database: str | None) -> None:
    """Write the summary of a material.

    Args:
        folder: Of the material.
        document: Summary document with structure, band_gap, formation_energy_per_atom, energy_above_hull.
        database: Version of the database.

    Raises:
        ValueError: If it has no structure.
    """
    structure = get(document, "structure")
    if structure is None:
        raise ValueError("the summary has no structure")
    content = {"material_id": str(get(document, "material_id")), "database_version": database}
    content |= {key: get(document, key) for key in PROPERTIES.values()}
    write_json(folder / MATERIAL, content | {"structure": _dictionary(structure)})


def _dictionary(structure: Any) -> dict[str, Any]:
    return structure if isinstance(structure, dict) else structure.as_dict()


def write_dos(folder: Path, dos: Any) -> None:
    """Write a density of states.

    Args:
        folder: Of the material.
        dos: pymatgen's Dos, or CompleteDos with projections and its own cell.
    """
    spins = sorted(dos.densities, key=int, reverse=True)  # up is 1, down -1
    content: dict[str, Any] = {
        "energies": np.asarray(dos.energies, dtype=np.float64),
        "efermi": np.float64(dos.efermi),
        "densities": np.array([dos.densities[spin] for spin in spins], dtype=np.float64),
    }
    structure, projections = getattr(dos, "structure", None), getattr(dos, "pdos", None)
    if structure is not None:
        content |= _cell_arrays(structure)
    if structure is not None and projections:
        orbitals = sorted({orbital for site in structure for orbital in projections[site]}, key=lambda o: o.value)
        pdos = np.zeros((len(structure), len(orbitals), len(spins), len(content["energies"])))
        for i, site in enumerate(structure):
            for orbital, densities in projections[site].items():
                pdos[i, orbitals.index(orbital)] = [densities[spin] for spin in spins]
        content |= {"pdos": pdos, "orbitals": np.array([str(orbital) for orbital in orbitals])}
    with replacing(folder / DOS) as target:
        np.savez_compressed(target, **content)


def write_density(folder: Path, density: Any, task: Any) -> None:
    """Write a charge density.

    Args:
        folder: Of the material.
        density: pymatgen's Chgcar: the valence density times the volume of the cell, e.
        task: Document of the calculation behind it, where known.
    """
    content = {"total": np.asarray(density.data["total"], dtype=np.float64), **_cell_arrays(density.structure)}
    if "diff" in density.data:
        content["difference"] = np.asarray(density.data["diff"], dtype=np.float64)
    inputs = [given for name in ("input", "orig_inputs") if (given := get(task, name)) is not None]
    record = {"task_id": get(task, "task_id"), "run_type": get(task, "run_type"), "vasp": get(task, "vasp_version")}
    symbols = next((found for given in inputs if (found := _potcars(given))), None)
    write_json(folder / TASK, {key: None if v is None else str(v) for key, v in record.items()} | {"potcar": symbols})
    with replacing(folder / DENSITY) as target:
        np.savez_compressed(target, **content)


def _potcars(inputs: Any) -> list[str] | None:
    """Names of the POTCARs, e.g. Na_pv, from their titles, e.g. PAW_PBE Na_pv 19Sep2006, or from the list of names."""
    titles = [str(get(spec, "titel") or "").split() for spec in get(inputs, "potcar_spec") or ()]
    if titles and all(len(words) > 1 for words in titles):
        return [words[1] for words in titles]
    return [str(symbol) for symbol in get(inputs, "potcar") or ()] or None


def _cell_arrays(structure: Structure) -> dict[str, NDArray[Any]]:
    numbers = np.array([site.specie.Z for site in structure], dtype=np.int64)
    return {"cell": structure.lattice.matrix, "numbers": numbers, "frac": structure.frac_coords}


# -- reading ----------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        LabelError: With reason missing_file, unreadable_file or damaged_file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON + 1)
        fields = json.loads(content) if len(content) <= MAX_JSON else None
    except FileNotFoundError as error:
        raise LabelError("missing_file", f"{path.name} does not exist: fetch the material again") from error
    except OSError as error:
        raise LabelError("unreadable_file", f"{path.name} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise LabelError("damaged_file", f"{path.name} is not JSON ({error}): fetch the material again") from error
    if not isinstance(fields, dict):
        raise LabelError("damaged_file", f"{path.name} is no JSON object, or too large: fetch the material again")
    return fields


def read_material(folder: Path) -> tuple[Structure, dict[str, float], dict[str, Any]]:
    """Structure, properties by MatterGen's name, and the whole summary of a material.

    Raises:
        LabelError: With the reasons of `read_json`, or bad_structure.
    """
    fields = read_json(folder / MATERIAL)
    try:
        structure, _ = read_structure(fields)
        values = {name: float(read_property(name, fields.get(key))) for name, key in PROPERTIES.items()}
    except Exception as error:
        raise LabelError("bad_structure", f"{MATERIAL} cannot be used ({brief(error)})") from error
    return structure, {name: value for name, value in values.items() if np.isfinite(value)}, fields


def read_dos(folder: Path) -> tuple[RawDos, Structure | None, str]:
    """Density of states, the cell that it was calculated for (None where it came without), and the file's SHA-256.

    Spins and orbitals are summed, and energies are relative to the Fermi energy.

    Raises:
        LabelError: With reason missing_file, unreadable_file, damaged_file, bad_structure, bad_dos or no_fermi_energy.
    """
    names = ("energies", "efermi", "densities", "pdos", "cell", "numbers", "frac")
    arrays, digest = read_arrays(folder / DOS, names)
    missing = [name for name in names[:3] if name not in arrays]
    if missing:
        reason = "no_fermi_energy" if missing == ["efermi"] else "damaged_file"
        raise LabelError(reason, f"{DOS} has no {missing[0]!r}: fetch the material again")
    fermi, energies, densities = arrays["efermi"], arrays["energies"], arrays["densities"]
    if fermi.size != 1 or not np.isfinite(fermi).all():
        raise LabelError("no_fermi_energy", "the Fermi energy is not one finite number")
    if energies.ndim != 1 or densities.ndim != 2 or densities.shape[1] != energies.size or len(densities) > 2:
        raise LabelError("bad_dos", f"the DOS has the shape {densities.shape} on energies of shape {energies.shape}")
    structure = _read_cell(arrays) if "cell" in arrays else None
    sites = arrays.get("pdos")
    if sites is not None:
        n_sites = 0 if structure is None else len(structure)
        if sites.ndim != 4 or (len(sites), *sites.shape[2:]) != (n_sites, *densities.shape):
            raise LabelError("bad_dos", f"the projections have the shape {sites.shape} for {n_sites} sites")
        sites = sites.sum(axis=(1, 2))
    return RawDos(energies - fermi.item(), densities.sum(axis=0), sites), structure, digest


def read_density(folder: Path) -> tuple[NDArray[np.float64], Structure, dict[str, Any], str]:
    """Valence density (grid) in e times the cell's volume, its cell, what is known of the task, and the SHA-256.

    Raises:
        LabelError: With reason missing_file, unreadable_file, damaged_file or bad_structure.
    """
    arrays, digest = read_arrays(folder / DENSITY, ("total", "cell", "numbers", "frac"))
    total = arrays.get("total")
    if total is None or total.ndim != 3 or not total.size or not np.isfinite(total).all():
        raise LabelError("damaged_file", f"{DENSITY} holds no density on a grid: fetch the material again")
    return total, _read_cell(arrays), read_json(folder / TASK), digest


def _read_cell(arrays: dict[str, NDArray[Any]]) -> Structure:
    missing = [name for name in ("cell", "numbers", "frac") if name not in arrays]
    if missing:
        raise LabelError("damaged_file", f"the array {missing[0]!r} is not there")
    return make_structure(arrays["cell"], arrays["numbers"], arrays["frac"])


def valence_electrons(structure: Structure, potcars: list[str]) -> NDArray[np.float64]:
    """Electrons of each site that VASP's PBE potentials treat, from pymatgen's table of potentials.

    Args:
        structure: The crystal.
        potcars: Names of the potentials, one per element, e.g. Na_pv.

    Returns:
        (n_sites,) electrons.

    Raises:
        LabelError: With reason no_valence, if a potential or its electrons are not known.
    """
    table = potentials()
    names = {name.split("_")[0]: name for name in potcars}
    electrons = {symbol: table.get(name, frozenset()) for symbol, name in names.items()}
    for symbol in dict.fromkeys(site.specie.symbol for site in structure):
        if len(electrons.get(symbol, ())) != 1:
            sentence = f"the valence of {symbol} (potential {names.get(symbol, 'unknown')}) is not known"
            raise LabelError("no_valence", f"{sentence}: give bader.valence, electrons by element")
    return np.array([next(iter(electrons[site.specie.symbol])) for site in structure], dtype=np.float64)
