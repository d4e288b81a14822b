"""Which tests run where and when, when several processes run them: files stay together, those of slow tests come first.

A plugin of pytest.
"""

from __future__ import annotations

from typing import Any

import pytest

#: Files (or folders) whose tests share what takes long to make, a compiled package or trained models: for one process.
SHARED = {
    "tests/labels/test_bader.py": "compiled",
    "tests/labels/computed/test_compute.py": "compiled",
    "tests/labels/materials_project/test_source.py": "compiled",
    "tests/labels/vasp/test_calculation.py": "compiled",
    "tests/commands": "commands",
}


def group(file: str) -> str:
    """What a file's tests stay together with: their file, or all that share the same thing."""
    return SHARED.get(file) or SHARED.get(file.rpartition("/")[0]) or file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups with slow tests come first, so that no process is left with one at the end."""

    def of(item: pytest.Item) -> str:
        return group(item.nodeid.partition("::")[0])

    slow = {of(item) for item in items if item.get_closest_marker("slow")} | {"compiled"}
    items.sort(key=lambda item: of(item) not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a group stay in one process."""
    from xdist.scheduler import LoadFileScheduling

    class Groups(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(super()._split_scope(nodeid))

    return Groups(config, log)
