"""The data room: files with crystals and values in, a checked cache for training out.

The cache is MatterGen's own layout (so that MatterGen reads it without this package) with one more folder per split
for values of sites, of crystals and of grids. `build.build_cache` makes one, `cache` reads it, `dataset` gives its
crystals to MatterGen's data loaders.

Values of sites are always in the order of the sites of the reduced cell; charges in e (positive: electrons lost),
lengths in Å, energies in eV.
"""
