"""What is written down of the noise of a training, and what a predictor must not guide."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import yaml
from mattergen.diffusion.corruption.d3pm_corruption import D3PMCorruption
from mattergen.diffusion.corruption.multi_corruption import MultiCorruption
from mattergen.diffusion.d3pm.d3pm import MaskDiffusion, create_discrete_diffusion_schedule

from mattergen_e.descriptors import BaderCharge
from mattergen_e.diffusion.joint import JointCorruption
from mattergen_e.errors import UserError
from mattergen_e.networks.predictor.encoder import _of_structure
from mattergen_e.networks.predictor.folder import DESCRIPTION, describe, load, save
from mattergen_e.networks.predictor.noise import describe_noise, require_same_noise
from mattergen_e.networks.predictor.training import noised


@pytest.fixture
def corruption(make_module: Any) -> Any:
    return make_module().corruption


def test_limits_and_rates_of_every_field(corruption: Any) -> None:
    found = describe_noise(corruption)
    assert set(found) == {"pos", "cell", "atomic_numbers"}
    assert found["pos"]["sigma_max"] == 5.0 and found["pos"]["limit_info_key"] == "num_atoms"
    assert (found["cell"]["beta_0"], found["cell"]["beta_1"]) == (0.1, 20)
    assert found["cell"]["limit_density"] == pytest.approx(0.0577145)
    # the standard schedule masks evenly: after 2 of 10 steps 80 % show their element
    assert found["atomic_numbers"]["steps"] == 10 and found["atomic_numbers"]["kept"] == [0.8, 0.5, 0.3]


def test_another_schedule_of_as_many_steps_is_another_noise(corruption: Any) -> None:
    schedule = create_discrete_diffusion_schedule("linear", beta_min=0.01, beta_max=0.5, num_steps=10)
    masks = D3PMCorruption(MaskDiffusion(dim=101, schedule=schedule), offset=1)
    other = MultiCorruption(sdes=corruption.sdes, discrete_corruptions={"atomic_numbers": masks})
    with pytest.raises(UserError, match=r"\(atomic_numbers: kept \[0.8, 0.5, 0.3\], here \["):
        require_same_noise(describe_noise(corruption), describe_noise(other), "folder")


def test_descriptors_are_no_part_of_it(corruption: Any, solids: Any, to_batch: Any) -> None:
    """A joint model's noise of structures, for crystals that have no descriptors."""
    joint = JointCorruption(corruption, {"bader_charge": BaderCharge()})
    assert describe_noise(joint) == describe_noise(corruption)
    batch = to_batch([solids["NaCl"], solids["ZnS"]], fields=())
    both = []
    for noise in (corruption, _of_structure(joint)):
        torch.manual_seed(0)
        both.append(noised(batch, noise, 0.0)[0])
    assert all(torch.equal(both[0][name], both[1][name]) for name in ("pos", "cell", "atomic_numbers"))


def test_a_model_that_noises_otherwise_is_refused(corruption: Any) -> None:
    here = describe_noise(corruption)
    require_same_noise(None, here, "folder")
    require_same_noise(deepcopy(here), here, "folder")
    other = deepcopy(here)
    other["cell"]["limit_density"] = 0.05
    with pytest.raises(UserError, match=r"^folder was .* \(cell: limit_density 0.05, here 0.0577\d*\): train") as error:
        require_same_noise(other, here, "folder")
    assert "\n" not in str(error.value)
    del other["cell"]
    with pytest.raises(UserError, match=r"\(cell: kind None, here LatticeVPSDE\)"):
        require_same_noise(other, here, "folder")


def test_it_is_written_and_read(make_predictor: Any, corruption: Any, tmp_path: Any) -> None:
    predictor = make_predictor(noisy=True)
    before = predictor.fingerprint
    save(predictor, tmp_path / "before")
    assert "noise" not in yaml.safe_load((tmp_path / "before" / DESCRIPTION).read_text())
    assert load(tmp_path / "before").noise is None and load(tmp_path / "before").fingerprint == before

    predictor = make_predictor(noisy=True)
    predictor.noise = describe_noise(corruption)
    assert predictor.fingerprint != before
    save(predictor, tmp_path / "now")
    assert load(tmp_path / "now").noise == describe(tmp_path / "now").noise == describe_noise(corruption)

    path = tmp_path / "now" / DESCRIPTION
    changed = yaml.safe_load(path.read_text())
    changed["noise"]["cell"]["limit_density"] = 0.05
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(UserError, match="was changed"):
        load(tmp_path / "now")
