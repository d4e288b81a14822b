"""What MatterGen and torch_geometric call of the compiled package ``torch_scatter``, in plain PyTorch.

The package is distributed as source for most PyTorch releases. The folder that holds this file is put at the end of
``sys.path``, so an installed ``torch_scatter`` is found first and wins. MatterGen 1.0.3 calls ``scatter``,
``scatter_add``, ``segment_coo`` and ``segment_csr``; torch_geometric 2.8.1 ``scatter`` and ``segment_csr``, and
``scatter_max`` in pooling layers, which MatterGen has none of. Any other name says which package has it.

The behaviour was checked against the source of pytorch_scatter 2.1.2. It runs on CPU and CUDA tensors and supports
autograd. Known differences: ``out`` is refused; NaN is propagated by ``min`` and ``max``, whose gradient is shared by
equal extreme values; the gradient of ``mul`` is exact where factors are zero.

In the docstrings ``src`` has E entries along the reduced dimension, the result has N groups along it.
"""

from __future__ import annotations

import torch
from torch import Tensor

__version__ = "2.1.2+fallback"

__all__ = ["__version__", "scatter", "scatter_add", "segment_coo", "segment_csr"]

#: PyTorch's names of the reductions that ``scatter_reduce_`` does.
OPERATORS = {"mul": "prod", "min": "amin", "max": "amax"}


def __getattr__(name: str) -> object:
    """Explains which package is needed when a function that this file lacks is used."""
    raise AttributeError(f"the fallback for torch_scatter has no '{name}'; install the package torch_scatter to use it")


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: None = None,
    dim_size: int | Tensor | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduces the entries of each group.

    Args:
        src: Values, shape (..., E, ...) with E at ``dim``.
        index: Group numbers in [0, N). Shape (E,), or fewer dimensions than ``src`` aligned with its leading
            dimensions, or a shape that broadcasts to that of ``src``.
        dim: Dimension of ``src`` to reduce.
        out: Must be None.
        dim_size: N, an int or a zero-dimensional integer tensor. Default: ``index.max() + 1``.
        reduce: "sum", "add", "mean" (integer results are rounded down), "mul", "min" or "max".

    Returns:
        Reduced values, shape (..., N, ...). Empty groups hold 0, or 1 with "mul".

    Raises:
        ValueError: If ``reduce`` is none of the names above, or the index has too many dimensions.
        NotImplementedError: If ``out`` is given.
    """
    if dim < -src.dim() or dim >= src.dim():
        raise IndexError(f"dim {dim} is out of range for a tensor with {src.dim()} dimension(s)")
    dim %= src.dim()
    return _reduce(src, _align(index, src, dim), dim, out, dim_size, reduce)


def scatter_add(
    src: Tensor, index: Tensor, dim: int = -1, out: None = None, dim_size: int | Tensor | None = None
) -> Tensor:
    """Sums the entries of each group: :func:`scatter` with "sum"."""
    return scatter(src, index, dim, out, dim_size)


def segment_coo(
    src: Tensor, index: Tensor, out: None = None, dim_size: int | Tensor | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduces the entries of each group; the reduced dimension is the last one of ``index``.

    Args:
        src: Values, shape (x_0, ..., x_{m-1} = E, ..., x_{n-1}).
        index: Group numbers in ascending order along the last dimension, shape (x_0, ..., x_{m-1}); leading
            dimensions may be 1. Unsorted numbers give the same result as sorted ones.
        out: Must be None.
        dim_size: N, an int or a zero-dimensional integer tensor. Default: ``index.max() + 1``.
        reduce: As in :func:`scatter`.

    Returns:
        Reduced values, shape (x_0, ..., N, ..., x_{n-1}). Empty groups hold 0.
    """
    dim = _last_dim(src, index)
    return _reduce(src, _align(index, src, dim), dim, out, dim_size, reduce)


def segment_csr(src: Tensor, indptr: Tensor, out: None = None, reduce: str = "sum") -> Tensor:
    """Reduces the entries ``indptr[i]`` to ``indptr[i + 1] - 1`` of each segment.

    Args:
        src: Values, shape (x_0, ..., x_{m-1} = E, ..., x_{n-1}).
        indptr: Ascending pointers in [0, E], shape (x_0, ..., x_{m-2}, N + 1); leading dimensions may be 1.
        out: Must be None.
        reduce: As in :func:`scatter`.

    Returns:
        Reduced values, shape (x_0, ..., N, ..., x_{n-1}). Empty segments hold 0.
    """
    dim = _last_dim(src, indptr)
    num_groups = max(indptr.size(-1) - 1, 0)
    position = torch.arange(src.size(dim), dtype=indptr.dtype, device=indptr.device)
    position = position.expand([*indptr.size()[:-1], src.size(dim)])
    index = torch.searchsorted(indptr.contiguous(), position.contiguous(), right=True) - 1
    # Entries outside every segment form a group of their own, which is dropped.
    index = index.masked_fill(index < 0, num_groups)
    return _reduce(src, _align(index, src, dim), dim, out, num_groups + 1, reduce).narrow(dim, 0, num_groups)


def _last_dim(src: Tensor, index: Tensor) -> int:
    """Returns the last dimension of ``index``, which a segment function reduces."""
    if index.dim() == 0 or index.dim() > src.dim():
        raise ValueError(f"the index has {index.dim()} dimension(s), expected between 1 and {src.dim()}")
    return index.dim() - 1


def _align(index: Tensor, src: Tensor, dim: int) -> Tensor:
    """Gives ``index`` as many dimensions as ``src``.

    A one-dimensional index lies along ``dim``; an index with more dimensions is aligned with the leading
    dimensions of ``src``. Only ``dim`` is expanded to the size of ``src``, the other sizes stay as they are.
    """
    if index.dim() > src.dim():
        raise ValueError(f"index has {index.dim()} dimensions, more than the {src.dim()} of the values")
    if index.dim() == 1:
        index = index.view([1] * dim + [-1])
    index = index.view([*index.size(), *[1] * (src.dim() - index.dim())])
    if index.size(dim) != src.size(dim):
        sizes = list(index.size())
        sizes[dim] = src.size(dim)
        index = index.expand(sizes)
    return index


def _as_vector(index: Tensor, dim: int) -> Tensor | None:
    """Returns the aligned index as a vector of shape (E,) if it varies along ``dim`` only, otherwise None."""
    for d in range(index.dim()):
        if d != dim and (index.size(d) == 0 or (index.size(d) != 1 and index.stride(d) != 0)):
            return None
    vector = index
    for d in range(index.dim() - 1, -1, -1):
        if d != dim:
            vector = vector.select(d, 0)
    return vector


def _reduce(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | Tensor | None, reduce: str
) -> Tensor:
    """Reduces groups; ``index`` is aligned."""
    if out is not None:
        raise NotImplementedError(
            "the fallback for torch_scatter has no argument 'out'; install the package torch_scatter to use it"
        )
    size = list(src.size())
    if dim_size is not None:
        size[dim] = int(dim_size)
    else:
        size[dim] = int(index.max()) + 1 if index.numel() > 0 else 0
    if reduce in OPERATORS:
        start = src.new_ones(size) if reduce == "mul" else src.new_zeros(size)
        return start.scatter_reduce_(
            dim, index.expand(src.size()), src, OPERATORS[reduce], include_self=reduce == "mul"
        )
    if reduce not in ("sum", "add", "mean"):
        raise ValueError(f"unknown reduction '{reduce}': use sum, add, mul, mean, min or max")
    vector = _as_vector(index, dim)
    if vector is not None:
        total = src.new_zeros(size).index_add_(dim, vector, src)
    else:
        total = src.new_zeros(size).scatter_add_(dim, index.expand(src.size()), src)
    if reduce != "mean":
        return total
    rounding = None if src.is_floating_point() or src.is_complex() else "floor"
    return total.div_(_counts(index, dim, size[dim]).to(src.dtype), rounding_mode=rounding)


def _counts(index: Tensor, dim: int, num_groups: int) -> Tensor:
    """Returns the group sizes, at least 1, broadcastable to the result."""
    sizes = list(index.size())
    sizes[dim] = num_groups
    ones = torch.ones([1], dtype=torch.long, device=index.device).expand(index.size())
    count = torch.zeros(sizes, dtype=torch.long, device=index.device)
    return count.scatter_add_(dim, index, ones).clamp_(min=1)
