"""Plans of any number of network calls: grids of times, and what is refused."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
from mattergen.diffusion.corruption.sde_lib import VPSDE
from omegaconf import OmegaConf

from mattergen_e.diffusion.plan import read_plan
from mattergen_e.errors import UserError

FIELDS = ("pos", "cell", "atomic_numbers", "bader_charge")


def plan(**settings):
    made = read_plan(OmegaConf.create(settings), FIELDS)
    assert made is not None
    return made


def test_without_steps_it_is_mattergens_sampler():
    assert read_plan({"steps": None, "eta": 16.0, "times": 1.5, "N": 200}, FIELDS) is None
    assert read_plan({}, FIELDS) is None


def test_times_by_power_and_by_list():
    assert plan(steps=4, times=1).times == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert plan(steps=4, times=2).times == (1.0, 0.5625, 0.25, 0.0625, 0.0)
    assert plan(steps=3, times=[1, 0.7, 0.1, 0]).times == (1.0, 0.7, 0.1, 0.0)
    assert plan(steps=1).times == (1.0, 0.0)
    made = plan(steps=50)
    assert made.steps == 50 and made.times[25] == pytest.approx(0.5**1.5)


@pytest.mark.parametrize(("steps", "power"), [(1000, 1.5), (1000, 3), (200, 4), (3, 20)])
def test_no_step_begins_where_single_precision_sees_no_noise(steps, power):
    """Noise of the variance-preserving process at the smallest time, in single and in double precision."""
    times = plan(steps=steps, times=power).times
    assert times[0] == 1.0 and times[-1] == 0.0 and len(times) == steps + 1
    assert all(first > second for first, second in pairwise(times))
    sde = VPSDE()
    single, double = (
        float(sde.mean_coeff_and_std(x=torch.zeros(1, dtype=d), t=torch.tensor([times[-2]], dtype=d))[1])
        for d in (torch.float32, torch.float64)
    )
    assert single == pytest.approx(double, rel=0.02)


def test_eta_of_all_fields_and_by_field():
    assert plan(steps=2, eta=4).eta_of("cell") == 4.0
    by_field = plan(steps=2, eta={"default": 16, "cell": 0, "pos": math.inf})
    assert [by_field.eta_of(f) for f in FIELDS] == [math.inf, 0.0, 16.0, 16.0]
    assert plan(steps=2, eta="inf").eta_of("pos") == math.inf
    assert json.loads(json.dumps(by_field.record()))["eta"] == {"cell": 0.0, "default": 16.0, "pos": "inf"}


def test_a_start_on_the_way():
    made = plan(steps=4, times=1)
    assert made.since(None) == made.since(1.0) == made.times
    assert made.since(0.6) == (0.6, 0.5, 0.25, 0.0)
    assert made.since(0.5) == (0.5, 0.25, 0.0)
    assert made.since(0.01) == (0.01, 0.0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps is 0: give the number of network calls, 1 or more"),
        ({"steps": -3}, "steps is -3"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"steps": "many"}, "steps is many"),
        ({"steps": 5, "eta": -1}, "sampler_partial.eta is -1: give a number from 0"),
        ({"steps": 5, "eta": math.nan}, "sampler_partial.eta is nan: give a number from 0"),
        ({"steps": 5, "eta": {"cell": -2}}, "sampler_partial.eta.cell is -2: give a number from 0"),
        ({"steps": 5, "eta": {"charge": 2}}, "eta names 'charge', which this model does not generate: it generates"),
        ({"steps": 5, "times": 0}, "times is 0: give a positive power"),
        ({"steps": 40, "times": 8}, "times is 8: 40 such times fall together: give less"),
        ({"steps": 5, "times": "slow"}, "times is slow: give a positive power"),
        ({"steps": 2, "times": [1, 0.5, 0.6]}, r"times is \[1, 0.5, 0.6\]: give times that descend from 1 to 0"),
        ({"steps": 2, "times": [0.9, 0.5, 0]}, "give times that descend from 1 to 0"),
        ({"steps": 2, "times": [1, 0.5, 0.1]}, "give times that descend from 1 to 0"),
        ({"steps": 2, "times": [1, 1, 0]}, "give times that descend from 1 to 0"),
        ({"steps": 2, "times": [1, 1e-6, 0]}, "times has 1e-06 near the end: give no time below 0.0001 but 0"),
        ({"steps": 5, "times": [1, 0.5, 0]}, "has 3 times, which is 2 steps, but sampler_partial.steps is 5: set st"),
        ({"steps": 5, "N": 200}, "sampler_partial.N is of MatterGen's sampler: leave it out, or set steps to null"),
        ({"steps": 5, "eps_t": 0.1}, "sampler_partial.eps_t is of MatterGen's sampler"),
    ],
)
def test_refusals(settings, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        read_plan(OmegaConf.create(settings), FIELDS)
    assert "\n" not in str(error.value)
