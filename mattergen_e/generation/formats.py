"""The forms in which generated crystals are written, and joining the forms of many batches without parsing them.

A crystal is turned into text once, when its batch is finished. Joining copies bytes only; for the zip of CIFs it copies
the compressed members as they are and writes a new directory.
"""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict, write_xyz
from mattergen.common.globals import GENERATED_CRYSTALS_EXTXYZ_FILE_NAME, GENERATED_CRYSTALS_ZIP_FILE_NAME
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from mattergen_e.crystals.dictionary import read_dictionary
from mattergen_e.descriptors.artefact import Artefact
from mattergen_e.errors import UserError
from mattergen_e.files import add_array
from mattergen_e.limits import open_npz, read_bytes
from mattergen_e.spectra.files import DOS_NAME, dos_file, keys, read_dos
from mattergen_e.spectra.objects import CrystalSpectra

EXTXYZ_NAME = GENERATED_CRYSTALS_EXTXYZ_FILE_NAME
CIF_ZIP_NAME = GENERATED_CRYSTALS_ZIP_FILE_NAME
JSONL_NAME = "generated_crystals.jsonl"
OUTPUT_NAMES = (EXTXYZ_NAME, CIF_ZIP_NAME, JSONL_NAME)
#: CIFs of conventional cells with their space groups; where there are crystals.
SYMMETRIZED_NAME = "generated_crystals_symmetrized_cif.zip"
#: Tolerance (Å) within which sites count as related by symmetry; what MatterGen takes for its own space groups.
SYMPREC = 0.1

#: Names of arrays that belong to one crystal.
_OF_ONE = re.compile(r".*_\d+")

# Names that ASE takes for something of its own; such site properties and conditions get a prefix.
_PYMATGEN_AS_ASE = {"magmom": "initial_magmoms", "charge": "initial_charges"}
_TAKEN_COLUMNS = {
    *all_properties, *_PYMATGEN_AS_ASE.values(), "positions", "numbers", "symbols", "species", "pos", "Z", "mass",
    "masses", "tags", "momenta", "move_mask", "final_magmom", "final_charge", "oxi_states", "selective_dynamics",
    *_PYMATGEN_AS_ASE,
}  # fmt: skip
_TAKEN_INFO = {*all_properties, "index", "Lattice", "Properties", "pbc", "virial", "uid", "spacegroup"}
_TAKEN_CIF = {
    "label", "type_symbol", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy", "calc_flag",
    "attached_hydrogens", "moment_label",
}  # fmt: skip


@dataclass(frozen=True)
class Generated:
    """One generated crystal.

    Attributes:
        index: Running number over the whole run, from 0; the same after a resume.
        batch: Number of the batch that it belongs to, from 0.
        structure: The crystal, lengths in Å; its site properties hold the descriptors of sites: a number per site, or a
            list of numbers per site, in the unit of the descriptor.
        conditions: Values that the crystal was asked to have, by MatterGen's name; empty if none.
        seed: Seed of the run.
        redraws: How often a degenerate draw of this crystal was replaced.
        spectra: Of its sites, where the model generates spectra.
        values: Of the crystal, by column: a number or a list of numbers.
        artefacts: Its arrays by descriptor.
    """

    index: int
    batch: int
    structure: Structure
    conditions: dict[str, Any]
    seed: int
    redraws: int = 0
    spectra: CrystalSpectra | None = None
    values: dict[str, float | list[float]] = field(default_factory=dict)
    artefacts: dict[str, Artefact] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """A value made of what JSON knows: numpy and torch values become numbers and lists, the rest text.

    A number that is not finite becomes text too, because JSON has no word for it.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if not isinstance(value, str) and hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Path):
        return [plain(item) for item in value]
    return str(value)


def site_values(structure: Structure) -> dict[str, np.ndarray]:
    """Site properties as arrays of float, shape (n_sites,) or (n_sites, dim).

    Raises:
        ValueError: If a property is not one finite number, or the same number of finite numbers, per site.
    """
    arrays = {}
    # pymatgen's own `site_properties` comes in an order that changes from process to process
    for name in dict.fromkeys(name for site in structure for name in site.properties):
        array = np.array([site.properties.get(name) for site in structure], dtype=float)
        if array.ndim not in (1, 2) or not np.isfinite(array).all():
            raise ValueError(f"site property '{name}' must be finite and have one row per site; shape {array.shape}")
        arrays[name] = array
    return arrays


# -- one batch --------------------------------------------------------------------------------------------------------


def batch_files(crystals: list[Generated]) -> dict[str, bytes]:
    """The content of the files for the crystals of one batch, by file name.

    `OUTPUT_NAMES` are always there, symmetrised CIFs where there are crystals, npz files where there are spectra or
    artefacts.

    Raises:
        ValueError: If a number of a crystal is not finite.
    """
    spectra = [(crystal.index, crystal.spectra) for crystal in crystals if crystal.spectra is not None]
    if not all(np.isfinite(item.spectra).all() and np.isfinite(item.latents).all() for _, item in spectra):
        raise ValueError("spectra must be finite")
    for crystal in crystals:
        for name, value in crystal.values.items():
            if not np.isfinite(np.array(value, dtype=float)).all():
                raise ValueError(f"value '{name}' of the crystal must be finite")
    values = [site_values(crystal.structure) for crystal in crystals]
    with warnings.catch_warnings():
        # pymatgen sorts a formula by electronegativity, and warns of each noble gas
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        return {
            EXTXYZ_NAME: "".join(map(_extxyz, crystals, values)).encode(),
            CIF_ZIP_NAME: _cif_zip(crystals, map(_cif, crystals, values)),
            JSONL_NAME: "".join(map(_json_line, crystals, values)).encode(),
            **({SYMMETRIZED_NAME: _cif_zip(crystals, map(_symmetrized, crystals))} if crystals else {}),
            **({DOS_NAME: dos_file(spectra)} if spectra else {}),
            **_artefact_files(crystals),
        }


def _artefact_files(crystals: list[Generated]) -> dict[str, bytes]:
    """The npz files of artefacts: in each, what all crystals share once, and the arrays `<array>_<index>` of each."""
    buffers: dict[str, io.BytesIO] = {}
    for crystal in crystals:
        for artefact in crystal.artefacts.values():
            arrays = {f"{name}_{crystal.index}": array for name, array in artefact.arrays.items()}
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError(f"arrays of {artefact.file} must be finite")
            buffer = buffers.setdefault(artefact.file, io.BytesIO())
            with ZipFile(buffer, "a") as archive:
                for name, array in {**artefact.shared, **arrays}.items():
                    if f"{name}.npy" not in archive.NameToInfo:
                        add_array(archive, name, array)
    return {name: buffer.getvalue() for name, buffer in buffers.items()}


def _extxyz(crystal: Generated, values: dict[str, np.ndarray]) -> str:
    """One frame: a column for every site property, what the crystal has beside them as `info`; positions in Å."""
    structure = crystal.structure
    atoms = Atoms(
        symbols=[site.specie.symbol for site in structure],
        positions=structure.cart_coords,
        cell=structure.lattice.matrix,
        pbc=True,
        info={
            "index": crystal.index,
            **_info(plain(crystal.conditions), "condition_", {}),
            **_info(plain(crystal.values), "generated_", crystal.conditions),
        },
    )
    for name, array in values.items():
        column = _PYMATGEN_AS_ASE.get(name, name) if array.ndim == 1 else name
        atoms.set_array(f"site_{name}" if column == name and name in _TAKEN_COLUMNS else column, array)
    buffer = io.StringIO()
    write_xyz(buffer, [atoms], write_results=False)
    return buffer.getvalue()


def _info(values: dict[str, Any], prefix: str, taken: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions or values of a crystal such that ASE reads back what was written; with a prefix where names are taken.

    ASE would take the chemical system 'F' for False and '1' for a number; such values are written as JSON. What ASE
    cannot carry at all (a text with line breaks) stands in the JSON lines only.
    """
    info = {}
    for key, value in values.items():
        name = f"{prefix}{key}" if key in _TAKEN_INFO or key in taken else key
        for form in (value, "_JSON " + json.dumps(value, ensure_ascii=False)):
            if form is not None and _survives(name, form, value):
                info[name] = form
                break
    return info


def _survives(name: str, form: Any, value: Any) -> bool:
    text = key_val_dict_to_str({name: form})
    if not text.isprintable():
        return False
    try:
        return plain(key_val_str_to_dict(text)) == {name: value}
    except ValueError:
        return False


def _cif_zip(crystals: list[Generated], texts: Iterable[str]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for crystal, text in zip(crystals, texts, strict=True):
            entry = ZipInfo(f"gen_{crystal.index}.cif", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return buffer.getvalue()


def _symmetrized(crystal: Generated) -> str:
    """A CIF of the conventional cell with its space group; without descriptors, which need not have that symmetry.

    A structure that no symmetry is found of, such as one with coinciding sites, is written in P 1.
    """
    structure = crystal.structure
    bare = Structure(structure.lattice, structure.species, structure.frac_coords)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(CifWriter(bare, symprec=SYMPREC))
        except (ValueError, TypeError, IndexError):  # of spglib and pymatgen
            return str(CifWriter(bare))


def _cif(crystal: Generated, values: dict[str, np.ndarray]) -> str:
    """A CIF in P 1.

    A site property becomes a column, of several components one column each: `<name>_1`, `<name>_2` and so on. A value
    of the crystal becomes the data item `_mattergen_e_<name>`, several numbers a loop of their own.
    """
    columns: dict[str, list] = {}
    for name, array in values.items():
        parts = {name: array} if array.ndim == 1 else {f"{name}_{k + 1}": part for k, part in enumerate(array.T)}
        columns |= {f"site_{n}" if n in _TAKEN_CIF else n: part.tolist() for n, part in parts.items()}
    structure = crystal.structure
    bare = Structure(structure.lattice, structure.species, structure.frac_coords, site_properties=columns)
    text = str(CifWriter(bare, write_site_properties=bool(columns)))
    for name, value in crystal.values.items():
        if isinstance(value, list):
            text += "\n".join([f"loop_\n _mattergen_e_{name}", *(f"  {number}" for number in value), ""])
        else:
            text += f"_mattergen_e_{name}   {value}\n"
    return text


def _json_line(crystal: Generated, values: dict[str, np.ndarray]) -> str:
    structure = crystal.structure.as_dict()
    for i, site in enumerate(structure["sites"]):
        site["properties"] = {name: array[i].tolist() for name, array in values.items()}
    line = {
        "index": crystal.index,
        "batch": crystal.batch,
        "structure": structure,
        "conditions": plain(crystal.conditions),
        "seed": crystal.seed,
        "redraws": crystal.redraws,
    }
    if crystal.spectra is not None:
        line["dos"] = {"file": DOS_NAME, **keys(crystal.index)}
    if crystal.values:
        line["values"] = plain(crystal.values)
    if crystal.artefacts:
        line["arrays"] = {
            name: {"file": artefact.file, "keys": {key: f"{key}_{crystal.index}" for key in artefact.arrays}}
            for name, artefact in crystal.artefacts.items()
        }
    return json.dumps(line, allow_nan=False, default=plain) + "\n"


def parse_json_line(line: str | bytes) -> Generated:
    """The crystal that a line of the JSON lines holds, without spectra and artefacts, which stand in other files."""
    fields = json.loads(line)
    for elsewhere in ("dos", "arrays"):
        fields.pop(elsewhere, None)
    return Generated(**{**fields, "structure": read_dictionary(fields["structure"])})


def with_spectra(crystals: list[Generated], lines: Iterable[str | bytes], file: Path | bytes) -> list[Generated]:
    """Adds the spectra that lines refer to; the file is read only if one does.

    Args:
        crystals: As of `parse_json_line`.
        lines: The lines that they come from.
        file: generated_dos.npz or its content.

    Raises:
        UserError: If the file is missing or damaged.
    """
    having = [i for i, line in enumerate(lines) if "dos" in json.loads(line)]
    if not having:
        return crystals
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    found = dict(zip(having, read_dos(source, [crystals[i].index for i in having]), strict=True))
    return [replace(crystal, spectra=found.get(i)) for i, crystal in enumerate(crystals)]


def with_artefacts(
    crystals: list[Generated], lines: Iterable[str | bytes], find: Callable[[str], Path | bytes]
) -> list[Generated]:
    """Adds the artefacts that lines refer to.

    Args:
        crystals: As of `parse_json_line`.
        lines: The lines that they come from.
        find: Gives where a file is, or its content, by its name.

    Raises:
        UserError: If a file is missing or damaged.
    """
    entries = [json.loads(line).get("arrays", {}) for line in lines]
    files: dict[str, dict[str, np.ndarray]] = {}
    for name in {entry["file"] for of_line in entries for entry in of_line.values()}:
        if Path(name).name != name or not name.endswith(".npz"):
            raise UserError(f"{JSONL_NAME} names '{name}', which is no npz file beside it: generate the crystals anew.")
        found = find(name)
        try:
            with open_npz(io.BytesIO(found) if isinstance(found, bytes) else found) as arrays:
                files[name] = dict(arrays)
        except FileNotFoundError:
            raise UserError(f"{found} does not exist: give the whole output folder of a run.") from None
        except (ValueError, LookupError, EOFError, OSError, BadZipFile) as error:
            raise UserError(f"{name} is damaged ({error}): resume the run, which makes the file anew.") from None
    return [
        replace(crystal, artefacts={name: _artefact(entry, files) for name, entry in of_line.items()})
        for crystal, of_line in zip(crystals, entries, strict=True)
    ]


def _artefact(entry: dict[str, Any], files: dict[str, dict[str, np.ndarray]]) -> Artefact:
    content = files[entry["file"]]
    return Artefact(
        file=entry["file"],
        arrays={key: content[name] for key, name in entry["keys"].items()},
        shared={name: array for name, array in content.items() if not _OF_ONE.fullmatch(name)},
    )


def read_files(find: Callable[[str], Path | bytes], lines: str | None = None) -> list[Generated]:
    """The crystals that the files of `batch_files`, or those joined from them, hold.

    Args:
        find: Gives where a file is, or its content, by its name.
        lines: Name of the JSON lines, if it is not their own.

    Raises:
        FileNotFoundError: If the JSON lines are missing.
        ValueError, KeyError, TypeError: If they are not what this package writes.
        UserError: If a file that they refer to is missing or damaged.
    """
    found = find(lines or JSONL_NAME)
    content = (read_bytes(found) if isinstance(found, Path) else found).splitlines()
    crystals = [parse_json_line(line) for line in content]
    if any(b'"dos"' in line and "dos" in json.loads(line) for line in content):  # a site property may be named so
        crystals = with_spectra(crystals, content, find(DOS_NAME))
    return with_artefacts(crystals, content, find) if any(b'"arrays"' in line for line in content) else crystals


# -- many batches -----------------------------------------------------------------------------------------------------


def join(name: str, parts: Iterable[bytes], target: IO[bytes]) -> None:
    """Joins the files of several batches to one.

    Args:
        name: Of the files; those of .zip and .npz are zips.
        parts: Contents of the files in the order in which they shall stand.
        target: A new file, open for writing at its start.
    """
    if name.endswith((".zip", ".npz")):
        _join_zips(parts, target)
    else:
        target.writelines(parts)


def _join_zips(parts: Iterable[bytes], target: IO[bytes]) -> None:
    """A zip is its members, one after another, and a directory at the end with their offsets.

    Of members of the same name, the first is kept in the directory.
    """
    with ZipFile(target, "w") as joined:
        for part in parts:
            shift = target.tell()
            with ZipFile(io.BytesIO(part)) as archive:
                target.write(memoryview(part)[: archive.start_dir])
                for entry in archive.infolist():
                    if entry.filename in joined.NameToInfo:
                        continue
                    entry.header_offset += shift
                    joined.filelist.append(entry)
                    joined.NameToInfo[entry.filename] = entry
        joined.start_dir = target.tell()  # where closing writes the directory
