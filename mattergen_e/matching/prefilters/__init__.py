"""Verdicts on a pair of reduced cells without pymatgen's search, where they are certain.

`lattices` finds the mappings of one lattice onto another, `displacements` judges the sites that they lay onto each
other, `outlook` says of a pair: certainly a match, certainly none, or which mappings are in doubt; `narrowed` is
pymatgen's StructureMatcher, asked about these only. Every one-sided test has a margin far above rounding, so that the
verdicts are pymatgen's with or without this room; nothing but `matching.verdict` decides by it.

Why it is kept, although grouping by formula, the stored index and one reduction per crystal are the larger part of the
gain: processor time of uniqueness and novelty, one thread, crystals made by `benchmarks/matching_speed.py`, the same
verdicts each time, where all pairs that are left go to pymatgen instead:

    512 crystals, 5,000 in the reference                             0.8 s with it,  1.5 s without
    1,024 crystals made of 200 of these, so that more formulas meet  1.9 s with it,  4.6 s without

For output whose cells are large or slender the search is what has no bound: `outlook` counts the mappings before
pymatgen goes through them, and a comparison that would not end becomes a sentence (`limits`).
"""
