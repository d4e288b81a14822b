"""Learning: a small model that saw four crystals knows their charges."""

from __future__ import annotations

import pytest
import torch

from mattergen_e.diffusion.prediction import predict_descriptors

NAMES = ("NaCl", "MgO", "Li2O", "ZnS")
STEPS = 550


@pytest.mark.slow
def test_charges_of_the_training_crystals_are_learnt(make_joint, solids, to_batch):
    """Charges between -1.75 and 1.71 e, from noise and the structure, to 0.05 e."""
    structures = [solids[name] for name in NAMES]
    truth, known = to_batch(structures)["bader_charge"], to_batch(structures, fields=())
    model = make_joint(fresh=True, hidden_dim=32, num_blocks=2, cutoff=4.0, shares={"predict": 1.0})
    torch.manual_seed(0)
    before = predict_descriptors(model, known, samples=32)["bader_charge"]
    assert (before.mean - truth).abs().max() > 1.0

    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=STEPS, pct_start=0.1)
    batch = to_batch(structures * 6)
    model.train()
    torch.manual_seed(0)
    for _ in range(STEPS):
        loss, _ = model.diffusion_module.calc_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    torch.manual_seed(0)
    found = predict_descriptors(model, known, samples=32)["bader_charge"]
    assert (found.mean - truth).abs().max() < 0.05
    assert found.std.max() < 0.15
