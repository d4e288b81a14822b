"""Pure-PyTorch stand-in for the part of the compiled package ``torch_sparse`` that MatterGen uses.

MatterGen builds a :class:`SparseTensor` from its edges, selects rows with ``adj[index]`` and reads the storage of
the result. This file offers that and nothing more. The folder that holds it is put at the end of ``sys.path``, so
an installed ``torch_sparse`` is found first and wins.

The behaviour was checked against the source of pytorch_sparse 0.6.18 and the calls made by MatterGen 1.0.3 and
torch_geometric 2.8.1. The name ``SparseStorage`` is deliberately absent: torch_geometric imports it together with
``SparseTensor`` and, where that fails, sets ``WITH_TORCH_SPARSE`` to False and works without torch_sparse. Its
samplers, loaders and sparse layers therefore do not rely on functions that this file lacks.

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
    """Entries of a sparse matrix, ordered by row and then by column.

    Args:
        row: Row numbers, shape (E,).
        col: Column numbers, shape (E,).
        value: Values, shape (E, ...), or None.
        sparse_sizes: Numbers of rows and columns.
    """

    def __init__(self, row: Tensor, col: Tensor, value: Tensor | None, sparse_sizes: tuple[int, int]) -> None:
        self._row = row
        self._col = col
        self._value = value
        self._sparse_sizes = sparse_sizes
        self._rowptr: Tensor | None = None

    def row(self) -> Tensor:
        """Returns the row numbers in ascending order, shape (E,)."""
        return self._row

    def col(self) -> Tensor:
        """Returns the column numbers, ascending within each row, shape (E,)."""
        return self._col

    def value(self) -> Tensor | None:
        """Returns the values, shape (E, ...), or None."""
        return self._value

    def has_value(self) -> bool:
        """Tells whether the matrix has values."""
        return self._value is not None

    def sparse_sizes(self) -> tuple[int, int]:
        """Returns the numbers of rows and columns."""
        return self._sparse_sizes

    def rowptr(self) -> Tensor:
        """Returns the position of the first entry of each row and the number of entries, shape (rows + 1,)."""
        if self._rowptr is None:
            steps = torch.arange(self._sparse_sizes[0] + 1, dtype=self._row.dtype, device=self._row.device)
            self._rowptr = torch.searchsorted(self._row, steps)
        return self._rowptr

    def rowcount(self) -> Tensor:
        """Returns the number of entries of each row, shape (rows,)."""
        return self.rowptr().diff()


class SparseTensor:
    """Sparse matrix in coordinate form that allows the same (row, column) pair more than once.

    Args:
        row: Row numbers, dtype int64, shape (E,). Needed unless ``rowptr`` is given.
        rowptr: Position of the first entry of each row and the number of entries, shape (rows + 1,).
        col: Column numbers, dtype int64, shape (E,).
        value: Values, shape (E, ...), or None.
        sparse_sizes: Numbers of rows and columns, ints or zero-dimensional tensors. A missing one is the largest
            number plus one.
        is_sorted: The entries are already ordered by row and then by column.
        trust_data: Do not check that rows and columns lie within ``sparse_sizes``.

    Raises:
        ValueError: If the entries are incomplete or of unequal length, or lie outside ``sparse_sizes``.
    """

    storage: _Storage

    def __init__(
        self,
        row: Tensor | None = None,
        rowptr: Tensor | None = None,
        col: Tensor | None = None,
        value: Tensor | None = None,
        sparse_sizes: tuple[int | Tensor | None, int | Tensor | None] | None = None,
        is_sorted: bool = False,
        trust_data: bool = False,
    ) -> None:
        if col is None or (row is None and rowptr is None):
            raise ValueError("SparseTensor needs col and one of row and rowptr")
        num_rows, num_cols = (None, None) if sparse_sizes is None else sparse_sizes
        if row is None:
            assert rowptr is not None
            if num_rows is None:
                num_rows = rowptr.numel() - 1
            row = torch.arange(rowptr.numel() - 1, device=rowptr.device).repeat_interleave(rowptr.diff())
        if row.dim() != 1 or row.size() != col.size() or (value is not None and value.size(0) != row.numel()):
            raise ValueError("row, col and value must have the same length")
        num_rows = _extent(row) if num_rows is None else int(num_rows)
        num_cols = _extent(col) if num_cols is None else int(num_cols)
        if not trust_data and (_extent(row) > num_rows or _extent(col) > num_cols):
            raise ValueError(f"an entry lies outside the matrix of size ({num_rows}, {num_cols})")
        if not is_sorted:
            order = torch.sort(row * num_cols + col, stable=True).indices
            row, col = row[order], col[order]
            value = None if value is None else value[order]
        self.storage = _Storage(row, col, value, (num_rows, num_cols))

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        sparse_sizes: tuple[int | Tensor | None, int | Tensor | None] | None = None,
        is_sorted: bool = False,
        trust_data: bool = False,
    ) -> SparseTensor:
        """Builds the matrix from rows and columns in one tensor.

        Args:
            edge_index: Rows and columns, shape (2, E).
            edge_attr: Values, shape (E, ...), or None.
            sparse_sizes: Numbers of rows and columns.
            is_sorted: The entries are already ordered by row and then by column.
            trust_data: Do not check that rows and columns lie within ``sparse_sizes``.

        Returns:
            The sparse matrix.
        """
        return cls(edge_index[0], None, edge_index[1], edge_attr, sparse_sizes, is_sorted, trust_data)

    def sparse_sizes(self) -> tuple[int, int]:
        """Returns the numbers of rows and columns."""
        return self.storage.sparse_sizes()

    def sparse_size(self, dim: int) -> int:
        """Returns the number of rows (``dim`` 0) or columns (``dim`` 1)."""
        return self.storage.sparse_sizes()[dim]

    def sizes(self) -> list[int]:
        """Returns the numbers of rows and columns, then the trailing sizes of the values."""
        value = self.storage.value()
        return [*self.storage.sparse_sizes(), *([] if value is None else value.size()[1:])]

    def size(self, dim: int) -> int:
        """Returns one of :meth:`sizes`."""
        return self.sizes()[dim]

    def dim(self) -> int:
        """Returns the number of dimensions."""
        return len(self.sizes())

    def nnz(self) -> int:
        """Returns the number E of entries."""
        return self.storage.col().numel()

    def has_value(self) -> bool:
        """Tells whether the matrix has values."""
        return self.storage.has_value()

    def coo(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns rows, columns (both of shape (E,)) and values (shape (E, ...) or None)."""
        return self.storage.row(), self.storage.col(), self.storage.value()

    def csr(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns row pointers (shape (rows + 1,)), columns (shape (E,)) and values (shape (E, ...) or None)."""
        return self.storage.rowptr(), self.storage.col(), self.storage.value()

    def device(self) -> torch.device:
        """Returns the device of the entries."""
        return self.storage.col().device

    def is_cuda(self) -> bool:
        """Tells whether the entries are on a CUDA device."""
        return self.storage.col().is_cuda

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> SparseTensor:
        """Copies the matrix to a device.

        Args:
            device: Target device.
            non_blocking: Copy without waiting where possible.

        Returns:
            The matrix on ``device``; the entries are shared with this one if they already are there.
        """
        row, col, value = self.coo()
        row, col = row.to(device, non_blocking=non_blocking), col.to(device, non_blocking=non_blocking)
        value = None if value is None else value.to(device, non_blocking=non_blocking)
        return self._sorted(row, col, value, self.sparse_sizes())

    def cpu(self) -> SparseTensor:
        """Copies the matrix to the CPU."""
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int | None = None, non_blocking: bool = False) -> SparseTensor:
        """Copies the matrix to a CUDA device."""
        return self.to("cuda" if device is None else device, non_blocking)

    def index_select(self, dim: int, idx: Tensor) -> SparseTensor:
        """Selects rows.

        Args:
            dim: Must be 0.
            idx: Row numbers, dtype int64, shape (K,). Rows may be repeated and come in any order; negative numbers
                count from the end.

        Returns:
            Matrix with K rows: row k holds the entries of row ``idx[k]`` in their stored order.

        Raises:
            NotImplementedError: If ``dim`` is not 0.
            ValueError: If ``idx`` is not one-dimensional.
        """
        if dim != 0:
            raise NotImplementedError("the fallback for torch_sparse selects rows only; install torch_sparse")
        if idx.dim() != 1:
            raise ValueError(f"row numbers must form a vector, got shape {tuple(idx.size())}")
        _, col, value = self.coo()
        rowptr = self.storage.rowptr()
        num_cols = self.sparse_size(1)
        start = rowptr[:-1][idx]
        count = rowptr[1:][idx] - start
        row = torch.arange(idx.numel(), device=idx.device).repeat_interleave(count)
        # Position within the selection, moved to where the row starts in this matrix.
        source = torch.arange(row.numel(), device=idx.device) + (start - count.cumsum(0) + count)[row]
        value = None if value is None else value[source]
        return self._sorted(row, col[source], value, (idx.numel(), num_cols))

    def __getitem__(self, index: object) -> SparseTensor:
        """Selects rows by a one-dimensional tensor of row numbers (int64) or a mask (bool)."""
        if isinstance(index, Tensor) and index.dtype == torch.bool and index.dim() == 1:
            if index.numel() != self.sparse_size(0):
                raise IndexError(f"mask of length {index.numel()} does not fit {self.sparse_size(0)} rows")
            return self.index_select(0, index.nonzero().view(-1))
        if isinstance(index, Tensor) and index.dtype == torch.long and index.dim() == 1:
            return self.index_select(0, index)
        raise NotImplementedError(
            "the fallback for torch_sparse selects rows by a one-dimensional int64 or bool tensor only; "
            "install torch_sparse for other selections"
        )

    def __repr__(self) -> str:
        """Returns size and number of entries."""
        return f"{type(self).__name__}(size={tuple(self.sizes())}, nnz={self.nnz()})"

    @classmethod
    def _sorted(cls, row: Tensor, col: Tensor, value: Tensor | None, sparse_sizes: tuple[int, int]) -> SparseTensor:
        """Builds the matrix from entries that are known to be ordered and in range."""
        return cls(row, None, col, value, sparse_sizes, is_sorted=True, trust_data=True)


def _extent(index: Tensor) -> int:
    """Returns the largest number in ``index`` plus one, 0 for an empty one."""
    return int(index.max()) + 1 if index.numel() > 0 else 0
