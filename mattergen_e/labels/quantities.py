"""The kinds of values that this package makes labels of, and those that other people's files often have."""

from __future__ import annotations

from mattergen_e.crystals.quantity import Quantity

BADER_CHARGE = Quantity(name="bader_charge", unit="e", dim=1, sums_to_zero=True, charge_slack=0.5)
ATOMIC_DOS = Quantity(name="atomic_dos", unit="states/eV", spectrum=True)
TOTAL_DOS = Quantity(name="total_dos", place="crystal", unit="states/eV/atom", spectrum=True)

#: What labels hold.
PRODUCED = (BADER_CHARGE, ATOMIC_DOS, TOTAL_DOS)
#: What files of others may hold under these names.
COMMON = (
    Quantity(name="mulliken_charge", unit="e", dim=1, charge_slack=2.0),
    Quantity(name="loewdin_charge", unit="e", dim=1, charge_slack=2.0),
    Quantity(name="magmom", unit="mu_B", dim=1),
)
#: Part of the settings of labels that tells how a quantity was made.
SETTINGS_OF = {"bader_charge": "bader", "atomic_dos": "atomic_dos", "total_dos": "total_dos"}
