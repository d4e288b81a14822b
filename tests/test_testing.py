"""The contract of descriptors, kept by our own, and broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from mattergen_e.descriptors import BaderCharge, Descriptor, Dummy
from mattergen_e.testing import check_descriptor


@pytest.mark.parametrize(
    "descriptor",
    [
        BaderCharge(),
        Dummy(),
        Descriptor(name="vector", dim=3, frame="crystal"),
        Descriptor(name="total", place="crystal"),
        Descriptor(name="rho", place="grid", probes=(4, 4, 4)),
    ],
    ids=lambda d: d.name,
)
def test_descriptors_keep_to_it(descriptor):
    check_descriptor(descriptor)


def test_spectra_keep_to_it(make_dos):
    check_descriptor(make_dos())


@dataclass(frozen=True, kw_only=True)
class Loud(Descriptor):
    """Its embedding does not start at zero."""

    name: str = "loud"

    def embedding(self, atom_dim: int) -> torch.nn.Module:
        made = super().embedding(atom_dim)
        torch.nn.init.ones_(made[-1].bias)
        return made


@dataclass(frozen=True, kw_only=True)
class Crooked(Descriptor):
    """What it decodes it does not encode."""

    name: str = "crooked"

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def test_a_field_that_does_not_start_at_zero_fails():
    with pytest.raises(AssertionError, match="start at zero"):
        check_descriptor(Loud())


def test_a_scale_that_does_not_fit_fails():
    with pytest.raises(AssertionError, match="decode and encode"):
        check_descriptor(Crooked())
