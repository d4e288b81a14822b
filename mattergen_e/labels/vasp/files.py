"""The files of VASP: which folders and files make a calculation, and what their bytes hold.

A name may carry the suffix that workflows give (vasprun.xml.relax2, CHGCAR.static) and that of a compression that monty
opens (.gz, .bz2, .xz, .lzma). The last step counts: a name without a suffix, then .static, then the highest .relax.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.findings import LabelError
from mattergen_e.limits import TEXT

if TYPE_CHECKING:
    from pymatgen.core import Structure

DENSITIES = ("CHGCAR", "CHG", "AECCAR0", "AECCAR2")
VALENCES = ("POTCAR", "OUTCAR")

MAX_POINTS = 10**9
POSITION_TOLERANCE = 0.01
LATTICE_TOLERANCE = 0.002

_NAME = re.compile(
    r"(vasprun\.xml|CHGCAR|CHG|AECCAR0|AECCAR2|POTCAR|OUTCAR)(\.static|\.relax\d{0,3})?(\.gz|\.bz2|\.xz|\.lzma|\.Z)?"
)


# -- finding ----------------------------------------------------------------------------------------------------------


def is_calculation(names: Iterable[str]) -> bool:
    """Whether files of these names make a calculation: vasprun.xml, CHGCAR, CHG or AECCAR0."""
    matches = (_NAME.fullmatch(name) for name in names)
    return any(match is not None and match[1] in ("vasprun.xml", "CHGCAR", "CHG", "AECCAR0") for match in matches)


def walk(
    root: Path,
    denied: Callable[[OSError], Any] | None = None,
    closed: Callable[[Path], bool] = lambda _: False,
) -> Iterator[tuple[Path, list[str]]]:
    """All folders below one, with the names of their files, sorted.

    Links are followed, each folder is visited once, and hidden ones (of a running `mattergen-e data compute`) are not.

    Args:
        root: Where to look; it counts itself.
        denied: Told of every folder that cannot be opened; the walk goes on.
        closed: Whether a folder is a whole of its own: it is yielded, and what lies below it is not looked at.

    Raises:
        OSError: If a folder cannot be opened and `denied` is None.
    """
    seen: set[str] = set()
    waiting = [Path(root)]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                names = sorted((entry.name, _is_folder(entry)) for entry in entries)
        except OSError as error:
            if denied is None:
                raise
            denied(error)
            continue
        yield folder, [name for name, is_folder in names if not is_folder]
        if not closed(folder):
            waiting += [folder / name for name, is_folder in reversed(names) if is_folder and not name.startswith(".")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def choose_files(folder: Path) -> dict[str, Path]:
    """The files of the last step of a calculation, by VASP's names.

    The last step is that of vasprun.xml, or of a density where there is no vasprun.xml. A density of another step is
    left alone; POTCAR and OUTCAR are taken of any step, for they only tell the valence. Uncompressed files come first.

    Raises:
        LabelError: With reason unreadable_file or missing_file.
    """
    with reading(folder):
        files = sorted(path for path in folder.iterdir() if not path.is_dir())
    steps: dict[int, dict[str, Path]] = {}
    for path in files:
        match = _NAME.fullmatch(path.name)
        if match is not None:
            steps.setdefault(_rank(match[2]), {}).setdefault(match[1], path)
    ranks = sorted(steps, reverse=True)
    main = [rank for rank in ranks if "vasprun.xml" in steps[rank]]
    main = main or [rank for rank in ranks if set(DENSITIES) & set(steps[rank])]
    if not main:
        raise LabelError("missing_file", f"{folder} holds neither vasprun.xml nor a density (CHGCAR, CHG, AECCAR0)")
    chosen = dict(steps[main[0]])
    for rank in ranks:
        for name in set(VALENCES) & set(steps[rank]):
            chosen.setdefault(name, steps[rank][name])
    return chosen


def _rank(suffix: str | None) -> int:
    if suffix is None:
        return 10_000
    return 5_000 if suffix == ".static" else int(suffix.removeprefix(".relax") or 0)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what may go wrong when a file is opened or unpacked into one sentence.

    Raises:
        LabelError: With reason missing_file or unreadable_file.
    """
    try:
        yield
    except FileNotFoundError:
        raise LabelError("missing_file", f"{path.name} is not there (a dangling link?)") from None
    except (OSError, EOFError, zlib.error, LZMAError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise LabelError("unreadable_file", f"{path.name} cannot be opened or unpacked ({text})") from None


def read_bytes(path: Path) -> bytes:
    """Content of a file, unpacked.

    Raises:
        LabelError: With reason missing_file, unreadable_file, or damaged_file if it is empty.
    """
    from monty.io import zopen

    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # monty on .Z, which it cannot unpack
        with zopen(path, "rb") as file:
            content = file.read(TEXT + 1)
    if len(content) > TEXT:
        raise LabelError("damaged_file", f"{path.name} unpacks to more than {TEXT >> 30} GiB, which is not read")
    if not content.strip():
        raise LabelError("damaged_file", f"{path.name} is empty")
    return content


def is_empty(path: Path) -> bool:
    """Whether a file has no content, packed or not; one that cannot be opened is not empty."""
    from monty.io import zopen

    try:
        with reading(path), zopen(path, "rb") as file:
            while block := file.read(1 << 16):
                if block.strip():
                    return False
    except LabelError:
        return False
    return True


def sha256(path: Path) -> str:
    """Hash of a file as it lies on the disk."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- densities --------------------------------------------------------------------------------------------------------


@dataclass
class Density:
    """A density on VASP's grid.

    Attributes:
        name: Name of the file.
        structure: Cell of its header, which gives six digits.
        values: (nx, ny, nz) density times volume, in electrons: the mean is the number of electrons of the cell.
        named: Whether the header names the elements (VASP 4 wrote no names).
    """

    name: str
    structure: Structure
    values: NDArray[np.float64]
    named: bool = True


def read_density(path: Path) -> Density:
    """CHGCAR, CHG or AECCAR: the total density; the magnetisation is counted and left out.

    pymatgen's reader of numbers is used, in a loop that counts everything: pymatgen's own drops what is too many.

    Raises:
        LabelError: With reason missing_file, unreadable_file, damaged_file or not_collinear.
    """
    content = read_bytes(path)
    if content[-1:] not in b"\n\r ":
        raise LabelError("damaged_file", f"{path.name} is cut off in the middle of a line")
    file = io.BytesIO(content)
    structure, named = _header(file, path.name)
    total: NDArray[np.float64] | None = None
    count, dims = 0, b""
    while line := _next_line(file):
        if total is None:
            dims = line
            total = _numbers(file, _shape(line, path.name), path.name)
        elif line.split() == dims.split():
            _numbers(file, total.shape, path.name)
        else:
            raise LabelError("damaged_file", f"{path.name} goes on after its grid with {line[:40]!r}")
        count += 1
        _skip_augmentation(file, len(structure), path.name)
    if total is None:
        raise LabelError("damaged_file", f"{path.name} ends before its grid")
    if count == 4:
        raise LabelError("not_collinear", f"{path.name} holds a magnetisation with three components (non-collinear)")
    if count > 2:
        raise LabelError("damaged_file", f"{path.name} holds {count} grids, expected 1 or 2")
    return Density(path.name, structure, np.ascontiguousarray(total), named)


def _header(file: io.BytesIO, name: str) -> tuple[Structure, bool]:
    from pymatgen.io.vasp.inputs import Poscar

    lines: list[bytes] = []
    while (line := file.readline()) and (line.strip() or not lines):
        lines.append(line.strip())
    try:
        poscar = Poscar.from_str(one_scale(b"\n".join(lines).decode()))
        structure, named = poscar.structure, bool(poscar.true_names)
        usable = len(structure) > 0 and bool(np.isfinite(structure.frac_coords).all()) and structure.volume > 1e-3
    except Exception as error:  # pymatgen raises whatever the first odd character leads to
        raise LabelError("damaged_file", f"the header of {name} is no structure ({error})") from None
    if not usable:
        raise LabelError("damaged_file", f"the header of {name} is no structure")
    return structure, named


def one_scale(text: str) -> str:
    """A POSCAR whose three scaling factors, which VASP 6 takes, are multiplied into its vectors; others as they are.

    The factors stretch the cartesian components x, y and z of the lattice vectors and of cartesian positions.
    """
    lines = text.splitlines()
    factors = lines[1].split() if len(lines) > 4 else []
    if len(factors) != 3:
        return text
    scale = np.array([float(factor) for factor in factors])
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("three scaling factors have to be greater than zero")
    lines[1] = "1.0"
    kind = next((i for i, line in enumerate(lines) if i > 5 and line.strip()[:1] in tuple("CcKk")), None)
    counts = next(
        (line.split() for line in lines[5:7] if line.split() and all(word.isdigit() for word in line.split())), []
    )
    cartesian = range(0) if kind is None else range(kind + 1, min(kind + 1 + sum(map(int, counts)), len(lines)))
    for i in (2, 3, 4, *cartesian):
        words = lines[i].split()
        lines[i] = " ".join(
            [*(f"{float(word) * one:.16g}" for word, one in zip(words[:3], scale, strict=True)), *words[3:]]
        )
    return "\n".join(lines)


def _next_line(file: io.BytesIO) -> bytes:
    """The next line that is not blank, or nothing at the end."""
    while line := file.readline():
        if line.strip():
            return line.strip()
    return b""


def _shape(line: bytes, name: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(word) for word in line.split())
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1 or int(np.prod(shape)) > MAX_POINTS:
        raise LabelError("damaged_file", f"{name} has no size of the grid after its header: {line[:40]!r}")
    return shape


def _numbers(file: io.BytesIO, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """The next numbers of a file, in Fortran's order."""
    from pymatgen.optimization.fast_parser import parse_n_doubles

    expected = int(np.prod(shape))
    if expected > 2 * (file.getbuffer().nbytes - file.tell()):
        raise LabelError("damaged_file", f"{name} is too short for its {expected} values")
    values = np.empty(expected)
    found = parse_n_doubles(file, values, expected)
    if found != expected:
        raise LabelError("damaged_file", f"{name} is cut off or garbled: {found} of {expected} values")
    if file.readline().strip():
        raise LabelError("damaged_file", f"{name} is garbled: more values on a line than belong there")
    if not np.isfinite(values).all():
        raise LabelError("damaged_file", f"{name} holds values that are no finite numbers")
    return values.reshape(shape, order="F")


def _skip_augmentation(file: io.BytesIO, n_sites: int, name: str) -> None:
    """Go past the augmentation occupancies and the moments of the sites, counting both."""
    blocks = moments = 0
    while True:
        place = file.tell()
        line = _next_line(file)
        if line.startswith(b"augmentation occupancies"):
            try:
                size = int(line.split()[-1])
            except ValueError:
                size = -1
            if not 0 <= size <= 10**6:
                raise LabelError("damaged_file", f"{name} is garbled: {line[:60]!r}")
            _numbers(file, (size,), name)
            blocks += b"imaginary" not in line
        elif b"." in line:
            moments += len(line.split())
            if moments > n_sites:
                raise LabelError("damaged_file", f"{name} holds more values than its grid has points")
        else:
            file.seek(place)
            break
    if blocks not in (0, n_sites):
        raise LabelError("damaged_file", f"{name} is cut off: augmentation occupancies of {blocks} of {n_sites} sites")


def check_same(first: Structure, second: Structure, name: str, *, named: bool = True) -> None:
    """Check that two files hold the same sites in the same order.

    Args:
        first: Structure of the calculation.
        second: Structure of the other file.
        name: Name of the other file.
        named: Whether the other file names the elements.

    Raises:
        LabelError: With reason other_structure.
    """
    if len(first) != len(second):
        sentence = f"{name} has {len(second)} sites, the calculation {len(first)}: it belongs to another crystal"
        raise LabelError("other_structure", sentence)
    if np.abs(first.lattice.matrix - second.lattice.matrix).max() > LATTICE_TOLERANCE:
        raise LabelError("other_structure", f"{name} has another cell than the calculation")
    symbols = [[site.specie.symbol for site in structure] for structure in (first, second)]
    site = next((i for i, (a, b) in enumerate(zip(*symbols, strict=True)) if a != b), None)
    if named and site is not None:
        sentence = f"site {site} is {symbols[1][site]} in {name} and {symbols[0][site]} in the calculation"
        raise LabelError("other_structure", sentence)
    delta = first.frac_coords - second.frac_coords
    distance = np.linalg.norm((delta - np.round(delta)) @ first.lattice.matrix, axis=1)
    worst = int(np.argmax(distance))
    if not distance[worst] <= POSITION_TOLERANCE:
        sentence = f"site {worst} of {name} is {distance[worst]:.3g} Å from that of the calculation"
        raise LabelError("other_structure", sentence)
