"""Work over many calculations, through joblib: on the cores of this machine, or on a user's Dask or Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mattergen_e.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    work: Callable[[T], R], items: Iterable[T], jobs: int | None, backend: str = "loky"
) -> Generator[R, None, None]:
    """Results of `work` as they come, in no fixed order.

    Args:
        work: A function that can be pickled; it must not raise.
        items: What to work on; taken one by one, only a few ahead of the workers.
        jobs: Workers; None takes one per core (or what the cluster has).
        backend: loky (processes of this machine), threading, dask[:ADDRESS] or ray[:ADDRESS].

    Yields:
        One result per item.

    Raises:
        UserError: If the backend is unknown, not installed, or cannot be reached.
    """
    from joblib import Parallel, cpu_count, delayed

    n_jobs = jobs if jobs is not None else (cpu_count() if backend in ("loky", "threading") else -1)
    if n_jobs == 1 and backend == "loky":
        yield from map(work, items)
        return
    with _backend(backend):
        parallel: Any = Parallel(n_jobs=n_jobs, return_as=_return_as(), batch_size=1, pre_dispatch="2*n_jobs")  # type: ignore[arg-type]
        yield from parallel(delayed(work)(item) for item in items)


def _return_as() -> str:
    from joblib.parallel import get_active_backend

    active: Any = get_active_backend()[0]
    return "generator_unordered" if active.supports_return_generator else "list"


@contextmanager
def _backend(name: str) -> Iterator[None]:
    from joblib import parallel_config

    kind, _, address = name.partition(":")
    if kind in ("loky", "threading") and not address:
        one_thread: dict[str, Any] = {"inner_max_num_threads": 1} if kind == "loky" else {}
        with parallel_config(backend=kind, **one_thread):
            yield
    elif kind == "dask":
        with _dask_client(address), parallel_config(backend="dask"):
            yield
    elif kind == "ray":
        _start_ray(address)
        with parallel_config(backend="ray"):
            yield
    else:
        raise UserError(f"The backend {name!r} is unknown: give loky, threading, dask[:ADDRESS] or ray[:ADDRESS].")


def _dask_client(address: str) -> Any:
    try:
        from dask.distributed import Client  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError("The backend dask is not installed: run `pip install distributed`.") from error
    try:
        return Client(address) if address else Client()
    except (OSError, ValueError) as error:
        raise UserError(f"The Dask scheduler {address!r} cannot be reached ({error}): check its address.") from error


def _start_ray(address: str) -> None:
    try:
        import ray  # type: ignore[import-not-found]
        from ray.util.joblib import register_ray  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError("The backend ray is not installed: run `pip install ray`.") from error
    try:
        ray.init(address=address or None, ignore_reinit_error=True)
    except (ConnectionError, ValueError) as error:
        raise UserError(f"The Ray cluster {address!r} cannot be reached ({error}): check its address.") from error
    register_ray()
