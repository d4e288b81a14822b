"""What data has to know of a kind of value: where it lives, how it turns with the cell, and which values make sense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Where the rows of a field live: one per site, one per crystal, or one per probe of a grid in the cell.
Place = Literal["site", "crystal", "grid"]

#: What the numbers of a row are when the cell is chosen or turned otherwise. 'scalar': they stay. 'crystal': components
#: along the lattice vectors a, b, c (dim is a multiple of 3), which data transforms with the cell's basis.
Frame = Literal["scalar", "crystal"]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A kind of value that labels carry and caches hold.

    Attributes:
        name: Of the array in a cache, of the column in a file.
        place: Where its rows live.
        unit: Of the values.
        dim: Numbers per row; None: as many as the data has.
        probes: Rows along a, b and c of a grid; None elsewhere.
        frame: See `Frame`.
        spectrum: Whether a row is a curve: deviations are then compared by area.
        sums_to_zero: Whether the values of a crystal's sites add up to zero, as charges do.
        charge_slack: Of net charges: how far they may go beyond the valence of their element, e; None: no charges.
        merge_tolerance: Largest deviation from the mean of values of sites that become one when the cell is reduced;
            None: what the command says.
        check: Raises an `EntryError` where values (n_rows, dim) of one crystal make no sense.
    """

    name: str
    place: Place = "site"
    unit: str = ""
    dim: int | None = None
    probes: tuple[int, int, int] | None = None
    frame: Frame = "scalar"
    spectrum: bool = False
    sums_to_zero: bool = False
    charge_slack: float | None = None
    merge_tolerance: float | None = None
    check: Callable[[NDArray[np.floating]], None] | None = None
