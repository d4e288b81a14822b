"""Batches that do not fit the memory."""

from __future__ import annotations

import re


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is of a device, or of this machine, that has no memory left."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # of the processor, and of libraries of a GPU, PyTorch has no kind of its own
    words = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def memory_wanted(error: BaseException) -> str:
    """How much memory was asked for when there was none left, in brackets; empty if the error does not tell."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMGT]iB)", str(error))
    if found is None:
        return ""
    amount = f"{int(found[1]) / 2**30:.3g} GiB" if found[2] == "bytes" else f"{found[1]} {found[2]}"
    return f" (it wanted {amount} more)"


def memory_sentence(error: BaseException, size: int | None) -> str:
    """What is said of a batch of a generation that does not fit.

    Args:
        error: As of `is_out_of_memory`.
        size: Crystals of the batch; None if unknown.
    """
    of = "the batch" if size is None else f"a batch of {size} crystal{'s' if size > 1 else ''}"
    if size is not None and size > 1:
        advice = f"give --batch_size={size // 2} and twice the --num_batches"
    else:
        advice = "give smaller batches or smaller crystals, or take another device"
    return f"{of} does not fit the memory{memory_wanted(error)}: {advice}."
