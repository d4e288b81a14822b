"""Which descriptors an installation knows, and that a broken package takes nothing down."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import pytest

from mattergen_e.descriptors import AtomicDos, BaderCharge, Descriptor, Dummy, registry


@pytest.fixture
def entry_points(monkeypatch):
    """Puts entry points, name to target, in the place of the installed ones."""

    def put(**targets: str) -> None:
        points = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in targets.items())
        monkeypatch.setattr(registry, "entry_points", lambda **selection: points.select(**selection))

    return put


def test_own_descriptors_are_registered():
    found = registry.registered()
    assert found["bader"].cls is BaderCharge
    assert found["dummy"].cls is Dummy
    assert found["atomic_dos"].cls is AtomicDos
    assert {found[name].package for name in ("bader", "dummy", "atomic_dos")} == {"mattergen-e"}
    assert all(entry.problem is None for entry in found.values())


def test_third_party_class_is_found(entry_points, monkeypatch):
    module = ModuleType("far_away")
    module.Spin = type("Spin", (Descriptor,), {})
    monkeypatch.setitem(sys.modules, "far_away", module)
    entry_points(spin="far_away:Spin")
    entry = registry.registered()["spin"]
    assert (entry.cls, entry.target, entry.problem) == (module.Spin, "far_away:Spin", None)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no_such_package_anywhere:Spin", "ModuleNotFoundError: No module named 'no_such_package_anywhere'"),
        ("mattergen_e.descriptors:NoSuchClass", "AttributeError"),
        ("mattergen_e.descriptors.base:per_step_fraction", "is not a subclass of mattergen_e's Descriptor"),
        ("mattergen_e.errors:UserError", "is not a subclass of mattergen_e's Descriptor"),
        ("raises_at_import:Spin", "ZeroDivisionError"),
    ],
)
def test_broken_registration_is_listed_with_its_problem(entry_points, tmp_path, monkeypatch, target, problem):
    (tmp_path / "raises_at_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry_points(broken=target, dummy="mattergen_e.descriptors.dummy:Dummy")
    found = registry.registered()
    assert found["broken"].cls is None
    assert found["broken"].problem is not None and problem in found["broken"].problem
    assert found["dummy"].cls is Dummy  # the others are not affected


def test_other_groups_are_not_looked_at(monkeypatch):
    points = EntryPoints([EntryPoint("bader", "mattergen_e.descriptors.bader:BaderCharge", "another.group")])
    monkeypatch.setattr(registry, "entry_points", lambda **selection: points.select(**selection))
    assert registry.registered() == {}
