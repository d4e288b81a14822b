"""What each crystal of a run is asked for depends on the seed and on nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from mattergen.common.data.num_atoms_distribution import NUM_ATOMS_DISTRIBUTIONS

from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader, seed_batch


def sizes(loader):
    return [batch["num_atoms"].tolist() for batch, _ in loader]


@settings(max_examples=60, deadline=None)
@given(num_samples=st.integers(1, 40), batch_size=st.integers(1, 12), seed=st.integers(0, 2**40))
def test_a_batch_does_not_depend_on_those_before_it(num_samples, batch_size, seed):
    loader = ConditionLoader(num_samples, batch_size, seed=seed)
    whole = loader.num_atoms().tolist()
    assert len(whole) == num_samples
    assert len(loader) == -(-num_samples // batch_size)
    for batch in reversed(range(len(loader))):  # last first, with other random numbers in between
        np.random.seed(batch)
        torch.manual_seed(batch)
        again = ConditionLoader(num_samples, batch_size, seed=seed)
        assert again.batch_num_atoms(batch).tolist() == whole[batch * batch_size : (batch + 1) * batch_size]
    assert ConditionLoader(num_samples, num_samples, seed=seed).num_atoms().tolist() == whole


def test_batches_in_mattergens_form():
    loader = ConditionLoader(7, 3, seed=1)
    batches = list(loader)
    assert [b.get_batch_size() for b, _ in batches] == [3, 3, 1] and len(loader) == 3
    assert all(mask is None for _, mask in batches)
    for batch, _ in batches:
        assert len(batch["pos"]) == int(batch["num_atoms"].sum()) == len(batch["atomic_numbers"])
        assert batch["pos"].isnan().all() and batch["cell"].isnan().all()  # nothing of the answer is given
        assert torch.equal(torch.bincount(batch.get_batch_idx("pos")), batch["num_atoms"])


def test_seed_decides():
    assert sizes(ConditionLoader(50, 10, seed=1)) == sizes(ConditionLoader(50, 10, seed=1))
    assert sizes(ConditionLoader(50, 10, seed=1)) != sizes(ConditionLoader(50, 10, seed=2))


def test_seed_can_be_set_later():
    """A resumed run learns its seed from the folder."""
    loader = ConditionLoader(50, 10)
    assert loader.seed is None
    loader.seed = 1
    assert sizes(loader) == sizes(ConditionLoader(50, 10, seed=1))


@pytest.mark.parametrize("name", sorted(NUM_ATOMS_DISTRIBUTIONS))
def test_sizes_follow_mattergens_distribution(name):
    n = 20_000
    drawn = ConditionLoader(n, n, num_atoms_distribution=name, seed=0).num_atoms()
    total = sum(NUM_ATOMS_DISTRIBUTIONS[name].values())
    chi2, degrees = 0.0, 0
    for size, weight in NUM_ATOMS_DISTRIBUTIONS[name].items():
        expected = n * weight / total
        if expected == 0:
            assert not (drawn == size).any()
        elif expected >= 5:
            chi2 += ((drawn == size).sum() - expected) ** 2 / expected
            degrees += 1
    assert chi2 < degrees + 5 * np.sqrt(2 * degrees)


def test_fixed_sizes():
    assert set(ConditionLoader(20, 4, num_atoms=6, seed=0).num_atoms().tolist()) == {6}
    assert ConditionLoader(4, 4, num_atoms="ALEX_MP_20").sizes.record == "ALEX_MP_20"
    several = ConditionLoader(3000, 4, num_atoms=[2, 5, 8], seed=0).num_atoms()
    values, counts = np.unique(several, return_counts=True)
    assert values.tolist() == [2, 5, 8]
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 2 / 3)


def test_properties_reach_every_crystal():
    loader = ConditionLoader(
        3, 2, num_atoms=2, seed=0, properties={"dft_band_gap": 1.5, "chemical_system": "Na-Cl", "space_group": 225}
    )
    for batch, _ in loader:
        n = batch.get_batch_size()
        assert torch.equal(batch["dft_band_gap"], torch.full((n,), 1.5))
        assert batch["chemical_system"] == ["Na-Cl"] * n
        assert torch.equal(batch["space_group"], torch.full((n,), 225.0))


def test_several_values_are_given_in_turn():
    """Whatever the batches are, and together where several conditions have several."""
    wanted = {"dft_band_gap": [1, 3.5], "chemical_system": ["Na-Cl", "Li-O"], "space_group": "Fm-3m"}
    for batch_size in (2, 3, 7):
        loader = ConditionLoader(7, batch_size, num_atoms=2, seed=0, properties=wanted)
        batches = [batch for batch, _ in loader]
        assert torch.cat([batch["dft_band_gap"] for batch in batches]).tolist() == [1, 3.5, 1, 3.5, 1, 3.5, 1]
        assert [s for batch in batches for s in batch["chemical_system"]] == ["Na-Cl", "Li-O"] * 3 + ["Na-Cl"]
        assert torch.cat([batch["space_group"] for batch in batches]).tolist() == [225.0] * 7
    assert loader.record(3) == {"dft_band_gap": 3.5, "chemical_system": "Li-O", "space_group": 225}
    assert loader.settings()["conditions"] == {
        "dft_band_gap": [1, 3.5], "chemical_system": ["Na-Cl", "Li-O"], "space_group": 225,
    }  # fmt: skip


def test_too_few_crystals_for_all_values_are_said(capsys):
    ConditionLoader(2, 2, num_atoms=2, seed=0, properties={"dft_band_gap": [1, 2, 3]})
    assert "2 crystals are too few for the 3 values of 'dft_band_gap': the first 2" in capsys.readouterr().err


def test_space_groups_by_their_symbols():
    """All symbols that spglib has of the 530 settings, short and full; some older ones by hand."""
    import spglib

    from mattergen_e.generation.properties import read_properties

    def number(symbol):
        return read_properties({"space_group": symbol})["space_group"][0]

    seen = set()
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        assert number(kind.international_full) == kind.number
        seen.add(number(kind.international_full))
    assert seen == set(range(1, 231))
    known = {
        "Fm-3m": 225,
        "Fm3m": 225,
        "F m -3 m": 225,
        "P2_1/c": 14,
        "P21/c": 14,
        "Pbnm": 62,
        "Cmca": 64,
        "R-3m:H": 166,
    }
    assert {symbol: number(symbol) for symbol in known} == known


def test_settings_tell_what_a_resume_must_agree_in():
    loader = ConditionLoader(9, 2, num_atoms=[3, 4], properties={"dft_band_gap": 1.5}, seed=8)
    assert loader.settings() == {
        "num_samples": 9,
        "batch_size": 2,
        "num_atoms": [3, 4],
        "conditions": {"dft_band_gap": 1.5},
        "seed": 8,
    }
    assert ConditionLoader(9, 2).settings()["num_atoms"] == "ALEX_MP_20"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_samples": 0, "batch_size": 1}, "--num_batches and --batch_size must be at least 1"),
        ({"num_samples": 1, "batch_size": 0}, "--num_batches and --batch_size must be at least 1"),
        ({"num_atoms": 0}, "num_atoms must be 1 or more"),
        ({"num_atoms": [2, -1]}, "num_atoms must be 1 or more"),
        ({"num_atoms_distribution": "MINE"}, "num_atoms_distribution is 'MINE': use one of .*ALEX_MP_20"),
    ],
)
def test_numbers_that_make_no_sense(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        ConditionLoader(**{"num_samples": 4, "batch_size": 2, **arguments})


def test_from_the_sampling_settings(compose, monkeypatch):
    """As mattergen-generate does it, with the seed from the environment."""

    def loader(*overrides):
        words = ["+condition_loader_partial.num_samples=6", "+condition_loader_partial.batch_size=4", *overrides]
        words.append("+condition_loader_partial.num_atoms_distribution=ALEX_MP_20")
        return instantiate(compose("joint", *words, sampling=True).condition_loader_partial)(properties=None)

    monkeypatch.delenv("MATTERGEN_E_SEED", raising=False)
    assert loader().seed is None
    monkeypatch.setenv("MATTERGEN_E_SEED", "12")
    assert loader().seed == 12
    assert sizes(loader()) == sizes(ConditionLoader(6, 4, seed=12))
    assert set(loader("condition_loader_partial.num_atoms=5").num_atoms().tolist()) == {5}
    assert set(loader("condition_loader_partial.num_atoms=[5,7]").num_atoms().tolist()) <= {5, 7}


def test_seed_of_a_batch():
    def numbers(seed, batch, redraw):
        seed_batch(seed, batch, redraw)
        return tuple(torch.randn(4).tolist())

    first = numbers(3, 1, 0)
    torch.randn(100)
    assert numbers(3, 1, 0) == first  # whatever was drawn before
    cases = list(itertools.product((0, 1, 2**31), (0, 1, 2), (0, 1, 2)))
    assert len({numbers(*case) for case in cases}) == len(cases)


def test_copies_of_older_sampling_settings(compose):
    """With the keys that named what draws and what reads constraints: accepted and ignored, old names replaced."""
    from mattergen_e.generation.hooks import modernize

    today = compose("joint", sampling=True)
    old = compose(
        "joint",
        "+sampler_partial.draw={_target_: hydra.utils.get_method, path: mattergen_e.generation.draw.draw}",
        "+sampler_partial.constrain={_target_: hydra.utils.get_method, path: mattergen_e.constraints.apply.constrain}",
        "sampler_partial._target_=mattergen_e.diffusion.sampler.JointSampler.from_pl_module",
        "condition_loader_partial._target_=mattergen_e.diffusion.classifier_target.GuidedConditionLoader",
        sampling=True,
    )
    assert modernize(old) and modernize(today) and old == today
    assert not modernize(compose("default", sampling=True))
