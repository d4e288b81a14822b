"""Energies of crystals: calculators, relaxation, the hull and what it takes to be stable."""
