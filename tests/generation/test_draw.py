"""Runs: the same crystals whether interrupted or not, degenerate ones drawn anew, and everything on the disk."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from mattergen.common.data.condition_factory import (
    get_composition_data_loader,
    get_number_of_atoms_condition_loader,
)
from mattergen.diffusion.lightning_module import DiffusionLightningModule

from mattergen_e.descriptors import BaderCharge, Descriptor
from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.draw import draw
from mattergen_e.generation.fitting import sample_batch
from mattergen_e.generation.results import is_healthy, to_structures
from mattergen_e.generation.store import load_record, read_crystals

OUTPUTS = ("generated_crystals.extxyz", "generated_crystals.jsonl")


@pytest.fixture(scope="module")
def model(make_joint):
    return make_joint({"bader_charge": BaderCharge(scale=0.8), "dos": Descriptor(name="dos", dim=3)})


def loader(num_samples=6, batch_size=2, seed=5, **settings):
    return ConditionLoader(num_samples, batch_size, num_atoms=[2, 3, 4], seed=seed, **settings)


def interrupt(sampler, at, error=KeyboardInterrupt):
    """Makes the sampler raise when its batch number `at` is due."""
    original, calls = sampler.sample, []

    def sample(*arguments):
        calls.append(None)
        if len(calls) == at + 1:
            raise error
        return original(*arguments)

    sampler.sample = sample


def degenerate(sampler, index, times, field="cell", value=math.nan):
    """Makes one crystal of the batch come out degenerate in the first so many draws."""
    original, sizes = sampler.sample, []

    def sample(data, mask):
        last, mean = original(data, mask)
        sizes.append(data.get_batch_size())
        if len(sizes) <= times:
            place = index if len(sizes) == 1 else 0  # later draws hold that crystal alone
            values = mean[field].clone()
            sites = mean.get_batch_idx(field)
            values[place if sites is None else sites == place] = value
            mean = mean.replace(**{field: values})
        return last, mean

    sampler.sample = sample
    return sizes


def same(a, b):
    """Whether two structures are equal to the last bit, with their site properties."""
    return (
        np.array_equal(a.lattice.matrix, b.lattice.matrix)
        and np.array_equal(a.frac_coords, b.frac_coords)
        and a.species == b.species
        and a.site_properties == b.site_properties
    )


# -- a batch ----------------------------------------------------------------------------------------------------------


def test_a_batch_depends_on_seed_and_number_alone(model, make_sampler):
    sampler = make_sampler(model)
    conditions = loader().make(np.array([2, 4, 3]))
    first = sample_batch(sampler, conditions, seed=1, batch=2)
    torch.manual_seed(99)
    sample_batch(sampler, conditions, seed=1, batch=0)
    again = sample_batch(make_sampler(model), conditions, seed=1, batch=2)
    others = [sample_batch(sampler, conditions, seed=s, batch=b) for s, b in ((1, 3), (2, 2))]
    for i in range(3):
        assert same(first.structures[i], again.structures[i])
        assert not any(same(first.structures[i], other.structures[i]) for other in others)
    assert [len(s) for s in first.structures] == [2, 4, 3]
    assert first.redraws == [0, 0, 0] and first.dropped == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("cell", math.nan), ("cell", 1e4), ("pos", math.inf), ("atomic_numbers", 101), ("dos", math.nan)],
)
def test_degenerate_crystal_is_drawn_anew_alone(model, make_sampler, field, value):
    conditions = loader().make(np.array([2, 4, 3]))
    undisturbed = sample_batch(make_sampler(model), conditions, seed=1, batch=0)
    sampler = make_sampler(model)
    sizes = degenerate(sampler, 1, times=1, field=field, value=value)
    result = sample_batch(sampler, conditions, seed=1, batch=0)
    assert sizes == [3, 1]
    assert result.redraws == [0, 1, 0] and result.dropped == 1
    assert same(result.structures[0], undisturbed.structures[0])
    assert same(result.structures[2], undisturbed.structures[2])
    assert len(result.structures[1]) == 4 and not same(result.structures[1], undisturbed.structures[1])


def test_another_draw_is_another_crystal(model, make_sampler):
    """Else a degenerate crystal would come out again and again."""
    sampler = make_sampler(model)
    degenerate(sampler, 0, times=1)
    conditions = loader().make(np.array([3]))
    drawn_anew = sample_batch(sampler, conditions, seed=1, batch=0)
    first = sample_batch(make_sampler(model), conditions, seed=1, batch=0)
    assert drawn_anew.redraws == [1] and first.redraws == [0]
    assert not same(drawn_anew.structures[0], first.structures[0])


def test_parked_crystals_count_as_degenerate(model, make_sampler):
    sampler = make_sampler(model)
    original, calls = sampler.sample, []

    def sample(data, mask):
        out = original(data, mask)
        calls.append(None)
        if len(calls) == 1:
            sampler.guard.park(torch.tensor([True, False, False]))
        return out

    sampler.sample = sample
    result = sample_batch(sampler, loader().make(np.array([2, 4, 3])), seed=1, batch=0)
    assert result.redraws == [1, 0, 0]


def test_a_crystal_that_never_succeeds_is_missing(model, make_sampler):
    sampler = make_sampler(model, output={"redraws": 2})
    sizes = degenerate(sampler, 0, times=100)
    result = sample_batch(sampler, loader().make(np.array([2, 4])), seed=1, batch=0)
    assert sizes == [2, 1, 1]
    assert result.structures[0] is None and result.structures[1] is not None
    assert result.redraws == [2, 0]
    assert result.dropped == 3  # the first draw and two redraws


def test_what_is_healthy(model, make_sampler, solids, to_batch):
    structures = [structure.copy() for structure in solids.values()]
    for structure in structures:
        structure.add_site_property("dos", [[0.0, 1.0, 2.0]] * len(structure))
    batch = to_batch(structures, fields=("bader_charge", "dos"))
    nothing = torch.zeros(8, dtype=torch.bool)
    descriptors = {name: Descriptor(name=name) for name in ("bader_charge", "dos")}
    assert is_healthy(batch, nothing, 150.0, descriptors).all()
    sites = batch.get_batch_idx("pos")

    def sick(**changes):
        healthy = is_healthy(batch.replace(**changes), nothing, 150.0, descriptors)
        return [i for i in range(8) if not healthy[i]]

    def put(field, rows, value):
        values = batch[field].clone()
        values[rows] = value
        return {field: values}

    first_of_2 = (sites == 2).nonzero()[0]
    assert sick(**put("pos", first_of_2, math.nan)) == [2]
    assert sick(**put("dos", first_of_2, math.inf)) == [2]
    assert sick(**put("bader_charge", first_of_2, math.nan)) == [2]
    assert sick(**put("atomic_numbers", first_of_2, 0)) == [2]
    assert sick(**put("atomic_numbers", first_of_2, 101)) == [2]
    assert sick(**put("cell", 5, math.nan)) == [5]
    assert sick(**put("cell", 5, 0.0)) == [5]
    assert sick(**put("cell", 5, 10.0 * torch.eye(3))) == [5]  # 333 cubic angstrom per site
    assert sick(**put("cell", 5, torch.eye(3))) == [5]  # a third of one
    parked = nothing.clone()
    parked[6] = True
    assert is_healthy(batch, parked, 150.0, {}).tolist() == [i != 6 for i in range(8)]


def test_structures_of_a_batch(solids, to_batch):
    batch = to_batch(list(solids.values()))
    descriptors = {"bader_charge": BaderCharge(scale=2.0)}
    found = to_structures(batch.replace(bader_charge=batch["bader_charge"] / 2.0), descriptors)
    for structure, original in zip(found, solids.values(), strict=True):
        assert structure.species == original.species
        assert np.allclose(structure.distance_matrix, original.distance_matrix, atol=1e-4)
        charges = original.site_properties["bader_charge"]
        assert structure.site_properties["bader_charge"] == pytest.approx(charges, abs=1e-6)
    broken = batch["atomic_numbers"].clone()
    broken[0] = 0
    assert to_structures(batch.replace(atomic_numbers=broken), {})[0] is None


# -- a run ------------------------------------------------------------------------------------------------------------


def test_run_writes_what_it_returns(tmp_path, model, make_sampler):
    structures = draw(make_sampler(model), loader(), {}, tmp_path / "run")
    crystals = read_crystals(tmp_path / "run")
    assert [c.index for c in crystals] == list(range(6)) and [c.batch for c in crystals] == [0, 0, 1, 1, 2, 2]
    assert [len(c.structure) for c in crystals] == loader().num_atoms().tolist()
    assert all(same(a, c.structure) for a, c in zip(structures, crystals, strict=True))
    for structure in structures:
        charges = structure.site_properties["bader_charge"]
        assert abs(sum(charges)) < 1e-5  # six decimals are written
        assert np.shape(structure.site_properties["dos"]) == (len(structure), 3)
    frames = ase.io.read(tmp_path / "run" / OUTPUTS[0], index=":")
    for atoms, structure in zip(frames, structures, strict=True):
        assert np.allclose(atoms.arrays["bader_charge"], structure.site_properties["bader_charge"], atol=1e-6)
        assert atoms.get_atomic_numbers().tolist() == list(structure.atomic_numbers)
    record = load_record(tmp_path / "run")
    assert (record.status, record.seed, record.crystals, record.dropped, record.failed) == ("finished", 5, 6, 0, 0)
    assert record.settings["steps"] == 10 and record.settings["descriptors"] == ["bader_charge", "dos"]
    assert {name: (field["place"], field["dim"]) for name, field in record.fields.items()} == {
        "bader_charge": ("site", 1),
        "dos": ("site", 3),
    }


def test_progress_is_reported_to_callers(model, make_sampler):
    """As MatterGen's own function does in versions after 1.0.3."""
    reports = []
    draw(make_sampler(model), loader(), {}, progress_callback=lambda *, progress: reports.append(progress))
    batches = len(loader())
    assert reports == [i / batches for i in range(batches)] + [1.0]


def test_run_without_a_folder(tmp_path, model, make_sampler):
    kept = draw(make_sampler(model), loader(), {}, tmp_path / "run")
    returned = draw(make_sampler(model), loader(), {})
    for a, b in zip(kept, returned, strict=True):
        assert a.species == b.species and a.site_properties == b.site_properties
        assert np.allclose(a.frac_coords, b.frac_coords, atol=1e-9)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_resumed_run_gives_the_same_crystals(tmp_path, capsys, model, make_sampler, at):
    draw(make_sampler(model), loader(), {}, tmp_path / "whole")
    sampler = make_sampler(model)
    interrupt(sampler, at)
    with pytest.raises(KeyboardInterrupt):
        draw(sampler, loader(), {}, tmp_path / "parts")
    assert f"interrupted with {at} batches written" in capsys.readouterr().err
    assert load_record(tmp_path / "parts").status == "interrupted"
    assert at == 0 or len(read_crystals(tmp_path / "parts")) == 2 * at

    torch.manual_seed(123)
    again = make_sampler(model, output={"existing": "resume"})
    calls = degenerate(again, 0, times=0)
    draw(again, loader(), {}, tmp_path / "parts")
    assert calls == [2] * (3 - at)  # finished batches are not made again
    for name in OUTPUTS:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    record = load_record(tmp_path / "parts")
    assert record.status == "finished" and len(record.resumes) == 1 and record.crystals == 6


def test_run_in_few_network_calls_is_resumed_with_the_same_plan_only(tmp_path, model, make_sampler):
    plan = {"steps": 3, "eta": {"default": 16.0, "cell": math.inf}}
    draw(make_sampler(model, **plan), loader(), {}, tmp_path / "whole")
    sampler = make_sampler(model, **plan)
    interrupt(sampler, 1)
    with pytest.raises(KeyboardInterrupt):
        draw(sampler, loader(), {}, tmp_path / "parts")
    torch.manual_seed(123)
    resume = {"existing": "resume"}
    for other, change in (({"steps": 4}, "'steps' was 3 and is now 4"), ({"eta": 1.0}, "'eta"), ({}, "'times")):
        with pytest.raises(UserError, match=change):
            draw(make_sampler(model, output=resume, **(plan | {"times": 2} | other)), loader(), {}, tmp_path / "parts")
    draw(make_sampler(model, output=resume, **plan), loader(), {}, tmp_path / "parts")
    for name in OUTPUTS:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    settings = load_record(tmp_path / "parts").settings
    assert settings["steps"] == 3 and settings["eta"] == {"cell": "inf", "default": 16.0}
    assert settings["times"] == pytest.approx([1.0, (2 / 3) ** 1.5, (1 / 3) ** 1.5, 0.0])


def test_a_run_that_becomes_longer_is_the_longer_run(tmp_path, model, make_sampler):
    draw(make_sampler(model), loader(), {}, tmp_path / "whole")
    draw(make_sampler(model), loader(num_samples=4), {}, tmp_path / "parts")
    torch.manual_seed(123)
    draw(make_sampler(model, output={"existing": "resume"}), loader(), {}, tmp_path / "parts")
    for name in OUTPUTS:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(UserError, match="a run of 6 crystals, not of 4"):
        draw(make_sampler(model, output={"existing": "resume"}), loader(num_samples=4), {}, tmp_path / "parts")


def test_resume_takes_the_seed_that_the_run_began_with(tmp_path, model, make_sampler):
    sampler = make_sampler(model)
    interrupt(sampler, 1)
    with pytest.raises(KeyboardInterrupt):
        draw(sampler, loader(seed=None), {}, tmp_path / "random")
    seed = load_record(tmp_path / "random").seed
    draw(make_sampler(model, output={"existing": "resume"}), loader(seed=None), {}, tmp_path / "random")
    draw(make_sampler(model), loader(seed=seed), {}, tmp_path / "given")
    for name in OUTPUTS:
        assert (tmp_path / "random" / name).read_bytes() == (tmp_path / "given" / name).read_bytes()


def test_random_seeds_differ(tmp_path, model, make_sampler):
    seeds = set()
    for name in ("a", "b"):
        draw(make_sampler(model), loader(num_samples=1, batch_size=1, seed=None), {}, tmp_path / name)
        seeds.add(load_record(tmp_path / name).seed)
    assert len(seeds) == 2


def test_resume_of_something_else_is_refused(tmp_path, model, make_joint, make_sampler):
    draw(make_sampler(model), loader(), {}, tmp_path / "run")
    before = (tmp_path / "run" / OUTPUTS[1]).read_bytes()
    resume = {"existing": "resume"}
    with pytest.raises(UserError, match="'seed' was 5 and is now 6"):
        draw(make_sampler(model, output=resume), loader(seed=6), {}, tmp_path / "run")
    with pytest.raises(UserError, match="'batch_size' was 2 and is now 3"):
        draw(make_sampler(model, output=resume), loader(batch_size=3), {}, tmp_path / "run")
    with pytest.raises(UserError, match="'guidance_factor' was 0.0 and is now 2.0"):
        draw(make_sampler(model, output=resume, guidance_scale=2.0), loader(), {}, tmp_path / "run")
    other = make_joint({"bader_charge": BaderCharge(scale=0.8), "dos": Descriptor(name="dos", dim=3)}, seed=1)
    with pytest.raises(UserError, match="'weights_sha256' was"):
        draw(make_sampler(other, output=resume), loader(), {}, tmp_path / "run")
    with pytest.raises(UserError, match="already holds the results of a run"):
        draw(make_sampler(model), loader(), {}, tmp_path / "run")
    assert (tmp_path / "run" / OUTPUTS[1]).read_bytes() == before
    draw(make_sampler(model, output={"existing": "overwrite"}), loader(seed=6), {}, tmp_path / "run")
    assert load_record(tmp_path / "run").seed == 6
    assert (tmp_path / "run" / OUTPUTS[1]).read_bytes() != before


def test_degenerate_crystals_are_counted(tmp_path, model, make_sampler):
    sampler = make_sampler(model, output={"redraws": 1})
    degenerate(sampler, 1, times=1)
    draw(sampler, loader(), {}, tmp_path / "run")
    record = load_record(tmp_path / "run")
    assert (record.crystals, record.dropped, record.failed) == (6, 1, 0)
    assert [c.redraws for c in read_crystals(tmp_path / "run")] == [0, 1, 0, 0, 0, 0]


def test_missing_crystals_are_counted_and_keep_their_number(tmp_path, model, make_sampler):
    sampler = make_sampler(model, output={"redraws": 1})
    degenerate(sampler, 1, times=2)
    structures = draw(sampler, loader(), {}, tmp_path / "run")
    record = load_record(tmp_path / "run")
    assert len(structures) == 5
    assert (record.crystals, record.dropped, record.failed) == (5, 2, 1)
    assert [c.index for c in read_crystals(tmp_path / "run")] == [0, 2, 3, 4, 5]


def test_an_error_leaves_the_finished_batches(tmp_path, model, make_sampler):
    sampler = make_sampler(model)
    interrupt(sampler, 2, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        draw(sampler, loader(), {}, tmp_path / "run")
    assert [c.index for c in read_crystals(tmp_path / "run")] == [0, 1, 2, 3]


# -- conditions -------------------------------------------------------------------------------------------------------


def test_condition_that_the_model_does_not_know(tmp_path, model, make_joint, make_sampler):
    with pytest.raises(UserError, match="names 'dft_band_gap', but this model was trained .* on no property"):
        draw(make_sampler(model), loader(), {"dft_band_gap": 1.0}, tmp_path / "run")
    with pytest.raises(UserError, match="names 'space_group', but this model was trained .* on dft_band_gap"):
        draw(make_sampler(make_joint(adapter=True)), loader(), {"space_group": 1}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_compositions_are_refused(tmp_path, model, make_sampler):
    """With the loader that MatterGen makes of `target_compositions`; NaCl must not come out as anything else."""
    compositions = get_composition_data_loader([{"Na": 1, "Cl": 1}], 2, batch_size=2)
    with pytest.raises(UserError, match="crystal structure prediction.*sampling_config_name=csp"):
        draw(make_sampler(model), compositions, {}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mattergens_own_loader_of_numbers_of_sites_is_taken(model, make_sampler):
    sizes = get_number_of_atoms_condition_loader("ALEX_MP_20", num_samples=2, batch_size=2)
    structures = draw(make_sampler(model), sizes, {})
    assert 0 < len(structures) <= 2


def test_conditions_are_recorded(tmp_path, capsys, make_joint, make_sampler):
    gap = {"dft_band_gap": 2.5}
    sampler = make_sampler(make_joint(adapter=True), guidance_scale=2.0)
    draw(sampler, loader(properties=gap), gap, tmp_path / "run")
    assert all(c.conditions == gap for c in read_crystals(tmp_path / "run"))
    record = load_record(tmp_path / "run")
    assert record.settings["conditions"] == gap and record.settings["guidance_factor"] == 2.0
    assert "guidance" not in capsys.readouterr().err


def test_each_crystal_is_recorded_with_its_own_value(tmp_path, make_joint, make_sampler):
    """Guided, in one batch and across two; a crystal's value reaches the network: others come out for other values."""
    gaps = {"dft_band_gap": [0.5, 4.0]}
    sampler = make_sampler(make_joint(adapter=True), guidance_scale=2.0)
    made = draw(sampler, loader(num_samples=4, batch_size=3, properties=gaps), gaps, tmp_path / "run")
    crystals = read_crystals(tmp_path / "run")
    assert [c.conditions for c in crystals] == [{"dft_band_gap": value} for value in (0.5, 4.0, 0.5, 4.0)]
    assert load_record(tmp_path / "run").settings["conditions"] == gaps
    first = {"dft_band_gap": 0.5}
    alone = draw(sampler, loader(num_samples=4, batch_size=3, properties=first), first)
    assert [same(a, b) for a, b in zip(made, alone, strict=True)][1] is False


def test_condition_without_guidance_is_warned_of(capsys, make_joint, make_sampler):
    gap = {"dft_band_gap": 2.5}
    draw(make_sampler(make_joint(adapter=True)), loader(num_samples=1, properties=gap), gap)
    assert "--diffusion_guidance_factor=2.0" in capsys.readouterr().err


# -- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resumed", [False, True], ids=["first process", "second process"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["TERM", "HUP"])
def test_a_signal_leaves_an_interrupted_run(tmp_path, capsys, model, make_sampler, number, code, resumed):
    """With the exit code that shells give, and the next process finishes it; handlers are put back."""
    whole = draw(make_sampler(model), loader(), {})
    if resumed:
        sampler = make_sampler(model)
        interrupt(sampler, 1)
        with pytest.raises(KeyboardInterrupt):
            draw(sampler, loader(), {}, tmp_path / "run")
    before = signal.getsignal(number)
    sampler = make_sampler(model, output={"existing": "resume"})
    original, calls = sampler.sample, []

    def sample(*arguments):
        calls.append(None)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return original(*arguments)

    sampler.sample = sample
    with pytest.raises(SystemExit) as ended:
        draw(sampler, loader(), {}, tmp_path / "run")
    assert ended.value.code == code and signal.getsignal(number) == before
    assert load_record(tmp_path / "run").status == "interrupted"
    assert "MATTERGEN_E_EXISTING=resume" in capsys.readouterr().err
    finished = draw(make_sampler(model, output={"existing": "resume"}), loader(), {}, tmp_path / "run")
    assert load_record(tmp_path / "run").status == "finished"
    assert all(same(a, b) for a, b in zip(finished, whole, strict=True))


def test_ctrl_c_shows_no_traceback_in_a_command(tmp_path, capsys, model, make_sampler, monkeypatch):
    sampler = make_sampler(model)
    interrupt(sampler, 1)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mattergen-generate"])
    with pytest.raises(SystemExit) as ended:
        draw(sampler, loader(), {}, tmp_path / "run")
    assert ended.value.code == 130 and ended.value.__suppress_context__
    assert "interrupted with 1 batches written" in capsys.readouterr().err


def out_of_memory(sampler, largest):
    """Makes the allocator refuse what batches of more crystals need: four petabytes."""
    original, sizes = sampler.sample, []

    def sample(data, mask):
        sizes.append(data.get_batch_size())
        if sizes[-1] > largest:
            torch.empty(2**50)
        return original(data, mask)

    sampler.sample = sample
    return sizes


def test_a_batch_that_does_not_fit_names_what_would(tmp_path, model, make_sampler):
    sampler = make_sampler(model)
    out_of_memory(sampler, 1)
    with pytest.raises(UserError, match=r"a batch of 2 crystals does not fit .*--batch_size=1 .*output.halve=true"):
        draw(sampler, loader(), {}, tmp_path / "run")
    assert load_record(tmp_path / "run").status == "interrupted"


def test_a_batch_that_does_not_fit_is_halved_on_demand(tmp_path, capsys, model, make_sampler):
    sampler = make_sampler(model, output={"halve": True})
    sizes = out_of_memory(sampler, 2)
    halved = draw(sampler, loader(num_samples=8, batch_size=6), {}, tmp_path / "run")
    assert sizes == [6, 3, 2, 2, 2, 2]  # what fits is remembered
    assert len(halved) == 8 and [c.index for c in read_crystals(tmp_path / "run")] == list(range(8))
    assert sorted(len(s) for s in halved) == sorted(loader(num_samples=8).num_atoms())
    assert not any(same(a, b) for i, a in enumerate(halved) for b in halved[:i]), "parts have the same noise"
    assert "Going on with 3 at a time" in capsys.readouterr().err
    sizes = out_of_memory(sampler, 0)
    with pytest.raises(UserError, match="a batch of 1 crystal does not fit"):
        draw(sampler, loader(), {})
    assert sizes[-1] == 1


# -- other samplers and outputs ---------------------------------------------------------------------------------------


def test_model_without_descriptors(tmp_path, make_module, make_sampler):
    sampler = make_sampler(DiffusionLightningModule(diffusion_module=make_module()))
    structures = draw(sampler, loader(), {}, tmp_path / "run")
    assert len(structures) == 6 and all(s.site_properties == {} for s in structures)
    assert load_record(tmp_path / "run").settings["descriptors"] == []


def test_trajectories(tmp_path, model, make_sampler):
    sampler = make_sampler(model, output={"trajectories": True})
    with_steps = draw(sampler, loader(), {}, tmp_path / "run")
    plain = draw(make_sampler(model), loader(), {}, tmp_path / "plain")
    assert all(same(a, b) for a, b in zip(with_steps, plain, strict=True))  # looking on changes nothing
    for batch in range(3):
        (archive,) = Path(tmp_path / "run" / f"trajectories_batch_{batch}").glob("*.zip")
        assert len(zipfile.ZipFile(archive).namelist()) == 2
    assert not list((tmp_path / "plain").glob("trajectories*"))


@pytest.mark.parametrize(("word", "kept"), [("--record_trajectories=True", True), ("--batch_size=2", False)])
def test_trajectories_that_the_command_line_asks_for(tmp_path, model, make_sampler, monkeypatch, word, kept):
    """MatterGen's default is True, which nobody typed."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mattergen-generate", "out", word])
    draw(make_sampler(model), loader(num_samples=1), {}, tmp_path / "run", record_trajectories=True)
    assert bool(list((tmp_path / "run").glob("trajectories*"))) is kept


def test_lines_of_the_output(tmp_path, model, make_sampler):
    draw(make_sampler(model), loader(num_samples=2), {}, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / OUTPUTS[1]).read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1]
    assert all(line["seed"] == 5 and line["redraws"] == 0 for line in lines)
