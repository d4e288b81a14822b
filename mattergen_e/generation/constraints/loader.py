"""Conditions of the crystals of a run whose number of sites the constraints decide on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import SeededConditionLoader
from mattergen_e.generation.constraints.reading import read_constraints
from mattergen_e.upstream import exit_on_user_error


class ConstrainedConditionLoader(SeededConditionLoader):
    """A `SeededConditionLoader` that reads a constraints file, before a model is loaded, and keeps to its sizes.

    The constraints are a part of the run's settings: a resumed run must have the same.

    Attributes:
        constraints: What the file asks for; None without a file.
    """

    @exit_on_user_error
    def __init__(self, *args: Any, constraints: str | None = None, **arguments: Any) -> None:
        """Makes a loader.

        Args:
            *args: As of `SeededConditionLoader`.
            constraints: The constraints file.
            **arguments: As of `SeededConditionLoader`.

        Raises:
            UserError: As `SeededConditionLoader` and `read_constraints`; or if the constraints contradict the rest.
        """
        super().__init__(*args, **arguments)
        self.constraints = None if constraints is None else read_constraints(constraints)
        if self.constraints is None:
            return
        if self.choices and (self.constraints.content.num_atoms is not None or self.constraints.template is not None):
            raise UserError(
                f"condition_loader_partial.num_atoms and {self.constraints.path} both tell the number of sites: leave "
                "the former out."
            )
        for n_sites in self.choices:
            try:
                self.constraints.check_size(n_sites, "condition_loader_partial.num_atoms")
            except ValueError as error:
                raise UserError(f"{self.constraints.path}: {error}.") from None
        self.sizes, self.weights = self.constraints.sizes(self.num_atoms_distribution)
        self._check_elements(self.properties)

    def _check_elements(self, properties: Mapping[str, Any]) -> None:
        """Refuses fixed elements outside of the chemical system that is asked for."""
        from pymatgen.core import Element

        system = properties.get("chemical_system")
        if system is None or self.constraints is None:
            return
        allowed = system.split("-") if isinstance(system, str) else list(system)
        for site, number in self.constraints.numbers.items():
            symbol = Element.from_Z(number).symbol
            if symbol not in allowed:
                raise UserError(
                    f"{self.constraints.path}: site {site} is {symbol}, but the chemical system asked for is "
                    f"{'-'.join(allowed)}."
                )

    def num_atoms(self) -> np.ndarray:
        """Number of sites of every crystal of the run, shape (num_samples,)."""
        if self.constraints is None or self.choices:
            return super().num_atoms()
        rng = np.random.default_rng(self.seed)
        return rng.choice(self.sizes, size=self.num_samples, p=self.weights)

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run it resumes."""
        own = super().settings()
        return own if self.constraints is None else {**own, "constraints": self.constraints.settings()}
