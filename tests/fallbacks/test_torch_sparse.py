"""Tests of the pure-PyTorch stand-in for torch_sparse against loops over single entries."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[2] / "mattergen_e" / "fallbacks"


def load(name: str) -> ModuleType:
    """Loads a fallback from its file, whether or not a package of that name is installed."""
    spec = importlib.util.spec_from_file_location(f"fallback_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sparse = load("torch_sparse")

FAST = settings(max_examples=100, deadline=None, database=None)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, int, int]:
    """Draws unordered entries with repeated (row, column) pairs, and the size of the matrix."""
    num_rows, num_cols = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    num_entries = draw(st.integers(0, 15))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    row = torch.from_numpy(rng.integers(0, num_rows, num_entries))
    col = torch.from_numpy(rng.integers(0, num_cols, num_entries))
    return row, col, torch.arange(num_entries), num_rows, num_cols


def loop_order(row: Tensor, col: Tensor) -> list[int]:
    """Order of the entries by row, then column, then position."""
    return sorted(range(row.numel()), key=lambda e: (int(row[e]), int(col[e]), e))


@FAST
@given(matrix=matrices(), as_tensor=st.booleans())
def test_storage_is_sorted(matrix: tuple[Tensor, Tensor, Tensor, int, int], as_tensor: bool) -> None:
    """Entries are ordered by row and column and repeated ones are kept; sizes may be tensors."""
    row, col, value, num_rows, num_cols = matrix
    sizes: Any = (torch.tensor(num_rows), torch.tensor(num_cols)) if as_tensor else (num_rows, num_cols)
    adj = sparse.SparseTensor(row=row, col=col, value=value, sparse_sizes=sizes)
    order = loop_order(row, col)
    assert adj.storage.row().tolist() == row[order].tolist()
    assert adj.storage.col().tolist() == col[order].tolist()
    assert adj.storage.value().tolist() == order


@FAST
@given(matrix=matrices(), data=st.data())
def test_row_selection_equals_loop(matrix: tuple[Tensor, Tensor, Tensor, int, int], data: st.DataObject) -> None:
    """Rows in any order, repeated, missing, or none at all."""
    row, col, value, num_rows, num_cols = matrix
    adj = sparse.SparseTensor(row=row, col=col, value=value, sparse_sizes=(num_rows, num_cols))
    chosen = data.draw(st.lists(st.integers(-num_rows, num_rows - 1), max_size=10))
    expected = [
        (k, int(col[e]), e) for k, r in enumerate(chosen) for e in loop_order(row, col) if int(row[e]) == r % num_rows
    ]
    picked = adj[torch.tensor(chosen, dtype=torch.long)].to("cpu")
    rows, cols, values = picked.storage.row(), picked.storage.col(), picked.storage.value()
    assert list(zip(rows.tolist(), cols.tolist(), values.tolist(), strict=True)) == expected
    assert rows.dtype == torch.int64
    # A selection can be selected from again.
    if chosen:
        twice = picked[torch.tensor([len(chosen) - 1, 0])]
        counts = torch.bincount(twice.storage.row(), minlength=2).tolist()
        assert counts == [sum(1 for k, _, _ in expected if k == of) for of in (len(chosen) - 1, 0)]


@pytest.mark.parametrize("device", DEVICES)
def test_triplets_as_in_gemnet(device: str) -> None:
    """The pairs of edges that end at the same atom, as GemNet collects them, with periodic copies of one edge."""
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randint(0, 5, (2, 40), generator=generator).to(device)
    num_atoms: Any = torch.tensor(6, device=device)
    edge = torch.arange(40, device=device)
    adj = sparse.SparseTensor(row=target, col=source, value=edge, sparse_sizes=(num_atoms, num_atoms))
    picked = adj[target].to(torch.device("cpu"))
    first, second = picked.storage.value(), picked.storage.row()
    assert first.device == torch.device("cpu")
    pairs = {(b, c) for b in range(40) for c in range(40) if target[b] == target[c]}
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == pairs
    assert len(pairs) == first.numel()
    assert bool((second.diff() >= 0).all())


def test_values_with_trailing_dimensions_and_gradient() -> None:
    """Values may be vectors, and gradients flow through the selection."""
    value = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    row, col, idx = torch.tensor([1, 0, 1, 1]), torch.tensor([0, 1, 1, 0]), torch.tensor([1, 1, 0])

    def run(x: Tensor) -> Tensor:
        return sparse.SparseTensor(row=row, col=col, value=x, sparse_sizes=(2, 2))[idx].storage.value()

    assert torch.equal(run(value), value[[0, 3, 2, 0, 3, 2, 1]])
    assert torch.autograd.gradcheck(run, (value,))


def test_no_entries() -> None:
    """A matrix and a selection may be empty."""
    none = torch.zeros(0, dtype=torch.long)
    empty = sparse.SparseTensor(row=none, col=none, value=none, sparse_sizes=(3, 3))[torch.tensor([2, 2])]
    assert empty.storage.row().numel() == 0 and empty.storage.value().numel() == 0


def test_wrong_arguments() -> None:
    """Mistakes and unsupported selections are refused."""
    row, col = torch.tensor([0, 1]), torch.tensor([1, 0])
    adj = sparse.SparseTensor(row=row, col=col, value=row, sparse_sizes=(2, 2))
    with pytest.raises(ValueError, match="same length"):
        sparse.SparseTensor(row=row, col=col[:1], value=row, sparse_sizes=(2, 2))
    with pytest.raises(ValueError, match="outside"):
        sparse.SparseTensor(row=row, col=col, value=row, sparse_sizes=(2, 1))
    with pytest.raises(IndexError):
        adj[torch.tensor([2])]
    for index in (0, slice(0, 1), torch.tensor([[0]]), torch.tensor([True, False]), torch.tensor([0.0])):
        with pytest.raises(NotImplementedError, match="install torch_sparse"):
            adj[index]
    with pytest.raises(AttributeError, match="install the package torch_sparse"):
        _ = sparse.matmul


def test_torch_geometric_and_mattergen_import() -> None:
    """With both fallbacks first on the path: no warning about them, no torch_sparse features, collation works."""
    code = """
import sys, warnings
sys.path.insert(0, sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch_scatter, torch_sparse
    import torch_geometric.typing
    from torch_geometric.data import Batch, Data
    from mattergen.common.gemnet.gemnet import GemNetT
assert not [w for w in caught if "torch-s" in str(w.message) or "torch_s" in str(w.message)], caught
assert torch_scatter.__version__.endswith("+fallback") and torch_sparse.__version__.endswith("+fallback")
assert torch_geometric.typing.WITH_TORCH_SCATTER and not torch_geometric.typing.WITH_TORCH_SPARSE
import torch
from torch_geometric.utils import scatter, segment, softmax
graph = Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), names=["a"])
batch = Batch.from_data_list([graph, graph])
assert batch.edge_index.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5]] and batch.num_graphs == 2
assert batch.to_data_list()[1].edge_index.tolist() == graph.edge_index.tolist()
x = torch.tensor([1.0, 4.0, 2.0], requires_grad=True)
index, ptr = torch.tensor([0, 0, 2]), torch.tensor([0, 2, 2, 3])
assert scatter(x, index, reduce="max").tolist() == segment(x, ptr, reduce="max").tolist() == [4.0, 0.0, 2.0]
torch.testing.assert_close(softmax(x, index), softmax(x, ptr=ptr))
source, target = torch.tensor([1, 2, 0, 0]), torch.tensor([0, 0, 1, 2])
first, second, _ = GemNetT.get_triplets(None, torch.stack([source, target]), torch.tensor(3))
assert (first.tolist(), second.tolist()) == ([1, 0], [0, 1])
print("passed")
"""
    command = [sys.executable, "-c", code, str(FOLDER)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.strip().endswith("passed"), result.stderr
