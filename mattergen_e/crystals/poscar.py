"""Crystals of VASP's POSCAR, CONTCAR and XDATCAR: no element is guessed, and the counts hold."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pymatgen.core import DummySpecies, Structure
from pymatgen.io.vasp.inputs import Poscar

from mattergen_e.crystals.compressed import read_file

_BESIDE = ("POTCAR", "OUTCAR")
_ENDINGS = ("", ".gz", ".bz2", ".xz")
_TITLE = re.compile(r"VRHFIN\s*=\s*([A-Z][a-z]?)\s*:")
_FRAME = re.compile(r"\s*(?:Direct|Cartesian)\s+configuration\s*=", re.IGNORECASE)
_HEADER_LINES = 5
#: What pymatgen warns of though nothing is lost.
_HARMLESS = ("Ignoring selective dynamics", "Selective dynamics", "Elements in POSCAR would be overwritten")


def read_poscar(text: str, folder: Path) -> Structure:
    """The crystal of a POSCAR.

    Args:
        text: Of the file.
        folder: Where a POTCAR or OUTCAR tells the elements that a POSCAR of VASP 4 does not.

    Raises:
        ValueError: If it cannot be read, or its elements are not known: one sentence without the end.
    """
    lines = _one_scale(text.splitlines())
    symbols, counts, first = _counts(lines)
    _check_end(lines, first, sum(counts))
    names = None
    if not symbols and not _named_sites(lines, first, sum(counts)):
        names = _elements_beside(folder, len(counts))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        structure = Poscar.from_str(_without_isotopes(lines, symbols), names, read_velocities=False).structure
    for warning in caught:
        words = str(warning.message)
        if issubclass(warning.category, UserWarning) and not words.startswith(_HARMLESS):
            raise ValueError(" ".join(words.split())[:200])
    strange = next((site.specie.symbol for site in structure if isinstance(site.specie, DummySpecies)), None)
    if strange is not None:
        raise ValueError(f"it names {strange!r}, which is no element")
    if len(structure) != sum(counts):
        raise ValueError(f"its counts are of {sum(counts)} sites, but it holds {len(structure)}")
    return structure


def frames(text: str) -> Iterator[str]:
    """The frames of an XDATCAR, each as a POSCAR.

    Raises:
        ValueError: If it holds none, or a frame is cut off.
    """
    lines = text.splitlines()
    header: list[str] = []
    place, found = 0, False
    while place < len(lines):
        if not _FRAME.match(lines[place]):
            header.append(lines[place])
            place += 1
            continue
        n_sites = sum(_counts([*header, "Direct"])[1])
        stop = place + 1 + n_sites
        if stop > len(lines):
            raise ValueError(f"its last frame has {len(lines) - place - 1} of {n_sites} sites")
        found = True
        yield "\n".join([*header, lines[place].split()[0], *lines[place + 1 : stop]]) + "\n"
        place = stop
        while place < len(lines) and not lines[place].strip():
            place += 1
        if place < len(lines) and not _FRAME.match(lines[place]):
            header = []  # the cell changes from frame to frame
    if not found:
        raise ValueError("it holds no frame ('Direct configuration= ...')")


# -- what the lines say -----------------------------------------------------------------------------------------------


def _one_scale(lines: Sequence[str]) -> list[str]:
    """The lines with one factor of scale; VASP 6 takes one for each of x, y and z too.

    Raises:
        ValueError: If there are too few lines or the factors are no numbers.
    """
    if len(lines) < _HEADER_LINES + 2:
        raise ValueError(f"it has {len(lines)} lines, too few for a POSCAR")
    words = lines[1].split()
    if len(words) < 3 or not all(_is_number(word) for word in words[:3]):
        return list(lines)
    factors = [float(word) for word in words[:3]]
    if min(factors) <= 0:
        raise ValueError(f"its scaling factors are {lines[1].strip()[:40]!r}: three have to be positive")
    scaled = list(lines)
    scaled[1] = "1.0"
    for row in range(2, 5):
        scaled[row] = _scaled(lines[row], factors)
    _, counts, first = _counts(scaled)
    if lines[first - 1].strip()[:1] in "cCkK":
        for row in range(first, min(first + sum(counts), len(lines))):
            scaled[row] = _scaled(lines[row], factors)
    return scaled


def _scaled(line: str, factors: Sequence[float]) -> str:
    words = line.split()
    numbers = [repr(float(word) * factor) for word, factor in zip(words, factors, strict=False)]
    return " ".join([*numbers, *words[3:]])


def _counts(lines: Sequence[str]) -> tuple[list[str], list[int], int]:
    """Symbols (none of VASP 4), counts, and the line of the first site.

    Raises:
        ValueError: If these are not what VASP writes.
    """
    place = _HEADER_LINES
    symbols: list[str] = []
    while place < len(lines) and lines[place].split() and not lines[place].split()[0].isdecimal():
        symbols += lines[place].split()
        place += 1
    counts: list[int] = []
    while place < len(lines) and lines[place].split() and lines[place].split()[0].isdecimal():
        for word in lines[place].split():
            if not word.isdecimal():
                break
            counts.append(int(word))
        place += 1
    if not counts or sum(counts) == 0:
        raise ValueError("it has no counts of sites behind its cell")
    if symbols and len(symbols) != len(counts):
        raise ValueError(f"it names {len(symbols)} elements ({' '.join(symbols)[:40]}) but counts {len(counts)}")
    if place < len(lines) and lines[place].strip()[:1] in ("s", "S"):
        place += 1
    return symbols, counts, place + 1


def _check_end(lines: Sequence[str], first: int, n_sites: int) -> None:
    """Check that the sites end where the counts say."""
    if len(lines) < first + n_sites:
        raise ValueError(f"its counts are of {n_sites} sites, but {max(len(lines) - first, 0)} lines follow")
    after = lines[first + n_sites].split() if len(lines) > first + n_sites else []
    if len(after) >= 3 and all(_is_number(word) for word in after[:3]):
        raise ValueError(f"its counts are of {n_sites} sites, but more follow")


def _named_sites(lines: Sequence[str], first: int, n_sites: int) -> bool:
    """Whether each site has something behind its coordinates, which pymatgen takes for its element."""
    selective = lines[first - 2].strip()[:1] in ("s", "S")
    words = [line.split()[6 if selective else 3 :] for line in lines[first : first + n_sites]]
    return all(rest and re.fullmatch(r"[A-Z][a-z]?", rest[0]) for rest in words)


def _without_isotopes(lines: Sequence[str], symbols: Sequence[str]) -> str:
    """The text with deuterium and tritium as hydrogen."""
    changed = list(lines)
    if symbols:
        for place in range(_HEADER_LINES, len(lines)):
            words = lines[place].split()
            if not words or words[0].isdecimal():
                break
            changed[place] = " ".join("H" if word in ("D", "T") else word for word in words)
    return "\n".join(changed) + "\n"


def _elements_beside(folder: Path, n_elements: int) -> list[str]:
    """The elements of the POTCAR or OUTCAR beside a POSCAR."""
    for name in _BESIDE:
        for path in (folder / f"{name}{ending}" for ending in _ENDINGS):
            if not path.is_file():
                continue
            found = _TITLE.findall(read_file(path))
            if len(found) == n_elements:
                return found
            raise ValueError(
                f"it names no elements, and {path.name} beside it has {len(found)} of the {n_elements} that it counts"
            )
    raise ValueError(
        "it names no elements (VASP 4): write their symbols into its sixth line, above the counts, or put its POTCAR "
        "or OUTCAR beside it"
    )


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False
