"""Convolutional autoencoder of atomic densities of states (Okuda et al., appendix A).

`network` holds the layers, `loss` the objective, `data` spectra from caches and their augmentation, `model` the
autoencoder as everything else uses it (with its grid, its checks and its identity), `folder` its files, `training` and
`evaluation` the two commands.
"""
