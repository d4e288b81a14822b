"""pymatgen's parser of vasprun.xml, made to bear what VASP writes and it does not expect."""

from __future__ import annotations

from typing import Any

from pymatgen.io.vasp.inputs import Incar
from pymatgen.io.vasp.outputs import Vasprun

#: ALGO by IALGO, the number that INCAR files may give in its place.
ALGORITHMS = {2: "None", 3: "Eigenval", 4: "Subrot", 38: "Normal", 48: "VeryFast", 53: "Damped", 58: "All", 68: "Fast"}
#: Runs in which nothing is made self-consistent: they have no electronic steps that could converge, or just one.
ONE_SHOT = ("chi", "bse", "timeev", "tdhf", "acfdt", "rpa", "exact", "eigenval", "none", "nothing")


class Parser(Vasprun):
    """A parsed vasprun.xml.

    Numbers that are too wide for their field, which VASP writes as asterisks, are left out of the parameters instead of
    ending the reading; an ALGO that is given as a number becomes the word that it stands for.

    Attributes:
        unreadable: Names of the parameters that are asterisks.
    """

    unreadable: frozenset[str] = frozenset()

    def _parse_params(self, elem: Any) -> Incar:
        for child in list(elem):
            if child.tag in ("i", "v") and child.get("type") != "string" and "*" in (child.text or ""):
                self.unreadable |= {child.get("name", "").strip().upper()}
                elem.remove(child)
        found = super()._parse_params(elem)
        algorithm = found.get("ALGO")
        if isinstance(algorithm, int | float) and not isinstance(algorithm, bool):
            found["ALGO"] = ALGORITHMS.get(int(algorithm), "Normal")
        return found

    @property
    def algorithm(self) -> str:
        """ALGO in small letters, without what follows it; empty where INCAR does not say."""
        words = str(self.incar.get("ALGO", "")).lower().split()
        return words[0] if words else ""

    @property
    def is_gw(self) -> bool:
        """Whether eigenvalues are quasiparticle energies."""
        return "gw" in self.algorithm or "g0w0" in self.algorithm

    @property
    def converged_electronic(self) -> bool:
        """Whether the electronic steps of the last ionic step converged; of runs without such steps: True."""
        if self.is_gw or self.algorithm.startswith(ONE_SHOT) or not self.ionic_steps:
            return True
        if "NELM" in self.unreadable:
            return False
        try:
            return bool(super().converged_electronic)
        except IndexError:  # pymatgen looks for the steps of a response that are not there
            return len(self.ionic_steps[-1]["electronic_steps"]) < self.parameters["NELM"]
