"""Every backend gives each result once; what is not there is named in one sentence."""

from __future__ import annotations

import importlib.util
import math

import pytest

from mattergen_e.errors import UserError
from mattergen_e.parallel import in_parallel


@pytest.mark.parametrize(("backend", "jobs"), [("loky", 1), ("loky", 2), ("threading", 2)])
def test_each_item_is_worked_on_once(backend: str, jobs: int) -> None:
    assert sorted(in_parallel(math.isqrt, range(20), jobs, backend)) == sorted(map(math.isqrt, range(20)))


@pytest.mark.parametrize("backend", ["slurm", "loky:somewhere", ""])
def test_unknown_backend(backend: str) -> None:
    with pytest.raises(UserError, match="is unknown"):
        list(in_parallel(math.isqrt, range(3), 2, backend))


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_backend_that_is_not_installed(backend: str, module: str) -> None:
    if importlib.util.find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    with pytest.raises(UserError, match=f"{backend} is not installed"):
        list(in_parallel(math.isqrt, range(3), 2, backend))
