"""Pure-PyTorch stand-in for the part of the compiled package ``torch_sparse`` that MatterGen uses.

MatterGen 1.0.3 builds a :class:`SparseTensor` from its edges, selects rows with ``adj[index]``, moves the result to a
device and reads its storage. This file offers that and nothing more. The folder that holds it is put at the end of
``sys.path``, so an installed ``torch_sparse`` is found first and wins.

The behaviour was checked against the source of pytorch_sparse 0.6.18. The name ``SparseStorage`` is deliberately
absent: torch_geometric imports it together with ``SparseTensor`` and, where that fails, sets ``WITH_TORCH_SPARSE`` to
False and works without torch_sparse. Its samplers, loaders and sparse layers therefore do not rely on functions that
this file lacks.

One difference: entries with the same row and column keep the order in which they were given. The compiled package
does not promise an order.
"""

from __future__ import annotations

import torch
from torch import Tensor

__version__ = "0.6.18+fallback"

__all__ = ["SparseTensor", "__version__"]


def __getattr__(name: str) -> object:
    """Explains which package is needed when a function that this file lacks is used."""
    raise AttributeError(f"the fallback for torch_sparse has no '{name}'; install the package torch_sparse to use it")


class _Storage:
    """Entries of a sparse matrix, ordered by row and then by column."""

    def __init__(self, row: Tensor, col: Tensor, value: Tensor) -> None:
        self._entries = (row, col, value)

    def row(self) -> Tensor:
        """Returns the row numbers in ascending order, shape (E,)."""
        return self._entries[0]

    def col(self) -> Tensor:
        """Returns the column numbers, ascending within each row, shape (E,)."""
        return self._entries[1]

    def value(self) -> Tensor:
        """Returns the values, shape (E, ...)."""
        return self._entries[2]


class SparseTensor:
    """Sparse matrix in coordinate form that allows the same (row, column) pair more than once.

    Args:
        row: Row numbers, dtype int64, shape (E,).
        col: Column numbers, dtype int64, shape (E,).
        value: Values, shape (E, ...).
        sparse_sizes: Numbers of rows and columns, ints or zero-dimensional tensors.

    Raises:
        ValueError: If the entries are of unequal length, or lie outside ``sparse_sizes``.
    """

    storage: _Storage

    def __init__(
        self, *, row: Tensor, col: Tensor, value: Tensor, sparse_sizes: tuple[int | Tensor, int | Tensor]
    ) -> None:
        if row.dim() != 1 or row.size() != col.size() or value.size(0) != row.numel():
            raise ValueError("row, col and value must have the same length")
        num_rows, num_cols = (int(size) for size in sparse_sizes)
        if row.numel() > 0 and (int(row.max()) >= num_rows or int(col.max()) >= num_cols):
            raise ValueError(f"an entry lies outside the matrix of size ({num_rows}, {num_cols})")
        order = torch.sort(row * num_cols + col, stable=True).indices
        self.storage = _Storage(row[order], col[order], value[order])
        self._num_rows = num_rows

    def __getitem__(self, index: Tensor) -> SparseTensor:
        """Selects rows.

        Args:
            index: Row numbers, dtype int64, shape (K,). Rows may be repeated and come in any order; negative numbers
                count from the end.

        Returns:
            Matrix with K rows: row k holds the entries of row ``index[k]`` in their stored order.

        Raises:
            NotImplementedError: If the index is anything else.
        """
        if not isinstance(index, Tensor) or index.dtype != torch.long or index.dim() != 1:
            raise NotImplementedError(
                "the fallback for torch_sparse selects rows by a one-dimensional int64 tensor only; "
                "install torch_sparse for other selections"
            )
        stored = self.storage.row()
        rowptr = torch.searchsorted(stored, torch.arange(self._num_rows + 1, dtype=stored.dtype, device=stored.device))
        start = rowptr[:-1][index]
        count = rowptr[1:][index] - start
        row = torch.arange(index.numel(), device=index.device).repeat_interleave(count)
        # Position within the selection, moved to where the row starts in this matrix.
        source = torch.arange(row.numel(), device=index.device) + (start - count.cumsum(0) + count)[row]
        return self._sorted(row, self.storage.col()[source], self.storage.value()[source], index.numel())

    def to(self, device: torch.device | str | int) -> SparseTensor:
        """Returns the matrix on a device; the entries are shared with this one if they already are there."""
        row, col, value = (part.to(device) for part in (self.storage.row(), self.storage.col(), self.storage.value()))
        return self._sorted(row, col, value, self._num_rows)

    @classmethod
    def _sorted(cls, row: Tensor, col: Tensor, value: Tensor, num_rows: int) -> SparseTensor:
        """Builds the matrix from entries that are known to be ordered and in range."""
        made = cls.__new__(cls)
        made.storage, made._num_rows = _Storage(row, col, value), num_rows
        return made
