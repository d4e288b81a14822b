"""The layers keep what physics asks for, and start as a table of elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mattergen.common.data.collate import collate
from mattergen.common.utils.data_utils import frac_to_cart_coords_with_lattice, radius_graph_pbc
from torch import Tensor

from mattergen_e.crystals.graphs import to_graph
from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.data import find_edges, join
from mattergen_e.networks.predictor.encoder import read_encoder
from mattergen_e.networks.predictor.neighbours import Edges
from mattergen_e.networks.predictor.network import MASKED, Network
from mattergen_e.networks.predictor.settings import NetworkSettings

BASE = Path(__file__).resolve().parents[3] / "checkpoints" / "base_small"


@pytest.fixture(scope="module")
def graphs(solids: dict[str, Any]) -> list[Any]:
    return [to_graph(structure) for structure in solids.values()]


def spectra(network: Network, graphs: Sequence[Any], **options: Any) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        found = network(collate(list(graphs)), torch.zeros(len(graphs)), **options)
    return found.sites, found.total


def test_starts_as_the_elements(shape: NetworkSettings, graphs: list[Any]) -> None:
    network = Network(shape).eval()
    energies = torch.from_numpy(shape.grids.common.energies).float()
    table = {z: 5 * torch.exp(-0.5 * (energies + z / 10) ** 2) for z in (0, 8, 11, 17)}
    network.start_from(table)
    sites, total = spectra(network, graphs[:1])  # NaCl
    table = {z: curve.clamp_min(np.expm1(Network.LEAST_START)) for z, curve in table.items()}
    expected = torch.stack([table[11], table[17]])[[0, 1] if graphs[0]["atomic_numbers"][0] == 11 else [1, 0]]
    torch.testing.assert_close(torch.expm1(sites), shape.grids.on_sites(expected), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.expm1(total[0]), shape.grids.on_total(expected.mean(0)), atol=1e-4, rtol=1e-4)
    other, _ = spectra(network, graphs[7:])  # Mg2Si: not in the table
    torch.testing.assert_close(torch.expm1(other), shape.grids.on_sites(table[0]).expand(3, -1), atol=1e-4, rtol=1e-4)


def test_never_negative(make_predictor: Callable[..., Any], graphs: list[Any]) -> None:
    sites, total = spectra(make_predictor().network, graphs)
    assert (sites >= 0).all() and (total >= 0).all() and sites.std() > 0.01


def test_invariance(make_predictor: Callable[..., Any], solids: dict[str, Any]) -> None:
    network, structure = make_predictor().network, solids["BaTiO3"]
    sites, total = spectra(network, [to_graph(structure)])
    moved = structure.copy().translate_sites(range(len(structure)), [0.13, 0.41, 0.77], to_unit_cell=True)
    for order in (list(range(len(structure))), [4, 2, 0, 3, 1][: len(structure)]):
        again, sum_again = spectra(network, [to_graph(type(structure).from_sites([moved[i] for i in order]))])
        torch.testing.assert_close(again, sites[order], atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(sum_again, total, atol=2e-4, rtol=1e-3)


def test_crystals_of_a_batch_do_not_mix(make_predictor: Callable[..., Any], graphs: list[Any]) -> None:
    network = make_predictor().network
    together, total = spectra(network, graphs)
    alone = [spectra(network, [graph]) for graph in graphs]
    torch.testing.assert_close(together, torch.cat([sites for sites, _ in alone]), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(total, torch.cat([crystal for _, crystal in alone]), atol=1e-4, rtol=1e-3)


def test_edges_found_before(make_predictor: Callable[..., Any], graphs: list[Any]) -> None:
    network = make_predictor().network
    edges = find_edges(graphs, network.settings.encoder)
    assert all(int(e.counts) == e.index.shape[1] > 0 for e in edges)
    joined = join(edges, [len(g["pos"]) for g in graphs])
    for with_edges, without in zip(spectra(network, graphs, edges=joined), spectra(network, graphs), strict=True):
        torch.testing.assert_close(with_edges, without)


def test_shares_of_one_element_are_the_element(make_predictor: Callable[..., Any], graphs: list[Any]) -> None:
    network = make_predictor().network
    numbers = torch.cat([g["atomic_numbers"] for g in graphs])
    shares = torch.nn.functional.one_hot(numbers - 1, MASKED).float()
    for relaxed, plain in zip(spectra(network, graphs, shares=shares), spectra(network, graphs), strict=True):
        torch.testing.assert_close(relaxed, plain)


def test_time_matters_and_masks_are_taken(make_predictor: Callable[..., Any], graphs: list[Any]) -> None:
    network, batch = make_predictor().network, collate(graphs)
    masked = batch.replace(atomic_numbers=torch.full_like(batch["atomic_numbers"], MASKED))
    with torch.no_grad():
        found = [network(masked, torch.full((len(graphs),), t)).total for t in (0.0, 0.5)]
    assert all(total.isfinite().all() for total in found) and not torch.allclose(*found, atol=1e-4)


def test_encoder_is_the_trained_model(graphs: list[Any]) -> None:
    from mattergen_e.upstream.models import load_model

    encoder = read_encoder(BASE)
    assert encoder.settings.hidden_dim == 128 and encoder.settings.num_blocks == 2
    assert encoder.source["model"] == "base_small" and len(encoder.source["weights_sha256"]) == 64
    network = Network(NetworkSettings(encoder=encoder.settings)).eval()
    encoder.load_into(network)
    denoiser: Any = load_model(BASE, device="cpu").diffusion_module.model
    found: list[Tensor] = []
    for gemnet in (network.gemnet, denoiser.gemnet):
        gemnet.register_forward_hook(lambda _module, _inputs, output: found.append(output.node_embeddings))
    batch, t = collate(graphs), torch.linspace(0, 1, len(graphs))
    coordinates = frac_to_cart_coords_with_lattice(batch["pos"], batch["num_atoms"], lattice=batch["cell"])
    edges = Edges(*radius_graph_pbc(coordinates, batch["cell"], batch["num_atoms"], 7.0, 16, 2))
    with torch.no_grad():
        network(batch, t, edges)
        denoiser(batch, t)
    torch.testing.assert_close(found[0], found[1])


def test_encoder_that_does_not_fit(shape: NetworkSettings, tmp_path: Path) -> None:
    encoder = read_encoder(BASE)
    with pytest.raises(UserError, match="the encoder base_small does not fit"):
        encoder.load_into(Network(shape))
    encoder.state.pop("gemnet.edge_emb.dense.linear.weight")
    with pytest.raises(UserError, match="has no weights gemnet.edge_emb"):
        encoder.load_into(Network(NetworkSettings(encoder=encoder.settings)))
    with pytest.raises(UserError, match="holds no config.yaml"):
        read_encoder(tmp_path)


def test_parameters_get_gradients(shape: NetworkSettings, graphs: list[Any]) -> None:
    network = Network(shape)
    with torch.no_grad():
        for layer in (network.change, network.weights):
            layer.weight.normal_(std=0.1)
    found = network(collate(graphs), torch.zeros(len(graphs)))
    (found.sites.sum() + found.total.sum()).backward()
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    silent = {name for name, p in trained if p.grad is None}
    # the last block's messages along edges go into no site any more
    assert all(name.startswith("gemnet.int_blocks.0.") for name in silent)
    assert all(np.isfinite(p.grad.sum().item()) for _, p in trained if p.grad is not None)
    assert {"prior.weight", "weights.weight", "elements.weight", "gemnet.atom_emb.embeddings.weight"}.isdisjoint(silent)
