"""Pure-PyTorch stand-in for the compiled package ``torch_scatter``.

MatterGen and torch_geometric import ``torch_scatter``, which is distributed as source for most PyTorch releases.
This file offers the same functions, written with PyTorch operators only. The folder that holds it is put at the
end of ``sys.path``, so an installed ``torch_scatter`` is found first and wins.

The behaviour was checked against the source of pytorch_scatter 2.1.2 and the calls made by MatterGen 1.0.3 and
torch_geometric 2.8.1. It runs on CPU and CUDA tensors and supports autograd. Known differences:

* For equal extreme values, the position returned by ``min``/``max`` is the first one on every device. The compiled
  package returns the first one on CPU and an unspecified one on CUDA.
* NaN and infinite values are propagated by ``min``, ``max`` and ``logsumexp``. The compiled package ignores NaN.
* The gradient of ``mul`` is exact where factors are zero. The compiled package sets it to zero there.

Notation in the docstrings: ``src`` has E entries along ``dim``, the result has N groups along ``dim``.
"""

from __future__ import annotations

import torch
from torch import Tensor

__version__ = "2.1.2+fallback"

__all__ = [
    "__version__",
    "gather_coo",
    "gather_csr",
    "scatter",
    "scatter_add",
    "scatter_log_softmax",
    "scatter_logsumexp",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_mul",
    "scatter_softmax",
    "scatter_std",
    "scatter_sum",
    "segment_add_coo",
    "segment_add_csr",
    "segment_coo",
    "segment_csr",
    "segment_max_coo",
    "segment_max_csr",
    "segment_mean_coo",
    "segment_mean_csr",
    "segment_min_coo",
    "segment_min_csr",
    "segment_sum_coo",
    "segment_sum_csr",
]


# Index helpers


def _positive_dim(src: Tensor, dim: int) -> int:
    """Returns ``dim`` counted from the front; raises IndexError outside ``[-src.dim(), src.dim())``."""
    if dim < -src.dim() or dim >= src.dim():
        raise IndexError(f"dim {dim} is out of range for a tensor with {src.dim()} dimension(s)")
    return dim + src.dim() if dim < 0 else dim


def _align(index: Tensor, src: Tensor, dim: int) -> Tensor:
    """Gives ``index`` as many dimensions as ``src``.

    A one-dimensional index lies along ``dim``; an index with more dimensions is aligned with the leading
    dimensions of ``src``. Only ``dim`` is expanded to the size of ``src``, the other sizes stay as they are.
    """
    if index.dim() > src.dim():
        raise ValueError(f"index has {index.dim()} dimensions, more than the {src.dim()} of the values")
    if index.dim() == 1:
        for _ in range(dim):
            index = index.unsqueeze(0)
    for _ in range(src.dim() - index.dim()):
        index = index.unsqueeze(-1)
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


def _num_groups(index: Tensor, dim_size: int | None) -> int:
    """Returns ``dim_size`` as an int, or the smallest size that holds every entry of ``index``."""
    if dim_size is not None:
        return int(dim_size)
    if index.numel() == 0:
        return 0
    return int(index.max()) + 1


def _new_out(src: Tensor, index: Tensor, dim: int, dim_size: int | None) -> Tensor:
    """Returns zeros with the shape of ``src``, but with the number of groups along ``dim``."""
    size = list(src.size())
    size[dim] = _num_groups(index, dim_size)
    return src.new_zeros(size)


def _same_but(out: Tensor, src: Tensor, dim: int) -> bool:
    """Tells whether ``out`` and ``src`` have the same shape outside ``dim``."""
    if out.dim() != src.dim():
        return False
    for d in range(src.dim()):
        if d != dim and out.size(d) != src.size(d):
            return False
    return True


def _add_(out: Tensor, src: Tensor, index: Tensor, dim: int) -> Tensor:
    """Adds ``src`` into ``out`` in place; ``index`` is aligned."""
    vector = _as_vector(index, dim)
    if vector is not None and _same_but(out, src, dim):
        return out.index_add_(dim, vector, src)
    return out.scatter_add_(dim, index.expand(src.size()), src)


def _take(src: Tensor, index: Tensor, dim: int, like: Tensor) -> Tensor:
    """Returns the group value of every entry, shaped like ``like``; ``index`` is aligned."""
    vector = _as_vector(index, dim)
    if vector is not None:
        return src.index_select(dim, vector)
    return src.gather(dim, index.expand(like.size()))


def _counts(src: Tensor, index: Tensor, dim: int, num_groups: int) -> Tensor:
    """Returns the group sizes in the dtype of ``src``, at least 1, broadcastable to the result."""
    size = list(index.size())
    vector = _as_vector(index, dim)
    if vector is not None:
        index, dim_of_index, size = vector, 0, [1] * src.dim()
    else:
        dim_of_index = dim
    size[dim] = num_groups
    counted = list(index.size())
    counted[dim_of_index] = num_groups
    ones = torch.ones([1], dtype=torch.long, device=src.device).expand(index.size())
    count = torch.zeros(counted, dtype=torch.long, device=src.device).scatter_add_(dim_of_index, index, ones)
    return count.clamp_(min=1).to(src.dtype).view(size)


def _mean(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None) -> Tensor:
    """Group means; ``index`` is aligned. With ``out``, its old values are added before the division."""
    if out is None:
        out = _new_out(src, index, dim, dim_size)
    out = _add_(out, src, index, dim)
    count = _counts(src, index, dim, out.size(dim))
    if out.is_floating_point() or out.is_complex():
        return out.div_(count)
    return out.div_(count, rounding_mode="floor")


def _extreme(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, largest: bool
) -> tuple[Tensor, Tensor]:
    """Group minima or maxima and the position of the first entry that attains them; ``index`` is aligned.

    The gradient of a group goes to that entry alone. The gradient of an ``out`` value that stays goes to ``out``.
    """
    num_entries = src.size(dim)
    reduce = "amax" if largest else "amin"
    old = _new_out(src, index, dim, dim_size) if out is None else out
    if src.numel() == 0:
        return old, torch.full(old.size(), num_entries, dtype=torch.long, device=src.device)

    full = index.expand(src.size())
    values = src.detach()
    best = old.detach().clone().scatter_reduce_(dim, full, values, reduce, include_self=out is not None)
    seen = _take(best, index, dim, src)
    hit = values == seen
    if src.is_floating_point():
        hit = hit | (values.isnan() & seen.isnan())
    if out is not None:
        # An entry that only equals the old value of `out` does not replace it.
        hit = hit & (seen != _take(old.detach(), index, dim, src))
    size = [1] * src.dim()
    size[dim] = num_entries
    position = torch.arange(num_entries, device=src.device).view(size).expand(src.size())
    position = position.masked_fill(~hit, num_entries)
    arg = torch.full(old.size(), num_entries, dtype=torch.long, device=src.device)
    arg = arg.scatter_reduce_(dim, full, position, "amin", include_self=True)

    if out is None and not (src.requires_grad and torch.is_grad_enabled()):
        return best, arg
    found = src.gather(dim, arg.clamp(max=num_entries - 1))
    new = torch.where(arg < num_entries, found, old)
    return (new if out is None else out.copy_(new)), arg


def _extreme_value(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, largest: bool
) -> Tensor:
    """First result of :func:`_extreme`, without the positions where neither caller nor autograd needs them."""
    if out is not None or src.numel() == 0 or (src.requires_grad and torch.is_grad_enabled()):
        return _extreme(src, index, dim, out, dim_size, largest)[0]
    reduce = "amax" if largest else "amin"
    new = _new_out(src, index, dim, dim_size)
    return new.scatter_reduce_(dim, index.expand(src.size()), src, reduce, include_self=False)


# Reductions by index


def scatter_sum(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Sums the entries of each group.

    Args:
        src: Values, shape (..., E, ...) with E at ``dim``.
        index: Group numbers in [0, N). Shape (E,), or fewer dimensions than ``src`` aligned with its leading
            dimensions, or a shape that broadcasts to that of ``src``.
        dim: Dimension of ``src`` to reduce.
        out: Tensor of shape (..., N, ...) that is added to in place.
        dim_size: N, an int or a zero-dimensional integer tensor. Default: ``index.max() + 1``.

    Returns:
        Sums, shape (..., N, ...). Empty groups hold 0.
    """
    dim = _positive_dim(src, dim)
    index = _align(index, src, dim)
    if out is None:
        out = _new_out(src, index, dim, dim_size)
    return _add_(out, src, index, dim)


def scatter_add(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Same as :func:`scatter_sum`.

    Args:
        src: Values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension of ``src`` to reduce.
        out: Tensor of shape (..., N, ...) that is added to in place.
        dim_size: N.

    Returns:
        Sums, shape (..., N, ...).
    """
    return scatter_sum(src, index, dim, out, dim_size)


def scatter_mul(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Multiplies the entries of each group.

    Args:
        src: Values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension of ``src`` to reduce.
        out: Tensor of shape (..., N, ...) that is multiplied in place.
        dim_size: N.

    Returns:
        Products, shape (..., N, ...). Empty groups hold 1.
    """
    dim = _positive_dim(src, dim)
    index = _align(index, src, dim)
    if out is None:
        out = torch.ones_like(_new_out(src, index, dim, dim_size))
    return out.scatter_reduce_(dim, index.expand(src.size()), src, "prod", include_self=True)


def scatter_mean(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Averages the entries of each group; integer results are rounded down.

    Args:
        src: Values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension of ``src`` to reduce.
        out: Tensor of shape (..., N, ...). The sums are added to it in place, then it is divided by the counts.
        dim_size: N.

    Returns:
        Means, shape (..., N, ...). Empty groups hold 0.
    """
    dim = _positive_dim(src, dim)
    return _mean(src, _align(index, src, dim), dim, out, dim_size)


def scatter_min(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Takes the smallest entry of each group.

    Args:
        src: Values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension of ``src`` to reduce.
        out: Tensor of shape (..., N, ...) whose values take part; it is overwritten in place.
        dim_size: N.

    Returns:
        Minima and their positions along ``dim``, both of shape (..., N, ...). Empty groups hold 0, their position
        is E. With ``out``, the position is E where no entry is smaller than the old value.
    """
    dim = _positive_dim(src, dim)
    return _extreme(src, _align(index, src, dim), dim, out, dim_size, False)


def scatter_max(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Takes the largest entry of each group.

    Args:
        src: Values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension of ``src`` to reduce.
        out: Tensor of shape (..., N, ...) whose values take part; it is overwritten in place.
        dim_size: N.

    Returns:
        Maxima and their positions along ``dim``, both of shape (..., N, ...). Empty groups hold 0, their position
        is E. With ``out``, the position is E where no entry is larger than the old value.
    """
    dim = _positive_dim(src, dim)
    return _extreme(src, _align(index, src, dim), dim, out, dim_size, True)


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduces the entries of each group.

    Args:
        src: Values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension of ``src`` to reduce.
        out: Tensor of shape (..., N, ...) that takes part in the reduction and is overwritten in place.
        dim_size: N, an int or a zero-dimensional integer tensor. Default: ``index.max() + 1``.
        reduce: "sum", "add", "mul", "mean", "min" or "max".

    Returns:
        Reduced values, shape (..., N, ...).

    Raises:
        ValueError: If ``reduce`` is none of the names above.
    """
    if reduce == "sum" or reduce == "add":
        return scatter_sum(src, index, dim, out, dim_size)
    if reduce == "mul":
        return scatter_mul(src, index, dim, out, dim_size)
    if reduce == "mean":
        return scatter_mean(src, index, dim, out, dim_size)
    if reduce == "min" or reduce == "max":
        dim = _positive_dim(src, dim)
        return _extreme_value(src, _align(index, src, dim), dim, out, dim_size, reduce == "max")
    raise ValueError(f"unknown reduction '{reduce}': use sum, add, mul, mean, min or max")


# Compositions


def _check_floating(src: Tensor, name: str) -> None:
    """Raises ValueError unless ``src`` has a floating-point dtype."""
    if not src.is_floating_point():
        raise ValueError(f"{name} needs a floating-point tensor")


def _shift(src: Tensor, index: Tensor, dim: int, num_groups: int) -> Tensor:
    """Returns the group maxima without gradient, shape (..., N, ...); 0 where they are not finite."""
    size = list(src.size())
    size[dim] = num_groups
    top = src.new_zeros(size)
    if src.numel() > 0:
        top.scatter_reduce_(dim, index.expand(src.size()), src.detach(), "amax", include_self=False)
    return top.masked_fill_(~top.isfinite(), 0.0)


def scatter_softmax(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> Tensor:
    """Softmax over the entries of each group.

    Args:
        src: Floating-point values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension along which groups are formed.
        dim_size: N.

    Returns:
        Weights, shape of ``src``.

    Raises:
        ValueError: If ``src`` is not of floating-point type.
    """
    _check_floating(src, "scatter_softmax")
    dim = _positive_dim(src, dim)
    index = _align(index, src, dim)
    num_groups = _num_groups(index, dim_size)
    weights = (src - _take(_shift(src, index, dim, num_groups), index, dim, src)).exp()
    total = _add_(_new_out(src, index, dim, num_groups), weights, index, dim)
    return weights / _take(total, index, dim, src)


def scatter_log_softmax(
    src: Tensor, index: Tensor, dim: int = -1, eps: float = 1e-12, dim_size: int | None = None
) -> Tensor:
    """Logarithm of the softmax over the entries of each group.

    Args:
        src: Floating-point values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension along which groups are formed.
        eps: Added to the normalisation before the logarithm.
        dim_size: N.

    Returns:
        Logarithms of the weights, shape of ``src``.

    Raises:
        ValueError: If ``src`` is not of floating-point type.
    """
    _check_floating(src, "scatter_log_softmax")
    dim = _positive_dim(src, dim)
    index = _align(index, src, dim)
    num_groups = _num_groups(index, dim_size)
    centred = src - _take(_shift(src, index, dim, num_groups), index, dim, src)
    total = _add_(_new_out(src, index, dim, num_groups), centred.exp(), index, dim)
    return centred - _take((total + eps).log(), index, dim, src)


def scatter_logsumexp(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    eps: float = 1e-12,
) -> Tensor:
    """Logarithm of the sum of exponentials of each group.

    Args:
        src: Floating-point values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension of ``src`` to reduce.
        out: Tensor of shape (..., N, ...) whose values take part as one more entry per group. It is not modified.
        dim_size: N.
        eps: Added to the sum of exponentials, after the largest entry is factored out, before the logarithm.

    Returns:
        Values of shape (..., N, ...). Empty groups hold 0, or the value of ``out`` where it is given.

    Raises:
        ValueError: If ``src`` is not of floating-point type.
    """
    _check_floating(src, "scatter_logsumexp")
    dim = _positive_dim(src, dim)
    index = _align(index, src, dim)
    num_groups = _num_groups(index, dim_size) if out is None else out.size(dim)
    size = list(src.size())
    size[dim] = num_groups
    top = src.new_full(size, float("-inf"))
    if src.numel() > 0:
        top.scatter_reduce_(dim, index.expand(src.size()), src.detach(), "amax", include_self=True)
    empty = top == float("-inf")
    if out is not None:
        top = torch.maximum(top, out.detach())
    shift = top.masked_fill(~top.isfinite(), 0.0)
    total = torch.zeros_like(shift) if out is None else (out - shift).exp()
    total = _add_(total, (src - _take(shift, index, dim, src)).exp(), index, dim)
    result = (total + eps).log() + shift
    return result.masked_fill(empty, 0.0) if out is None else torch.where(empty, out, result)


def scatter_std(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    unbiased: bool = True,
) -> Tensor:
    """Standard deviation of the entries of each group.

    Args:
        src: Floating-point values, shape (..., E, ...).
        index: Group numbers, see :func:`scatter_sum`.
        dim: Dimension of ``src`` to reduce.
        out: Tensor of shape (..., N, ...) to which the sums of squared deviations are added in place before the
            division.
        dim_size: N.
        unbiased: Divide by the group size minus one instead of the group size.

    Returns:
        Standard deviations, shape (..., N, ...). Empty groups and single entries hold 0. As in the compiled
        package, the divisor is increased by 1e-6.
    """
    dim = _positive_dim(src, dim)
    index = _align(index, src, dim)
    num_groups = _num_groups(index, dim_size) if out is None else out.size(dim)
    count = _counts(src, index, dim, num_groups)
    mean = _add_(_new_out(src, index, dim, num_groups), src, index, dim) / count
    squares = (src - _take(mean, index, dim, src)).square()
    if out is None:
        out = _new_out(src, index, dim, num_groups)
    total = _add_(out, squares, index, dim)
    if unbiased:
        count = (count - 1).clamp(min=1)
    return (total / (count + 1e-6)).sqrt()


# Reductions by sorted index


def _coo_index(src: Tensor, index: Tensor) -> tuple[Tensor, int]:
    """Returns the aligned index of a ``*_coo`` function and the dimension it reduces (the last of ``index``)."""
    if index.dim() == 0 or index.dim() > src.dim():
        raise ValueError(f"index has {index.dim()} dimension(s), expected between 1 and {src.dim()}")
    dim = index.dim() - 1
    return _align(index, src, dim), dim


def segment_sum_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Sums the entries of each group; the reduced dimension is the last one of ``index``.

    Args:
        src: Values, shape (x_0, ..., x_{m-1} = E, ..., x_{n-1}).
        index: Group numbers in ascending order along the last dimension, shape (x_0, ..., x_{m-1}); leading
            dimensions may be 1. Unsorted numbers give the same result as sorted ones.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) that is added to in place.
        dim_size: N, an int or a zero-dimensional integer tensor. Default: ``index.max() + 1``.

    Returns:
        Sums, shape (x_0, ..., N, ..., x_{n-1}). Empty groups hold 0.
    """
    aligned, dim = _coo_index(src, index)
    if out is None:
        out = _new_out(src, aligned, dim, dim_size)
    return _add_(out, src, aligned, dim)


def segment_add_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Same as :func:`segment_sum_coo`.

    Args:
        src: Values, see :func:`segment_sum_coo`.
        index: Group numbers, see :func:`segment_sum_coo`.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) that is added to in place.
        dim_size: N.

    Returns:
        Sums, shape (x_0, ..., N, ..., x_{n-1}).
    """
    return segment_sum_coo(src, index, out, dim_size)


def segment_mean_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Averages the entries of each group; integer results are rounded down.

    Args:
        src: Values, see :func:`segment_sum_coo`.
        index: Group numbers, see :func:`segment_sum_coo`.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}). The sums are added to it in place, then it is divided by
            the counts.
        dim_size: N.

    Returns:
        Means, shape (x_0, ..., N, ..., x_{n-1}). Empty groups hold 0.
    """
    aligned, dim = _coo_index(src, index)
    return _mean(src, aligned, dim, out, dim_size)


def segment_min_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Takes the smallest entry of each group.

    Args:
        src: Values, see :func:`segment_sum_coo`.
        index: Group numbers, see :func:`segment_sum_coo`.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) whose values take part; it is overwritten in place.
        dim_size: N.

    Returns:
        Minima and their positions, both of shape (x_0, ..., N, ..., x_{n-1}). Empty groups hold 0 and position E.
    """
    aligned, dim = _coo_index(src, index)
    return _extreme(src, aligned, dim, out, dim_size, False)


def segment_max_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Takes the largest entry of each group.

    Args:
        src: Values, see :func:`segment_sum_coo`.
        index: Group numbers, see :func:`segment_sum_coo`.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) whose values take part; it is overwritten in place.
        dim_size: N.

    Returns:
        Maxima and their positions, both of shape (x_0, ..., N, ..., x_{n-1}). Empty groups hold 0 and position E.
    """
    aligned, dim = _coo_index(src, index)
    return _extreme(src, aligned, dim, out, dim_size, True)


def segment_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduces the entries of each group; the reduced dimension is the last one of ``index``.

    Args:
        src: Values, see :func:`segment_sum_coo`.
        index: Group numbers, see :func:`segment_sum_coo`.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) that takes part in the reduction and is overwritten.
        dim_size: N, an int or a zero-dimensional integer tensor. Default: ``index.max() + 1``.
        reduce: "sum", "add", "mean", "min" or "max".

    Returns:
        Reduced values, shape (x_0, ..., N, ..., x_{n-1}).

    Raises:
        ValueError: If ``reduce`` is none of the names above.
    """
    if reduce == "sum" or reduce == "add":
        return segment_sum_coo(src, index, out, dim_size)
    if reduce == "mean":
        return segment_mean_coo(src, index, out, dim_size)
    if reduce == "min" or reduce == "max":
        aligned, dim = _coo_index(src, index)
        return _extreme_value(src, aligned, dim, out, dim_size, reduce == "max")
    raise ValueError(f"unknown reduction '{reduce}': use sum, add, mean, min or max")


def gather_coo(src: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """Reads the group value of every entry.

    Args:
        src: Values per group, shape (x_0, ..., N, ..., x_{n-1}) with N at the last dimension of ``index``.
        index: Group numbers, shape (x_0, ..., E); leading dimensions may be 1.
        out: Tensor of shape (x_0, ..., E, ..., x_{n-1}) that is overwritten in place.

    Returns:
        Values per entry, shape (x_0, ..., E, ..., x_{n-1}).
    """
    if index.dim() == 0 or index.dim() > src.dim():
        raise ValueError(f"index has {index.dim()} dimension(s), expected between 1 and {src.dim()}")
    dim = index.dim() - 1
    for _ in range(src.dim() - index.dim()):
        index = index.unsqueeze(-1)
    vector = _as_vector(index, dim)
    if vector is not None:
        result = src.index_select(dim, vector)
    else:
        size = list(src.size())
        size[dim] = index.size(dim)
        result = src.gather(dim, index.expand(size))
    return result if out is None else out.copy_(result)


# Reductions by pointers


def _pointer_index(indptr: Tensor, num_entries: int) -> Tensor:
    """Returns the segment number of every position, shape (..., E).

    The number is -1 before the first pointer and the number of segments from the last pointer on.
    """
    size = list(indptr.size())
    size[-1] = num_entries
    position = torch.arange(num_entries, dtype=indptr.dtype, device=indptr.device).expand(size)
    return torch.searchsorted(indptr.contiguous(), position.contiguous(), right=True) - 1


def _csr_index(src: Tensor, indptr: Tensor) -> tuple[Tensor, int, int]:
    """Returns the aligned index of a ``*_csr`` function, its dimension and the number N of segments.

    Entries outside every segment get the number N, so results have N + 1 groups, of which the last is dropped.
    """
    if indptr.dim() == 0 or indptr.dim() > src.dim():
        raise ValueError(f"indptr has {indptr.dim()} dimension(s), expected between 1 and {src.dim()}")
    dim = indptr.dim() - 1
    num_groups = max(indptr.size(-1) - 1, 0)
    index = _pointer_index(indptr, src.size(dim))
    return _align(index.masked_fill(index < 0, num_groups), src, dim), dim, num_groups


def segment_sum_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Sums the entries ``indptr[i]`` to ``indptr[i + 1] - 1`` of each segment.

    Args:
        src: Values, shape (x_0, ..., x_{m-1} = E, ..., x_{n-1}).
        indptr: Ascending pointers in [0, E], shape (x_0, ..., x_{m-2}, N + 1); leading dimensions may be 1.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) that is overwritten in place; its old values do not count.

    Returns:
        Sums, shape (x_0, ..., N, ..., x_{n-1}). Empty segments hold 0.
    """
    index, dim, num_groups = _csr_index(src, indptr)
    result = _add_(_new_out(src, index, dim, num_groups + 1), src, index, dim).narrow(dim, 0, num_groups)
    return result if out is None else out.copy_(result)


def segment_add_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Same as :func:`segment_sum_csr`.

    Args:
        src: Values, see :func:`segment_sum_csr`.
        indptr: Pointers, see :func:`segment_sum_csr`.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) that is overwritten in place.

    Returns:
        Sums, shape (x_0, ..., N, ..., x_{n-1}).
    """
    return segment_sum_csr(src, indptr, out)


def segment_mean_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Averages the entries of each segment; integer results are rounded down.

    Args:
        src: Values, see :func:`segment_sum_csr`.
        indptr: Pointers, see :func:`segment_sum_csr`.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) that is overwritten in place.

    Returns:
        Means, shape (x_0, ..., N, ..., x_{n-1}). Empty segments hold 0.
    """
    index, dim, num_groups = _csr_index(src, indptr)
    result = _mean(src, index, dim, None, num_groups + 1).narrow(dim, 0, num_groups)
    return result if out is None else out.copy_(result)


def _extreme_csr(src: Tensor, indptr: Tensor, out: Tensor | None, largest: bool) -> tuple[Tensor, Tensor]:
    """Minima or maxima of each segment and their positions."""
    index, dim, num_groups = _csr_index(src, indptr)
    result, arg = _extreme(src, index, dim, None, num_groups + 1, largest)
    result = result.narrow(dim, 0, num_groups)
    return (result if out is None else out.copy_(result)), arg.narrow(dim, 0, num_groups)


def segment_min_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Takes the smallest entry of each segment.

    Args:
        src: Values, see :func:`segment_sum_csr`.
        indptr: Pointers, see :func:`segment_sum_csr`.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) that is overwritten in place.

    Returns:
        Minima and their positions, both of shape (x_0, ..., N, ..., x_{n-1}). Empty segments hold 0 and position E.
    """
    return _extreme_csr(src, indptr, out, False)


def segment_max_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Takes the largest entry of each segment.

    Args:
        src: Values, see :func:`segment_sum_csr`.
        indptr: Pointers, see :func:`segment_sum_csr`.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) that is overwritten in place.

    Returns:
        Maxima and their positions, both of shape (x_0, ..., N, ..., x_{n-1}). Empty segments hold 0 and position E.
    """
    return _extreme_csr(src, indptr, out, True)


def segment_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """Reduces the entries ``indptr[i]`` to ``indptr[i + 1] - 1`` of each segment.

    Args:
        src: Values, shape (x_0, ..., x_{m-1} = E, ..., x_{n-1}).
        indptr: Ascending pointers in [0, E], shape (x_0, ..., x_{m-2}, N + 1); leading dimensions may be 1.
        out: Tensor of shape (x_0, ..., N, ..., x_{n-1}) that is overwritten in place; its old values do not count.
        reduce: "sum", "add", "mean", "min" or "max".

    Returns:
        Reduced values, shape (x_0, ..., N, ..., x_{n-1}).

    Raises:
        ValueError: If ``reduce`` is none of the names above.
    """
    if reduce == "sum" or reduce == "add":
        return segment_sum_csr(src, indptr, out)
    if reduce == "mean":
        return segment_mean_csr(src, indptr, out)
    if reduce == "min" or reduce == "max":
        index, dim, num_groups = _csr_index(src, indptr)
        result = _extreme_value(src, index, dim, None, num_groups + 1, reduce == "max").narrow(dim, 0, num_groups)
        return result if out is None else out.copy_(result)
    raise ValueError(f"unknown reduction '{reduce}': use sum, add, mean, min or max")


def gather_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Repeats the value of each segment for every entry of the segment.

    Args:
        src: Values per segment, shape (x_0, ..., N, ..., x_{n-1}) with N at the last dimension of ``indptr``.
        indptr: Ascending pointers that start with 0 and end with E, shape (x_0, ..., N + 1).
        out: Tensor of shape (x_0, ..., E, ..., x_{n-1}) that is overwritten in place.

    Returns:
        Values per entry, shape (x_0, ..., E, ..., x_{n-1}).
    """
    if indptr.dim() == 0 or indptr.dim() > src.dim():
        raise ValueError(f"indptr has {indptr.dim()} dimension(s), expected between 1 and {src.dim()}")
    dim = indptr.dim() - 1
    if out is not None:
        num_entries = out.size(dim)
    elif src.numel() == 0:
        num_entries = 0
    else:
        num_entries = int(indptr.flatten()[-1])
    index = _pointer_index(indptr, num_entries)
    return gather_coo(src, index.clamp(min=0, max=max(src.size(dim) - 1, 0)), out)
