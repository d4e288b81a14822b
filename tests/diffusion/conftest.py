"""Predictors small enough to guide a generation in a test."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def tiny_predictor():
    """Makes an untrained predictor of a few thousand parameters whose spectra depend on the structure.

    Takes the grids of the spectra of sites and of crystals, and whether it knows noised crystals.
    """
    from mattergen_e.dos.predictor.data import Processing
    from mattergen_e.dos.predictor.grids import Grids
    from mattergen_e.dos.predictor.guidance import TIMES
    from mattergen_e.dos.predictor.model import Predictor
    from mattergen_e.dos.predictor.network import Network
    from mattergen_e.dos.predictor.settings import EncoderSettings, NetworkSettings
    from mattergen_e.dos.processing import AtomicDosSettings, TotalDosSettings

    encoder = EncoderSettings(
        hidden_dim=16, emb_size_edge=16, emb_size_trip=8, emb_size_rbf=8, emb_size_cbf=8, emb_size_bil_trip=8,
        num_spherical=3, num_radial=6, num_blocks=1, cutoff=5.0, max_neighbors=12,
    )  # fmt: skip

    def make(sites, total, noisy=True):
        shape = NetworkSettings(
            encoder=encoder, grids=Grids(sites=sites, total=total), width=16, layers=1, element=4, nodes=5
        )
        processing = Processing(
            atomic_dos=AtomicDosSettings(grid=sites, smearing=0.5), total_dos=TotalDosSettings(grid=total, smearing=0.5)
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Network(shape.model_copy(update={"noisy": noisy}))
            for layer in (network.change, network.weights):
                torch.nn.init.normal_(layer.weight, std=0.3)
        return Predictor(network, processing, [0.1] * TIMES)

    return make
