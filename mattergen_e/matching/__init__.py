"""Uniqueness and novelty with the verdicts of MatterGen's evaluator, faster.

`unique` and `ReferenceIndex.find` decide as MatterGen 1.0.3 does with its `DefaultDisorderedStructureMatcher` (paper 1,
section 4.3): crystals of one reduced formula (of one chemical system, if any is disordered) are compared in pairs,
first as they are, then with substitutable elements sharing their sites. What makes it faster never changes a verdict:

- a crystal is reduced, and its disordered form made, once and only when a pair needs it; reference crystals come with
  their reduced cells (`crystal`, `reduction`, `stored`, `reference.reduced`);
- most pairs do not need it: cells laid onto a reduced one may be given in any basis of their lattice, and that a cell
  is primitive can mostly be told without reducing it (`verdict`, `reduction.is_primitive_in_any_basis`);
- ordered crystals whose reduced cells differ in the number of sites cannot match (`verdict`);
- lattice mappings and translations are tried all at once, with margins at pymatgen's tolerances far above rounding:
  most pairs are certainly a match, or certainly none, and only those in between are left to pymatgen itself, and of
  them only the mappings that are in doubt (`prefilters`);
- one match is enough, so the search for matches stops there; and whether two crystals are equal to pymatgen, which
  MatterGen asks first, is asked last, as equal ones nearly always match.

MatterGen's own answer depends on what it compared before where two crystals differ by less than 1e-5 Å: pymatgen keeps
the last 300 reduced cells and takes one for the other then. Here each crystal is reduced by itself.
"""

from __future__ import annotations

from mattergen_e.matching.crystal import Crystal, prepare
from mattergen_e.matching.reference_index import ReferenceIndex
from mattergen_e.matching.uniqueness import unique

__all__ = ["Crystal", "ReferenceIndex", "prepare", "unique"]
