"""What every descriptor has: its schedule of constraints, its scaling, its forward process and its checks."""

from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

from mattergen_e.descriptors import Descriptor
from mattergen_e.descriptors.base import per_step_fraction
from mattergen_e.errors import UserError


@pytest.mark.parametrize(
    ("s", "steps", "power", "expected"),
    [
        (0.5, 1000, 4.0, 0.0625),  # one reference step applies g(s) = s**p
        (0.5, 1000, 2.0, 0.25),
        (0.9, 1000, 4.0, 0.6561),
        (0.5, 500, 4.0, 1 - 0.9375**2),  # a step twice as long stands for two
        (0.5, 500, 4.0, 0.12109375),
        (0.5, 100, 4.0, 1 - 0.9375**10),
        (0.5, 2000, 4.0, 1 - math.sqrt(0.9375)),
        (0.0, 1000, 4.0, 0.0),
        (-0.1, 1000, 4.0, 0.0),  # before the beginning there is nothing to constrain
    ],
)
def test_fraction_of_one_step(s, steps, power, expected):
    assert per_step_fraction(s, 1 / steps, power, 1000) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("steps", [1, 7, 100, 1000])
@pytest.mark.parametrize("power", [0.5, 4.0, 30.0])
def test_at_the_end_nothing_is_left(steps, power):
    assert per_step_fraction(1.0, 1 / steps, power, 1000) == 1.0
    assert per_step_fraction(1.0 + 1e-9, 1 / steps, power, 1000) == 1.0


def _left(steps: int, until: float, power: float = 4.0) -> float:
    """Share of the violation that is left after the steps up to reverse time `until`."""
    left = 1.0
    for i in range(1, round(until * steps) + 1):
        left *= 1.0 - per_step_fraction(i / steps, 1 / steps, power, 1000)
    return left


@pytest.mark.parametrize("until", [0.2, 0.3, 0.4])
def test_schedule_means_the_same_for_any_number_of_steps(until):
    few, reference, many = (_left(steps, until) for steps in (100, 1000, 4000))
    # in the limit of short steps the log of what is left is 1000 * integral of log(1 - s**4)
    s = (np.arange(100_000) + 0.5) * until / 100_000
    limit = math.exp(1000 * np.log1p(-(s**4)).mean() * until)
    assert many == pytest.approx(limit, rel=0.02)
    assert reference == pytest.approx(limit, rel=0.05)
    assert few == pytest.approx(limit, rel=0.15)
    assert few < limit < 1.0


def test_fraction_grows_and_stays_a_share():
    fractions = [per_step_fraction(i / 100, 0.01, 4.0, 1000) for i in range(101)]
    assert all(0.0 <= a <= b <= 1.0 for a, b in itertools.pairwise(fractions))


def test_scaling_without_shift():
    descriptor = Descriptor(name="x", scale=2.5)
    values = torch.tensor([[5.0], [0.0], [-1.25]])
    assert torch.equal(descriptor.encode(values), torch.tensor([[2.0], [0.0], [-0.5]]))
    assert torch.equal(descriptor.decode(descriptor.encode(values)), values)


def test_forward_process_is_that_of_the_paper():
    sde = Descriptor(name="x", beta_min=0.2, beta_max=15.0).corruption()
    times = torch.tensor([0.0, 0.1, 0.5, 1.0])
    mean, std = sde.marginal_prob(torch.ones(4, 1), times)
    for t, m, sigma in zip(times.tolist(), mean[:, 0].tolist(), std[:, 0].tolist(), strict=True):
        s = np.linspace(0, t, 20_001)
        beta = 0.2 + s * 14.8
        alpha = math.exp(-0.5 * trapezoid(beta, s))
        assert m == pytest.approx(alpha, rel=1e-5)
        assert sigma == pytest.approx(math.sqrt(1 - alpha**2), rel=1e-4, abs=1e-6)


def test_no_constraint_by_default():
    x = torch.randn(5, 2)
    assert Descriptor(name="x", dim=2).after_step(x, s=1.0, ds=0.1, batch_idx=torch.zeros(5, dtype=torch.long)) is x


def test_training_values_come_from_the_batch_or_it_is_said_what_to_do():
    values = torch.randn(3, 1)
    assert Descriptor(name="charge").training_values({"charge": values}) is values
    with pytest.raises(UserError, match="no site values 'charge': build the cache with `mattergen-e data build`"):
        Descriptor(name="charge").training_values({"pos": values})


def test_site_properties_are_plain_lists():
    one = Descriptor(name="q").site_properties(np.array([[0.12345678], [-1.0]], dtype=np.float32))
    assert one == {"q": [0.123457, -1.0]}
    two = Descriptor(name="v", dim=2).site_properties(np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32))
    assert two == {"v": [[1.0, 2.0], [3.0, 4.0]]}
    assert all(type(x) is float for x in one["q"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "bader charge"}, "'bader charge' is not an identifier"),
        ({"name": "1st"}, "'1st' is not an identifier"),
        ({"name": "x", "scale": 0.0}, "scale must be positive"),
        ({"name": "x", "scale": -1.0}, "scale must be positive"),
        ({"name": "x", "dim": 0}, "dim at least 1"),
        ({"name": "x", "weighting": "score"}, "weighting is 'score', use 'noise' or 'velocity'"),
    ],
)
def test_wrong_settings_are_named(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        Descriptor(**arguments)


def test_a_descriptor_is_a_value():
    assert Descriptor(name="x") == Descriptor(name="x") != Descriptor(name="y")
    with pytest.raises(FrozenInstanceError):
        Descriptor(name="x").scale = 2.0
