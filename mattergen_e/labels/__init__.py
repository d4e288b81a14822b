"""The label room: from a finished calculation to what a model learns, with the checks a careful person would make.

A source (VASP folders, the Materials Project, GPAW, npz files of others) gives a `Calculation`: what the code wrote, on
the code's own grids. `process` turns that into a `Label`: Bader charges that passed their checks, and spectra on the
grids of `LabelSettings`. Labels are written as JSON lines and arrays, which `mattergen-e data build` reads.

Site arrays are always in the order of the structure's sites. Charges in e (positive: electrons lost), energies in eV
relative to the Fermi energy, spectra in states/eV, densities in e/Å^3, lengths in Å.
"""
