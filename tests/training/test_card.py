"""The card's schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from mattergen_e.errors import UserError
from mattergen_e.training.card import read_card

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.mark.parametrize("name", ["base_small", "bader_joint_small"])
def test_cards_in_the_repository_are_readable(name: str) -> None:
    card = read_card(CHECKPOINTS / name / "card.yaml")
    assert card.name == name
    assert [stage.epochs for stage in card.stages][-1:] in ([], [card.training.epochs])


def test_card_without_stages_is_readable(tmp_path: Path) -> None:
    """As version 0.1 wrote them."""
    training = "{epochs: 1, steps: 2, hours: 0.5, seed: 0, versions: {}, hardware: {}, data: null, "
    training += "loss_first: {loss_val: 2.0}, loss_last: {loss_val: 1.0}}"
    text = "{name: m, description: '', licence: MIT, data: [], commands: [], weights_sha256: x, parameters: 3, "
    (tmp_path / "card.yaml").write_text(text + f"training: {training}, metrics: []}}")
    card = read_card(tmp_path / "card.yaml")
    assert (card.training.hours, card.stages) == (0.5, [])


def test_card_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text("name: x\nsomething: else\n")
    with pytest.raises(UserError, match="is not a model card"):
        read_card(tmp_path / "card.yaml")
    with pytest.raises(UserError, match="does not exist"):
        read_card(tmp_path / "no.yaml")
