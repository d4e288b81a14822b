"""Which elements a crystal may have and must have, exactly, at any number of steps of the diffusion of masks.

Sites start masked and show their types one after the other. `restrict` takes what is not allowed out of the logits
of the network; `settle` decides the types of the sites whose masks fall in a step, so that what is asked for stays
possible, and keeps the types of those that fell before. With numbers to be met, each such site i, in a random order,
gets an element e with the weight

    p_i(e) r(e) / q(e)    a composition: r(e) sites of e are left, q(e) is the mean of p_j(e) over other masked sites j
    p_i(e) / c(e)         an element that is missing: the other masked sites bring it with the probability c(e)
    p_i(e)                any other element

where p are the network's probabilities. This is the network's own distribution of independent sites under the condition
that the numbers are met: exactly for two sites and for sites that are alike, and else with the other sites as their
mean. Where as many elements are missing as sites are masked, only those can be drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mattergen.common.utils.globals import SELECTED_ATOMIC_NUMBERS
from mattergen.diffusion.d3pm.d3pm import MaskDiffusion
from pymatgen.core import Composition, Element

from mattergen_e.errors import UserError

#: Said where every element of a system is asked for, and there is none.
NO_SYSTEM = "all_elements asks for every element of a system: give elements, or a chemical_system to condition on."
#: Logit of what cannot be drawn, as MatterGen's.
RULED_OUT = -1e10
#: Smallest probability that anything is divided by.
TINY = 1e-30


@dataclass(frozen=True)
class ElementRules:
    """What is asked of the elements of every crystal, as atomic numbers.

    Attributes:
        allowed: No others; None: all that MatterGen generates.
        excluded: None of these.
        formula: Sites of each element in a formula unit; a crystal has as many units as its sites allow. Empty: free.
        every: Each of `allowed` at least once; without `allowed`, each of the chemical system that is asked for.
    """

    allowed: frozenset[int] | None = None
    excluded: frozenset[int] = frozenset()
    formula: Mapping[int, int] = field(default_factory=dict)
    every: bool = False

    @property
    def possible(self) -> frozenset[int]:
        """What a site can be."""
        some = self.formula or self.allowed or frozenset(SELECTED_ATOMIC_NUMBERS)
        return frozenset(some) - self.excluded


def require_masks(corruption: Any) -> None:
    """Refuses a forward process of types, a `D3PMCorruption`, in which types turn into others.

    Raises:
        UserError: If it is none of masks.
    """
    chain: Any = corruption.d3pm
    if not isinstance(chain, MaskDiffusion):
        raise UserError(
            f"this model's atom types have the diffusion {type(chain).__name__}, not that of masks: elements, exclude, "
            "composition and all_elements cannot be asked of it."
        )


def formula_of(numbers: Mapping[int, int]) -> str:
    """A composition for people, such as Na1 Cl1."""
    return Composition({Element.from_Z(number): count for number, count in numbers.items()}).formula


def rank(groups: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Place of each row, from 0, among those of its group in the order of the keys; all (n_rows,)."""
    order = keys.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    ordered = groups[order].contiguous()
    place = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).scatter_(0, order, place)


def gumbel(like: torch.Tensor) -> torch.Tensor:
    """Noise whose addition to logits makes the largest a draw of their distribution."""
    return -torch.empty_like(like).exponential_().log()


class Elements:
    """The rules in a batch of crystals."""

    def __init__(self, rules: ElementRules, corruption: Any) -> None:
        """Takes the rules and the forward process of the types.

        Raises:
            UserError: If it is none of masks.
        """
        require_masks(corruption)
        self.rules = rules
        self.offset = int(corruption.offset)
        self.mask = int(corruption.d3pm.dim) - 1
        self.crystals = self.least = self.most = torch.empty(0, dtype=torch.long)

    def begin(self, num_atoms: torch.Tensor, systems: Sequence[Collection[str]] | None = None) -> None:
        """Finds the numbers of sites that each element must and may have, (n_crystals, n_elements).

        Args:
            num_atoms: Sites of each crystal, (n_crystals,).
            systems: Chemical system that each crystal is asked for.

        Raises:
            UserError: If a crystal cannot have them.
        """
        self.crystals = torch.repeat_interleave(torch.arange(len(num_atoms), device=num_atoms.device), num_atoms)
        numbers = self._units(num_atoms) if self.rules.formula else self._at_least_once(num_atoms, systems)
        self.least, self.most = (n.to(num_atoms.device) for n in numbers)

    def _units(self, num_atoms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Least and largest numbers of sites by a composition."""
        unit = torch.zeros(self.mask, dtype=torch.long)
        unit[self._index(self.rules.formula)] = torch.tensor(list(self.rules.formula.values()))
        size, counts = int(unit.sum()), num_atoms.cpu()
        if bool((counts % size != 0).any()):
            raise UserError(
                f"the composition {formula_of(self.rules.formula)} was asked for, but also a crystal of "
                f"{int(counts[counts % size != 0][0])} sites: ask for multiples of {size} sites."
            )
        numbers = (counts // size)[:, None] * unit
        return numbers, numbers

    def _at_least_once(
        self, num_atoms: torch.Tensor, systems: Sequence[Collection[str]] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Least and largest numbers of sites without one."""
        counts = num_atoms.cpu()
        most = torch.zeros(len(counts), self.mask, dtype=torch.long)
        least = torch.zeros_like(most)
        for i, every in enumerate(self._every(len(counts), systems)):
            most[i, self._index(self.rules.possible if every is None else every)] = counts[i]
            least[i, self._index(every or ())] = 1
            if int(least[i].sum()) > int(counts[i]):
                raise UserError(
                    f"all of {int(least[i].sum())} elements were asked for in a crystal of {int(counts[i])} sites: ask "
                    "for more sites."
                )
        return least, most

    def _every(self, n: int, systems: Sequence[Collection[str]] | None) -> Sequence[Collection[int] | None]:
        """The elements that each crystal must have at least once; None: any will do."""
        if not self.rules.every:
            return [None] * n
        if self.rules.allowed is not None:
            return [self.rules.possible] * n
        if systems is None:
            raise UserError(NO_SYSTEM)
        return [frozenset(Element(symbol).Z for symbol in system) - self.rules.excluded for system in systems]

    def _index(self, numbers: Collection[int]) -> torch.Tensor:
        """Columns of elements, in their order."""
        return torch.tensor([number - self.offset for number in numbers], dtype=torch.long)

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (n_sites, n_elements + 1), the mask last, with those of elements that are not allowed ruled out."""
        allowed = torch.nn.functional.pad(self.most > 0, (0, logits.shape[1] - self.mask))
        return torch.where(allowed[self.crystals], logits, RULED_OUT)

    def start(self, x: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """A state (n_sites,) to start from, with those sites masked that leave no room for what is asked for.

        Args:
            x: Atomic numbers and masks.
            fixed: Sites that must stay, (n_sites,), bool.

        Raises:
            UserError: If those leave no room for it.
        """
        types = x - self.offset
        shown, chance = types != self.mask, torch.rand(len(x), device=x.device)
        group = self.crystals * (self.mask + 1) + types
        place = rank(group, torch.where(fixed, -1.0, chance))  # among the sites of an element in a crystal
        inside = types.clamp(max=self.mask - 1)
        shown = shown & (place < self.most[self.crystals, inside])
        deficit, masked = self._missing(torch.where(shown, types, self.mask))
        spare = shown & ~fixed & (place >= self.least[self.crystals, inside])
        order = rank(self.crystals, torch.where(spare, chance, 2.0))
        shown = shown & ~(spare & (order < (deficit - masked)[self.crystals]))
        types = torch.where(shown, types, self.mask)
        deficit, masked = self._missing(types)
        if bool((fixed & ~shown).any()) or bool((deficit > masked).any()):
            raise UserError("the elements of the fixed sites leave no room for the elements that are asked for.")
        return types + self.offset

    def _missing(self, types: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sites that still have to get an element, and masked ones, of each crystal, both (n_crystals,)."""
        counts = self._counts(types)
        return (self.least - counts[:, :-1]).clamp(min=0).sum(1), counts[:, -1]

    def _counts(self, types: torch.Tensor) -> torch.Tensor:
        """Sites of each element and masked ones, (n_crystals, n_elements + 1)."""
        counts = torch.zeros(len(self.most), self.mask + 1, dtype=torch.long, device=types.device)
        return counts.index_put((self.crystals, types), torch.ones_like(types), accumulate=True)

    def settle(
        self, before: torch.Tensor, after: torch.Tensor, logits: torch.Tensor, *, random: bool = True
    ) -> torch.Tensor:
        """The state after a step, (n_sites,), in which every site whose mask fell has an element that it may have.

        Args:
            before: Atomic numbers and masks before the step.
            after: As the sampler drew them: tells which masks fall; without numbers to be met also the types, where
                they are allowed.
            logits: The network's, of the clean types, (n_sites, n_elements + 1).
            random: Whether elements are drawn; else each site gets that of the largest weight, the surest site first.
        """
        old, new = before - self.offset, after - self.offset
        hidden = old == self.mask
        falls = hidden & (new != self.mask)
        log_p = torch.log_softmax(self.restrict(logits)[:, : self.mask].double(), dim=1)
        if bool(self.least.any()):
            return self._in_turn(old, hidden, falls, log_p, random) + self.offset
        own = torch.where(self.most[self.crystals] > 0, log_p, -torch.inf)
        own = (own + gumbel(own) if random else own).argmax(dim=1)
        good = self.most[self.crystals, new.clamp(max=self.mask - 1)] > 0
        return torch.where(falls, torch.where(good, new, own), old) + self.offset

    def _in_turn(
        self, types: torch.Tensor, hidden: torch.Tensor, falls: torch.Tensor, log_p: torch.Tensor, random: bool
    ) -> torch.Tensor:
        """Types after a step with numbers to be met: one falling mask of every crystal at a time."""
        sites = falls.nonzero()[:, 0]
        if len(sites) == 0:
            return types
        keys = torch.rand(len(sites), device=sites.device) if random else -log_p[sites].amax(dim=1)
        turn = rank(self.crystals[sites], keys)
        p = log_p.exp().clamp(max=1 - 1e-12)
        part = p if self.rules.formula else torch.log1p(-p)
        others = torch.zeros(self.most.shape, dtype=p.dtype, device=p.device)
        others = others.index_add(0, self.crystals[hidden], part[hidden])
        counts, types = self._counts(types), types.clone()
        for now in range(int(turn.max()) + 1):
            chosen = sites[turn == now]
            rows = self.crystals[chosen]
            others[rows] -= part[chosen]
            weights = self._weights(rows, counts[rows], log_p[chosen], others[rows])
            types[chosen] = (weights + gumbel(weights) if random else weights).argmax(dim=1)
            counts[rows, types[chosen]] += 1
            counts[rows, self.mask] -= 1
        return types

    def _weights(
        self, crystals: torch.Tensor, counts: torch.Tensor, log_p: torch.Tensor, others: torch.Tensor
    ) -> torch.Tensor:
        """Logarithms of the weights of one masked site each of some crystals, (n_sites, n_elements).

        Args:
            crystals: Of the sites, (n_sites,).
            counts: Sites of each element, and masked ones, in its crystal.
            log_p: Of the network, for the site.
            others: Sums over the other masked sites: of p with a composition, else of log(1 - p).
        """
        least, most = self.least[crystals], self.most[crystals]
        left, masked = (least - counts[:, :-1]).clamp(min=0), counts[:, -1:]
        if self.rules.formula:
            log_p = log_p + left.log() - (others / (masked - 1).clamp(min=1)).clamp(min=TINY).log()
        else:
            log_p = torch.where(left > 0, log_p - (-torch.expm1(others.clamp(max=0))).clamp(min=TINY).log(), log_p)
        forced = left.sum(1, keepdim=True) >= masked
        able = (counts[:, :-1] < most) & ((left > 0) | ~forced)
        return torch.where(able, log_p, -torch.inf)
