"""Forward predictor: densities of states of a known structure, site by site, and per atom of the crystal.

The surrogate that DOSMatGen (section 3.1) and "Density of States-Intermediated Crystal Generation" (section 5.3)
measure generated crystals with and, made time-dependent, the classifier of classifier-based guidance (DOSMatGen,
section 2.3). `grids` joins the two energy grids, `network` holds the layers, `loss` the objective, `data` crystals with
their spectra, `model` the predictor as everything else uses it, `folder` its files, `training`, `evaluation` and
`output` the commands, `guidance` the energy whose gradient guides.
"""
