"""Tests of the pure-PyTorch stand-in for torch_scatter against loops over single entries."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
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


ts = load("torch_scatter")

REDUCTIONS = ["sum", "add", "mul", "mean", "min", "max"]
FAST = settings(max_examples=60, deadline=None, database=None)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


# References


def spread(index: np.ndarray, shape: tuple[int, ...], dim: int) -> np.ndarray:
    """Repeats an index until it has the given shape."""
    dim %= len(shape)
    if index.ndim == 1:
        index = index.reshape((1,) * dim + (-1,))
    index = index.reshape(index.shape + (1,) * (len(shape) - index.ndim))
    return np.broadcast_to(index, shape)


def groups_of(
    src: np.ndarray, index: np.ndarray, dim: int, num_groups: int
) -> dict[tuple[int, ...], list[tuple[int, Any]]]:
    """Lists (position, value) for every place of the result, in ascending order of position."""
    shape = list(src.shape)
    shape[dim] = num_groups
    groups: dict[tuple[int, ...], list[tuple[int, Any]]] = {place: [] for place in np.ndindex(*shape)}
    full = spread(index, src.shape, dim)
    for at in np.ndindex(*src.shape):
        place = list(at)
        place[dim] = int(full[at])
        groups[tuple(place)].append((at[dim], src[at]))
    for entries in groups.values():
        entries.sort(key=lambda entry: entry[0])
    return groups


def loop_reduce(
    reduce: str, src: np.ndarray, index: np.ndarray, dim: int, num_groups: int, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reduces group by group; returns values and positions (the latter of use for min and max only)."""
    dim %= src.ndim
    shape = list(src.shape)
    shape[dim] = num_groups
    result = np.zeros(shape, dtype=src.dtype)
    arg = np.full(shape, src.shape[dim], dtype=np.int64)
    for place, entries in groups_of(src, index, dim, num_groups).items():
        values = [value for _, value in entries]
        old = None if out is None else out[place]
        if reduce in ("sum", "add"):
            result[place] = sum(values) + (0 if old is None else old)
        elif reduce == "mul":
            result[place] = np.prod([1 if old is None else old, *values])
        elif reduce == "mean":
            total = sum(values) + (0 if old is None else old)
            count = max(len(values), 1)
            result[place] = total // count if np.issubdtype(src.dtype, np.integer) else total / count
        else:
            best = old
            for position, value in entries:
                if best is None or (value < best if reduce == "min" else value > best):
                    best, arg[place] = value, position
            result[place] = 0 if best is None else best
    return result, arg


def loop_segments(reduce: str, src: np.ndarray, indptr: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduces the slices between pointers; ``indptr`` has all leading dimensions of ``src``."""
    shape = list(src.shape)
    shape[dim] = indptr.shape[-1] - 1
    result = np.zeros(shape, dtype=src.dtype)
    arg = np.full(shape, src.shape[dim], dtype=np.int64)
    for place in np.ndindex(*shape):
        lead, segment = place[:dim], place[dim]
        start, stop = int(indptr[(*lead, segment)]), int(indptr[(*lead, segment + 1)])
        values = src[(*lead, slice(start, stop), *place[dim + 1 :])]
        if len(values) == 0:
            continue
        if reduce in ("sum", "add"):
            result[place] = values.sum()
        elif reduce == "mean":
            result[place] = (
                values.sum() // len(values) if np.issubdtype(src.dtype, np.integer) else values.sum() / len(values)
            )
        else:
            which = int(values.argmin() if reduce == "min" else values.argmax())
            result[place], arg[place] = values[which], start + which
    return result, arg


def same(actual: Tensor, expected: np.ndarray) -> None:
    """Compares a tensor with an array, value by value and in shape."""
    assert tuple(actual.shape) == expected.shape
    np.testing.assert_allclose(actual.detach().cpu().numpy(), expected, rtol=1e-12, atol=1e-12)


# Random input


@st.composite
def cases(draw: st.DrawFn, floating: bool | None = None) -> tuple[Tensor, Tensor, int, int]:
    """Draws values, index, dimension and a number of groups that leaves some groups empty."""
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    axis = dim % len(shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["vector", "vector", "leading", "full", "ones"]))
    if kind == "vector":
        index_shape: tuple[int, ...] = (shape[axis],)
    elif kind == "leading":
        index_shape = shape[: draw(st.integers(axis + 1, len(shape)))]
    elif kind == "full":
        index_shape = shape
    else:
        index_shape = tuple(size if d == axis or rng.random() < 0.5 else 1 for d, size in enumerate(shape))
    if len(index_shape) == 1:
        index_shape = (shape[axis],)
    index = rng.integers(0, draw(st.integers(1, 6)), size=index_shape)
    num_groups = (int(index.max()) + 1 if index.size else 0) + draw(st.integers(0, 2))
    use_float = draw(st.booleans()) if floating is None else floating
    src = rng.integers(-3, 4, size=shape).astype(np.float64 if use_float else np.int64)
    return torch.from_numpy(src), torch.from_numpy(index), dim, num_groups


@FAST
@given(case=cases(), reduce=st.sampled_from(REDUCTIONS), as_tensor=st.booleans())
def test_scatter_equals_loop(case: tuple[Tensor, Tensor, int, int], reduce: str, as_tensor: bool) -> None:
    """Every reduction over ragged groups, with dim_size as int and as zero-dimensional tensor."""
    src, index, dim, num_groups = case
    expected, _ = loop_reduce(reduce, src.numpy(), index.numpy(), dim, num_groups)
    dim_size: Any = torch.tensor(num_groups) if as_tensor else num_groups
    same(ts.scatter(src, index, dim, dim_size=dim_size, reduce=reduce), expected)
    if reduce in ("sum", "add"):
        same(ts.scatter_add(src, index, dim=dim, dim_size=dim_size), expected)


@FAST
@given(case=cases(), reduce=st.sampled_from(REDUCTIONS))
def test_scatter_without_dim_size(case: tuple[Tensor, Tensor, int, int], reduce: str) -> None:
    """The result has as many groups as the largest index needs."""
    src, index, dim, _ = case
    assume(index.numel() > 0)
    expected, _ = loop_reduce(reduce, src.numpy(), index.numpy(), dim, int(index.max()) + 1)
    same(ts.scatter(src, index, dim, reduce=reduce), expected)


# Sorted index and pointers


@FAST
@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    trail=st.lists(st.integers(0, 3), max_size=1),
    num_entries=st.integers(0, 6),
    reduce=st.sampled_from(["sum", "add", "mean", "min", "max"]),
    extra=st.integers(0, 2),
    shared=st.booleans(),
    floating=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_segment_coo_equals_loop(
    lead: list[int],
    trail: list[int],
    num_entries: int,
    reduce: str,
    extra: int,
    shared: bool,
    floating: bool,
    seed: int,
) -> None:
    """Sorted groups along the last dimension of the index, shared by the leading dimensions or not."""
    rng = np.random.default_rng(seed)
    dim = len(lead)
    src = rng.integers(-3, 4, size=(*lead, num_entries, *trail)).astype(np.float64 if floating else np.int64)
    index = np.sort(rng.integers(0, 5, size=((1,) * dim if shared else tuple(lead)) + (num_entries,)), axis=-1)
    num_groups = (int(index.max()) + 1 if index.size else 0) + extra
    full = np.broadcast_to(index, (*lead, num_entries)).reshape((*lead, num_entries) + (1,) * len(trail))
    values, where = torch.from_numpy(src), torch.from_numpy(index)
    expected, _ = loop_reduce(reduce, src, np.broadcast_to(full, src.shape), dim, num_groups)
    same(ts.segment_coo(values, where, dim_size=num_groups, reduce=reduce), expected)


@FAST
@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    trail=st.lists(st.integers(0, 3), max_size=1),
    num_entries=st.integers(0, 6),
    num_groups=st.integers(0, 6),
    reduce=st.sampled_from(["sum", "add", "mean", "min", "max"]),
    cover=st.booleans(),
    shared=st.booleans(),
    floating=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_segment_csr_equals_loop(
    lead: list[int],
    trail: list[int],
    num_entries: int,
    num_groups: int,
    reduce: str,
    cover: bool,
    shared: bool,
    floating: bool,
    seed: int,
) -> None:
    """Segments between pointers, with repeated pointers and with entries outside every segment."""
    rng = np.random.default_rng(seed)
    dim = len(lead)
    src = rng.integers(-3, 4, size=(*lead, num_entries, *trail)).astype(np.float64 if floating else np.int64)
    shape = ((1,) * dim if shared else tuple(lead)) + (num_groups + 1,)
    indptr = np.sort(rng.integers(0, num_entries + 1, size=shape), axis=-1)
    if cover and num_groups > 0:
        indptr[..., 0], indptr[..., -1] = 0, num_entries
    full = np.broadcast_to(indptr, (*lead, num_groups + 1))
    values, pointers = torch.from_numpy(src), torch.from_numpy(indptr)
    expected, _ = loop_segments(reduce, src, full, dim)
    same(ts.segment_csr(values, pointers, reduce=reduce), expected)


def test_segment_csr_repeated_pointers() -> None:
    """A pointer that occurs several times makes empty segments."""
    src = torch.arange(1.0, 6.0)
    indptr = torch.tensor([0, 0, 2, 2, 2, 5, 5])
    assert ts.segment_csr(src, indptr).tolist() == [0.0, 3.0, 0.0, 0.0, 12.0, 0.0]
    assert ts.segment_csr(src, indptr, reduce="mean").tolist() == [0.0, 1.5, 0.0, 0.0, 4.0, 0.0]
    assert ts.segment_csr(src, indptr, reduce="max").tolist() == [0.0, 2.0, 0.0, 0.0, 5.0, 0.0]


# Gradients


def gradient_input() -> tuple[Tensor, Tensor]:
    """Values without ties and groups of size 3, 0, 2 and 2."""
    generator = torch.Generator().manual_seed(0)
    src = torch.randn(7, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    return src, torch.tensor([2, 0, 0, 3, 2, 0, 3])


@pytest.mark.parametrize("layout", ["vector", "full", "inner"])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradient_of_scatter(reduce: str, layout: str) -> None:
    """First derivatives of all reductions, and second ones of the linear ones."""
    src, index = gradient_input()
    dim = 0
    if layout == "full":
        index = index.unsqueeze(-1).expand(7, 3).contiguous()
    elif layout == "inner":
        src, dim = src.detach().t().contiguous().requires_grad_(), 1

    def run(x: Tensor) -> Tensor:
        return ts.scatter(x, index, dim, dim_size=5, reduce=reduce)

    assert torch.autograd.gradcheck(run, (src,))
    if reduce in ("sum", "add", "mean"):
        assert torch.autograd.gradgradcheck(run, (src,))


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_gradient_of_segments(reduce: str) -> None:
    """Segments by sorted index and by pointers, with empty segments."""
    src, index = gradient_input()
    order, pointers = index.sort().values, torch.tensor([0, 3, 3, 5, 7, 7])
    assert torch.autograd.gradcheck(lambda x: ts.segment_coo(x, order, dim_size=5, reduce=reduce), (src,))
    assert torch.autograd.gradcheck(lambda x: ts.segment_csr(x, pointers, reduce=reduce), (src,))


def test_gradient_of_products_with_zeros() -> None:
    """The derivative of a product with one zero factor is the product of the others."""
    src = torch.tensor([0.0, 2.0, 5.0, 0.0, 0.0], requires_grad=True)
    ts.scatter(src, torch.tensor([0, 0, 0, 1, 1]), reduce="mul").sum().backward()
    assert src.grad is not None and src.grad.tolist() == [10.0, 0.0, 0.0, 0.0, 0.0]


# Details


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_large_input_in_single_precision(reduce: str, device: str) -> None:
    """A shape as in a training step, compared with a reduction in double precision on the CPU."""
    generator = torch.Generator().manual_seed(0)
    src = torch.rand(2000, 16, generator=generator) + 0.5
    index = torch.randint(0, 60, (2000,), generator=generator)
    expected, _ = loop_reduce(reduce, src.double().numpy(), index.numpy(), 0, 61)
    actual = ts.scatter(src.to(device), index.to(device), 0, dim_size=torch.tensor(61, device=device), reduce=reduce)
    assert actual.dtype == torch.float32 and actual.device.type == device
    np.testing.assert_allclose(actual.cpu().numpy(), expected, rtol=1e-4)


def test_counts_are_exact_in_half_precision() -> None:
    """The mean divides by 2000 although bfloat16 cannot count beyond 256."""
    src = torch.zeros(2000, dtype=torch.bfloat16)
    src[7] = 256.0
    assert ts.scatter(src, torch.zeros(2000, dtype=torch.long), reduce="mean").item() == pytest.approx(0.128, rel=0.01)


def test_non_finite_values() -> None:
    """NaN and infinities reach the result."""
    inf, nan = float("inf"), float("nan")
    src, index = torch.tensor([1.0, nan, -inf, -inf, inf, 2.0]), torch.tensor([0, 0, 1, 1, 2, 2])
    value = ts.scatter(src, index, dim_size=4, reduce="max")
    torch.testing.assert_close(value, torch.tensor([nan, -inf, inf, 0.0]), equal_nan=True)


def test_one_index_entry_serves_all() -> None:
    """An index with a single entry is repeated along dim."""
    assert ts.scatter(torch.arange(4.0), torch.tensor([1])).tolist() == [0.0, 6.0]


def test_default_dim_is_the_last() -> None:
    """As in the compiled package."""
    src = torch.arange(6.0).view(2, 3)
    assert ts.scatter(src, torch.tensor([0, 0, 1])).tolist() == [[1.0, 2.0], [7.0, 5.0]]


def test_wrong_arguments() -> None:
    """Mistakes are refused instead of giving a wrong result."""
    src = torch.arange(4.0)
    for call in (ts.scatter, ts.segment_coo):
        with pytest.raises(ValueError, match="unknown reduction"):
            call(src, torch.tensor([0, 0, 1, 1]), reduce="median")
    with pytest.raises(ValueError, match="expected between 1 and 1"):
        ts.segment_csr(src, torch.tensor(0))
    with pytest.raises(NotImplementedError, match="no argument 'out'; install the package torch_scatter"):
        ts.scatter(src, torch.tensor([0, 0, 1, 1]), out=torch.zeros(2))
    with pytest.raises(IndexError):
        ts.scatter(src, torch.tensor([0, 0, 1, 1]), dim=1)
    with pytest.raises((IndexError, RuntimeError)):
        ts.scatter(src, torch.tensor([0, 0, 1, 2]), dim_size=2)
    with pytest.raises(RuntimeError):
        ts.scatter(src, torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="dimensions"):
        ts.scatter(src, torch.zeros(4, 1, dtype=torch.long))


def test_a_missing_name_says_which_package_has_it() -> None:
    """One sentence, whether the name is read or imported."""
    with pytest.raises(AttributeError, match="no 'scatter_softmax'; install the package torch_scatter"):
        _ = ts.scatter_softmax
    assert not hasattr(ts, "scatter_max")


# Which of two modules is found


def found(name: str, *folders: Path) -> str:
    """Imports ``name`` with the folders as the only addition to the standard library; returns its version."""
    code = f"import sys; sys.path += sys.argv[1:]; import {name}; print({name}.__version__)"
    command = [sys.executable, "-I", "-S", "-c", code, *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", ["torch_scatter", "torch_sparse"])
def test_installed_package_wins(name: str, tmp_path: Path) -> None:
    """A package folder wins over the fallback from an earlier folder of sys.path and from the same folder."""
    installed = tmp_path / "installed"
    (installed / name).mkdir(parents=True)
    (installed / name / "__init__.py").write_text("__version__ = 'installed'\n")
    assert found(name, installed, FOLDER) == "installed"

    shutil.copy(FOLDER / f"{name}.py", installed)
    assert found(name, installed) == "installed"

    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "torch.py").write_text("class Tensor: ...\n")  # Enough to import the fallback without PyTorch.
    assert found(name, empty, FOLDER).endswith("+fallback")
