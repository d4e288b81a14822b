"""How far crystals are from the nearest crystal of a reference (mattergen-e, section 4.4; Negishi et al.).

Composition: Euclidean distance of Magpie fingerprints (Ward et al. 2016, 132 features). Structure: Chebyshev distance
of average minimum distances (AMD, Widdowson et al. 2022), in Å. Both are xtalmet's, from the same calls of matminer and
average-minimum-distance that it makes, and the tests compare them; xtalmet itself loads MACE when it is imported, which
takes every worker seconds and a gigabyte. xtalmet scales distances d to d / (1 + d) unless told not to: here they are
not scaled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import batched
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mattergen_e.crystals.cells import NOT_ELEMENTS, Composition, physical_cell, reduced_counts
from mattergen_e.errors import UserError
from mattergen_e.parallel import in_parallel

if TYPE_CHECKING:
    from pymatgen.core import Structure

Metric = Literal["euclidean", "chebyshev"]

MAGPIE_FEATURES = 132
AMD_NEIGHBOURS = 100
"""xtalmet's default."""

CHUNK = 256
BLOCK_BYTES = 64 * 2**20
"""Largest piece of a distance matrix that is held at a time."""


def magpie(
    structures: Iterable[Structure | None],
    *,
    reasons: dict[int, str] | None = None,
    jobs: int | None = 1,
    backend: str = "loky",
) -> NDArray[np.float64]:
    """Magpie fingerprints; a composition that occurs often is computed once.

    Args:
        structures: Crystals; None for one that cannot be read.
        reasons: Gets, by position, why a crystal has none.
        jobs: Workers, as in `in_parallel`.
        backend: Of joblib, likewise.

    Returns:
        (n, 132), in mixed units of the elements' properties; NaN in the rows of crystals that have none.
    """
    keys = [reduced_counts(structure) for structure in structures]
    distinct = list(dict.fromkeys(key for key in keys if not isinstance(key, str)))
    features = _rows(distinct, _magpie_chunk, MAGPIE_FEATURES, jobs, backend)
    row = {key: i for i, key in enumerate(distinct)}
    found = np.full((len(keys), MAGPIE_FEATURES), np.nan)
    for i, key in enumerate(keys):
        if isinstance(key, str):
            _note(reasons, i, key)
        else:
            found[i] = features[row[key]]
    for i in np.flatnonzero(np.isnan(found).any(axis=1)).tolist():
        found[i] = np.nan
        _note(reasons, i, "an element has no Magpie features")
    return found


def amd(
    structures: Iterable[Structure | None],
    k: int = AMD_NEIGHBOURS,
    *,
    reasons: dict[int, str] | None = None,
    jobs: int | None = 1,
    backend: str = "loky",
) -> NDArray[np.float64]:
    """Average minimum distances: entry j is the mean over the sites of the distance to the j-th nearest neighbour.

    Args:
        structures: Crystals; None for one that cannot be read.
        k: Number of neighbours.
        reasons, jobs, backend: As in `magpie`.

    Returns:
        (n, k) Å; NaN in the rows of crystals whose cell is not physical.
    """
    motifs = []
    for i, structure in enumerate(structures):
        motifs.append(_motif(structure, k))
        if isinstance(motifs[-1], str):
            _note(reasons, i, motifs[-1])
    usable = [i for i, motif in enumerate(motifs) if not isinstance(motif, str)]
    found = np.full((len(motifs), k), np.nan)
    found[usable] = _rows([motifs[i] for i in usable], _amd_chunk, k, jobs, backend)
    for i in usable:
        if not np.isfinite(found[i]).all():
            found[i] = np.nan
            _note(reasons, i, "the distances to its neighbours cannot be computed")
    return found


def nearest(
    vectors: ArrayLike, reference: NDArray[np.floating], metric: Metric = "euclidean"
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The nearest reference vector of each vector, by exact distances computed block by block.

    Vectors are rounded to the precision in which the reference is stored, so that equal crystals are at distance 0.

    Args:
        vectors: (n, d); rows with NaN have no neighbour.
        reference: (m, d), on disk or in memory; rows with NaN are nobody's neighbour.
        metric: "euclidean" for Magpie, "chebyshev" for AMD.

    Returns:
        (n,) distances and (n,) positions in the reference, the first of several at the same distance; NaN and -1 where
        there is none.

    Raises:
        UserError: When the vectors are of different lengths.
    """
    from scipy.spatial.distance import cdist

    wanted = np.asarray(vectors)
    if wanted.ndim != 2 or reference.ndim != 2 or wanted.shape[1] != reference.shape[1]:
        raise UserError(
            f"the fingerprints have the shape {wanted.shape}, those of the reference {reference.shape}: build the "
            "reference anew with this version"
        )
    wanted = wanted.astype(reference.dtype).astype(np.float64)
    asked = np.flatnonzero(np.isfinite(wanted).all(axis=1))
    distance, index = np.full(len(wanted), np.nan), np.full(len(wanted), -1, dtype=np.int64)
    best, place = np.full(len(asked), np.inf), np.full(len(asked), -1, dtype=np.int64)
    for start, block in _blocks(reference, max(1, BLOCK_BYTES // (8 * max(len(asked), reference.shape[1])))):
        kept = np.flatnonzero(np.isfinite(block).all(axis=1))
        if len(kept) == 0 or len(asked) == 0:
            continue
        matrix = cdist(wanted[asked], block[kept], metric)
        column = matrix.argmin(axis=1)
        value = matrix[np.arange(len(asked)), column]
        better = value < best
        best[better], place[better] = value[better], start + kept[column[better]]
    having = place >= 0
    distance[asked[having]], index[asked[having]] = best[having], place[having]
    return distance, index


def _blocks(vectors: NDArray[np.floating], rows: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for start in range(0, len(vectors), rows):
        yield start, np.asarray(vectors[start : start + rows], dtype=np.float64)


def _note(reasons: dict[int, str] | None, i: int, reason: str) -> None:
    if reasons is not None:
        reasons.setdefault(i, reason)


# -- fingerprints -----------------------------------------------------------------------------------------------------


def _motif(structure: Structure | None, k: int) -> tuple[Any, ...] | str:
    """Positions, cell, atomic numbers and number of neighbours, or why there are none."""
    if structure is not None and not structure.is_ordered:
        return NOT_ELEMENTS
    cell = physical_cell(structure)
    if isinstance(cell, str) or structure is None:
        return str(cell)
    numbers = np.asarray(structure.atomic_numbers, dtype=np.int64)
    return structure.cart_coords, structure.lattice.matrix, numbers.astype(np.uint64), k


def _rows(
    items: Sequence[Any],
    work: Callable[[tuple[int, tuple[Any, ...]]], tuple[int, NDArray[np.float64]]],
    width: int,
    jobs: int | None,
    backend: str,
) -> NDArray[np.float64]:
    """A row for each item, made in chunks by the workers."""
    rows = np.full((len(items), width), np.nan)
    chunks = ((number * CHUNK, chunk) for number, chunk in enumerate(batched(items, CHUNK)))
    for start, part in in_parallel(work, chunks, 1 if len(items) <= CHUNK else jobs, backend):
        rows[start : start + len(part)] = part
    return rows


def _magpie_chunk(chunk: tuple[int, tuple[Composition, ...]]) -> tuple[int, NDArray[np.float64]]:
    return chunk[0], np.array([_magpie_of(key) for key in chunk[1]])


@cache
def _featurizer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from matminer.featurizers.composition.composite import ElementProperty

        return ElementProperty.from_preset("magpie", impute_nan=True)


@lru_cache(maxsize=50_000)
def _magpie_of(key: Composition) -> NDArray[np.float64]:
    from pymatgen.core import Composition as Formula
    from pymatgen.core import Element

    try:
        formula = Formula({Element.from_Z(z): count for z, count in zip(*key, strict=True)})
        return np.array(_featurizer().featurize(formula), dtype=np.float64)
    except (KeyError, ValueError):
        return np.full(MAGPIE_FEATURES, np.nan)


def _amd_chunk(chunk: tuple[int, tuple[Any, ...]]) -> tuple[int, NDArray[np.float64]]:
    return chunk[0], np.array([_amd_of(*motif) for motif in chunk[1]])


def _amd_of(positions: NDArray[Any], cell: NDArray[Any], numbers: NDArray[Any], k: int) -> NDArray[np.float64]:
    import amd as library

    try:
        return np.asarray(library.AMD(library.PeriodicSet(motif=positions, cell=cell, types=numbers), k), np.float64)
    except Exception:  # one crystal must not end the others; its row says that it has none
        return np.full(k, np.nan)
