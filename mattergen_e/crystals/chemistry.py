"""What chemistry says of charges: how many electrons an element can lose or take, and which partner takes them."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.checks import EntryError

#: How far Bader charges may go beyond the valence, e.
SLACK = 0.5
#: Electrons that an element of the d and f blocks may take, at most: platinum metals take up to four from aluminium.
TAKEN_BY_METALS = 8.0
#: Smallest difference in Pauling's electronegativity, and largest charge (e), from which signs tell something.
POLAR, CHARGED = 0.5, 0.2


@cache
def charge_bounds(number: int, slack: float = SLACK) -> tuple[float, float]:
    """Lowest and highest net charge that an atom can have in a crystal, e.

    Up: the highest oxidation state that is known, but not more than all electrons. Down: electrons that fill the shell.

    Args:
        number: Atomic number.
        slack: How far they may go beyond the valence, e.
    """
    from pymatgen.core import Element

    element = Element.from_Z(number)
    group = int(element.group)
    outer = group if group <= 2 else group - 10
    states = [float(state) for state in element.oxidation_states]
    if element.block in ("d", "f"):
        taken = min(float(18 - group), TAKEN_BY_METALS)
    elif number <= 2:
        taken, outer = float(2 - number), number
    else:
        taken = float(outer) if group <= 2 else float(8 - outer)
        states.append(float(outer) if group < 18 and number != 9 and number != 8 else 0.0)
    return -taken - slack, min(max([0.0, *states]) + slack, float(number))


def check_charge_bounds(
    name: str, numbers: NDArray[np.integer], charges: NDArray[np.floating], slack: float = SLACK
) -> None:
    """Check that no site has lost or taken more electrons than its element can.

    Args:
        name: Of the charges.
        numbers: (n_sites,) atomic numbers.
        charges: (n_sites,) e, positive where electrons are lost.
        slack: How far they may go beyond the valence, e.

    Raises:
        EntryError: With reason bad_charge.
    """
    from pymatgen.core import Element

    bounds = np.array([charge_bounds(int(number), slack) for number in numbers])
    bad = np.flatnonzero(~((bounds[:, 0] <= charges) & (charges <= bounds[:, 1])))
    if len(bad):
        i = int(bad[np.argmax(np.abs(charges[bad]))])
        symbol, (low, high) = Element.from_Z(int(numbers[i])).symbol, bounds[i]
        raise EntryError(
            "bad_charge",
            f"{name} is {charges[i]:+.4g} e at site {i} ({symbol}), beyond {symbol}'s {low:+g} to {high:+g} e: is "
            "it the number of electrons instead of the charge?",
        )


def sign_of_charges(numbers: NDArray[np.integer], charges: NDArray[np.floating]) -> int:
    """Whether charges go with electronegativity, as electrons do: 1; against it: -1; or neither can be said: 0.

    Args:
        numbers: (n_sites,) atomic numbers.
        charges: (n_sites,) e, positive where electrons are lost.
    """
    from pymatgen.core import Element

    negativity = np.array([_negativity(Element.from_Z(int(number)).symbol) for number in numbers])
    if np.isnan(negativity).any() or np.ptp(negativity) < POLAR or np.abs(charges).max() < CHARGED:
        return 0
    together = float(((negativity - negativity.mean()) * (charges - charges.mean())).sum())
    return -1 if together > 0 else int(together < 0)


@cache
def _negativity(symbol: str) -> float:
    import warnings

    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have none
        return float(Element(symbol).X)
