"""What stands in a file of crystals: an entry is a crystal or the reason why there is none.

A broken entry costs itself only. Generated crystals are `gen_<index>` in each of the files that a generation leaves, as
MatterGen names its CIFs: labels, whichever file they were computed from, find their crystal by it.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import batched
from numbers import Integral
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile, ZipInfo

from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from mattergen_e.crystals import cif, poscar
from mattergen_e.crystals.compressed import as_text, read_bytes, read_file, unpacked_name
from mattergen_e.crystals.dictionary import plain_properties, read_dictionary
from mattergen_e.crystals.names import GENERATED, KINDS, generated_id, kind_of, natural_key, stem_of
from mattergen_e.errors import UserError, brief

MAX_MEMBER_BYTES = 20_000_000
MAX_WORDS = 400


@dataclass(frozen=True, eq=False)
class CrystalEntry:
    """One entry of a file: a crystal, or the reason why there is none.

    Attributes:
        file: The file.
        place: Where in the file it stands: a line, a frame or the member of a zip; empty if it is the whole file.
        id: Name that its results go by: what the file gives, else made of the file's name and the place.
        structure: The crystal; None if it cannot be read.
        reason: 'broken_cif' or 'broken_entry' if it cannot be read.
        problem: The same for people, as it follows the name of file and place.
        told: Whether the file itself gives the id.
        index: Number of a generated crystal, as the file tells it; may be negative.
        fields: What else a JSON line holds.
    """

    file: Path
    place: str
    id: str
    structure: Structure | None = None
    reason: Literal["broken_cif", "broken_entry"] | None = None
    problem: str = ""
    told: bool = False
    index: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def read_entries(path: Path, *, as_written: bool = False) -> Iterator[CrystalEntry]:
    """Entries of a file, in order.

    Args:
        path: CIF (all data blocks), zip of CIFs (in the order of their numbers), POSCAR, XDATCAR or extxyz (all
            frames), JSON lines, or JSON with one structure or a list; all but zips also packed (.gz, .bz2, .xz).
        as_written: Take sites of a CIF whose occupancies add up to more than one as they are.

    Yields:
        Crystals, or why they cannot be read. Behind a broken count of sites nothing of an extxyz can be read: the rest
        is one broken entry.

    Raises:
        UserError: If the file cannot be opened, is of an unknown kind, or is a zip that is damaged as a whole.
    """
    kind = kind_of(path)
    try:
        if kind == "json":
            yield from _json(path)
        elif kind == "extxyz":
            yield from _extxyz(path)
        elif kind == "zip":
            yield from _zip(path, as_written)
        elif kind == "cif":
            yield from _cif(CrystalEntry(path, "", stem_of(path)), read_file(path), as_written)
        elif kind is not None:
            yield from _vasp(path, several=kind == "xdatcar")
        else:
            raise UserError(f"{path} is of no known kind: use {KINDS}.")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def _tried(entry: CrystalEntry, make: Callable[[], CrystalEntry]) -> CrystalEntry:
    """The entry that `make` gives, or `entry` with why there is none: a damaged crystal may fail in any way."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except Exception as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0][:MAX_WORDS]
        reason = "broken_cif" if kind_of(entry.file) in ("cif", "zip") else "broken_entry"
        return replace(entry, reason=reason, problem=f"cannot be read: {words}")


# -- CIF and POSCAR ---------------------------------------------------------------------------------------------------


def _cif(entry: CrystalEntry, text: str, as_written: bool) -> Iterator[CrystalEntry]:
    """The crystals of a CIF; where there are several, each goes by the name of its block, or by its number."""
    try:
        found = cif.blocks(text)
    except ValueError as error:
        yield replace(entry, reason="broken_cif", problem=f"cannot be read: {error}")
        return
    names = [block.name for block in found]
    if len(set(names)) < len(names) or not all(name and name.isprintable() for name in names):
        names = [str(number) for number in range(len(found))]
    for block, name in zip(found, names, strict=True):
        own = entry
        if len(found) > 1:
            place = f"{entry.place}, block {name}" if entry.place else f"block {name}"
            own = replace(entry, place=place, id=f"{entry.id}_{name}", index=None)
        yield _tried(own, partial(_block, own, block, as_written))


def _block(entry: CrystalEntry, block: cif.Block, as_written: bool) -> CrystalEntry:
    return replace(entry, structure=cif.read_block(block, as_written=as_written))


def _vasp(path: Path, several: bool) -> Iterator[CrystalEntry]:
    entry = CrystalEntry(path, "", stem_of(path))
    text = read_file(path)
    try:
        texts = list(poscar.frames(text)) if several else [text]
    except ValueError as error:
        yield replace(entry, reason="broken_entry", problem=f"cannot be read: {error}")
        return
    for number, frame in enumerate(texts):
        own = replace(entry, place=f"frame {number}", id=f"{entry.id}_{number}") if len(texts) > 1 else entry
        yield _tried(own, partial(_poscar, own, frame))


def _poscar(entry: CrystalEntry, text: str) -> CrystalEntry:
    return replace(entry, structure=poscar.read_poscar(text, entry.file.parent))


def _zip(path: Path, as_written: bool) -> Iterator[CrystalEntry]:
    try:
        with ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.lower().endswith(".cif")]
            for member in sorted(members, key=lambda member: natural_key(member.filename)):
                yield from _member(path, archive, member, as_written)
    except BadZipFile as error:
        raise UserError(f"{path} is no zip file or is cut off ({error}): put back a copy of it.") from error


def _member(path: Path, archive: ZipFile, member: ZipInfo, as_written: bool) -> Iterator[CrystalEntry]:
    found = re.fullmatch(r"(?:.*/)?gen_(\d+)\.cif", member.filename)
    index = int(found[1]) if found else None
    entry = CrystalEntry(path, member.filename, Path(member.filename).stem, told=index is not None)
    if member.file_size > MAX_MEMBER_BYTES:
        words = f"it has {member.file_size} bytes, more than {MAX_MEMBER_BYTES}"
        yield replace(entry, reason="broken_cif", problem=f"cannot be read: {words}")
        return
    try:
        content = archive.read(member)
    except (BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error) as error:
        yield replace(entry, reason="broken_cif", problem=f"cannot be read: {brief(error)}")
        return
    yield from (
        replace(one, index=index) if one.structure is not None and one.id == entry.id else one
        for one in _cif(entry, as_text(content), as_written)
    )


# -- extxyz -----------------------------------------------------------------------------------------------------------


def _extxyz(path: Path) -> Iterator[CrystalEntry]:
    frames = list(_frames(read_file(path).splitlines()))
    stem = stem_of(path)
    for number, text in enumerate(frames):
        counted = generated_id(number) if stem == GENERATED else None
        name = counted or (stem if len(frames) == 1 else f"{stem}_{number}")
        entry = CrystalEntry(path, f"frame {number}", name, told=counted is not None)
        yield _tried(entry, partial(_frame, text, entry))


def _frames(lines: list[str]) -> Iterator[str]:
    """The text of each frame; the rest of the file as one behind a broken count of sites."""
    start = 0
    while start < len(lines):
        count = lines[start].strip()
        if not count:
            start += 1
            continue
        stop = start + 2 + int(count) if count.isdecimal() and len(count) < 13 else len(lines) + 1
        yield "\n".join(lines[start:stop]) + "\n"
        start = stop


def _frame(text: str, entry: CrystalEntry) -> CrystalEntry:
    import ase.io

    count, *rest = text.splitlines()
    if not count.strip().isdecimal() or len(count) > 13 or len(rest) < 1 + int(count):
        raise ValueError(f"{count.strip()[:50]!r} is not its number of sites")
    atoms: Any = ase.io.read(io.StringIO(_without_isotopes(count, rest)), format="extxyz")
    if not all(atoms.pbc):
        raise ValueError("a crystal needs three periodic directions; set pbc and Lattice")
    atoms.calc = None
    index = atoms.info.get("index")
    index = int(index) if isinstance(index, Integral) and not isinstance(index, bool) else None
    told = atoms.info.get("id", generated_id(index))
    atoms.info = plain_properties(atoms.info)
    structure = AseAtomsAdaptor.get_structure(atoms)
    return replace(
        entry,
        id=entry.id if told is None else str(told),
        told=entry.told or told is not None,
        structure=structure,
        index=index,
    )


def _without_isotopes(count: str, rest: Sequence[str]) -> str:
    """The text of a frame with deuterium and tritium, which ASE does not know, as hydrogen."""
    comment, *sites = rest
    given = re.search(r"Properties\s*=\s*[\"']?([^\s\"']+)", comment)
    columns = (given[1] if given else "species:S:1:pos:R:3").split(":")
    place = 0
    for name, _, width in batched(columns, 3):
        if name == "species":
            break
        place += int(width)
    found = [line.split() for line in sites]
    changed = [
        " ".join([*words[:place], "H", *words[place + 1 :]]) if words[place : place + 1] in (["D"], ["T"]) else line
        for words, line in zip(found, sites, strict=True)
    ]
    return "\n".join([count, comment, *changed]) + "\n"


# -- JSON lines -------------------------------------------------------------------------------------------------------


def _json(path: Path) -> Iterator[CrystalEntry]:
    content, stem = read_bytes(path), stem_of(path)
    items = _whole(content) if unpacked_name(path).lower().endswith(".json") else None
    if items is None:
        # a JSON string may hold what splitlines splits at
        lines = [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
        items = _documents(content) if len(lines) > 1 and not _is_json(lines[0][1]) else None
        if items is None:
            items = [(f"line {number}", number, partial(json.loads, line)) for number, line in lines]
    for place, number, load in items:
        entry = CrystalEntry(path, place, f"{stem}_{number}")
        yield _tried(entry, partial(_line, load, entry))


Item = tuple[str, int, Callable[[], Any]]


def _whole(content: bytes) -> list[Item] | None:
    """The crystals of a file that is one JSON value; None if it is not."""
    with suppress(ValueError, RecursionError):
        whole = json.loads(content)
        return _items(whole if isinstance(whole, list) else [whole], "line")
    return None


def _documents(content: bytes) -> list[Item] | None:
    """The crystals of JSON values over several lines each, as pretty printing makes them; None if it holds no such."""
    text, decoder, place = as_text(content), json.JSONDecoder(), 0
    found: list[Any] = []
    with suppress(ValueError, RecursionError):
        while place < len(text):
            value, place = decoder.raw_decode(text, place)
            found += value if isinstance(value, list) else [value]
            place = len(text) - len(text[place:].lstrip())
        return _items(found, "entry")
    return None


def _items(values: Iterable[Any], kind: str) -> list[Item]:
    return [(f"{kind} {number}", number, partial(_same, value)) for number, value in enumerate(values, start=1)]


def _same(value: Any) -> Any:
    return value


def _is_json(line: bytes) -> bool:
    with suppress(ValueError, RecursionError):
        json.loads(line)
        return True
    return False


def _line(load: Callable[[], Any], entry: CrystalEntry) -> CrystalEntry:
    try:
        fields = load()
        structure = read_dictionary(fields.get("structure", fields))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'expected {{"id": ..., "structure": pymatgen dictionary}} ({brief(error)})') from error
    given = fields.get("id", fields.get("material_id"))
    index = fields.get("index")
    name = generated_id(index) if given is None else str(given)
    return replace(
        entry,
        id=entry.id if name is None else name,
        told=name is not None,
        structure=structure,
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        fields={key: value for key, value in fields.items() if key not in ("structure", "lattice", "sites")},
    )
