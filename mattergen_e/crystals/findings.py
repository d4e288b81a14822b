"""What is wrong with a calculation or a part of it: a reason for programs and a sentence for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

REASONS = {
    "missing_file": "a file that is needed is not there",
    "unreadable_file": "a file cannot be opened or unpacked",
    "damaged_file": "a file is cut off, empty, or not what its name says",
    "other_structure": "two files of one calculation hold different crystals, or another order of the sites",
    "not_collinear": "the calculation is non-collinear",
    "not_converged": "the electronic steps did not converge",
    "charged": "the cell is charged",
    "no_valence": "the number of valence electrons is not known",
    "not_neutral": "the charges do not add up to zero",
    "bad_charge": "a charge is beyond what its element can lose or take",
    "electrons_missing": "the integrated density does not hold all electrons",
    "sites_differ": "symmetry-equivalent sites have different charges",
    "maximum_off_atom": "a basin of the density has its maximum away from every atom",
    "no_projections": "the DOS is not projected onto sites",
    "no_fermi_energy": "the Fermi energy is not given",
    "window": "the energies of the DOS do not cover the grid",
    "negative_dos": "the DOS is negative",
    "bad_dos": "the DOS is not made of finite numbers on ascending energies",
    "bad_structure": "the structure cannot be used",
    "duplicate": "an earlier calculation has the same id",
    "failed": "the calculation ended with an error",
    "no_labels": "nothing is left that a model could learn",
}


class LabelError(ValueError):
    """One calculation, or one part of it, that cannot be used.

    Attributes:
        reason: One of the keys of `REASONS`.
        sentence: What is wrong, where, and what to do: one clause without a closing period.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        self.reason = reason
        self.sentence = sentence


@dataclass(frozen=True)
class Finding:
    """Something about one calculation that a person should know.

    Attributes:
        part: What it is about: "bader", "atomic_dos", "total_dos", "band_gap" or "calculation".
        reason: One of the keys of `REASONS`, or another short code for a mere warning.
        sentence: One clause.
        refused: Whether the part was left out because of it.
    """

    part: str
    reason: str
    sentence: str
    refused: bool = False


def nothing_left(findings: Sequence[Finding], otherwise: str) -> str:
    """Why nothing can be learned: what was said against each part, the parts that weigh most first.

    Args:
        findings: Of a calculation.
        otherwise: What is said where no part was refused.
    """
    refused = sorted((f for f in findings if f.refused), key=lambda f: _WEIGHT.get(f.part, len(_WEIGHT)))
    told = dict.fromkeys(finding.sentence for finding in refused)
    return f"nothing can be learned from it: {'; '.join(told) or otherwise}"


#: Parts by what they decide.
_WEIGHT = {part: i for i, part in enumerate(("calculation", "total_dos", "atomic_dos", "bader", "band_gap"))}
