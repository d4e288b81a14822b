"""`mattergen-e data label`: settings from YAML and flags, and what is printed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mattergen_e.cli.label import read_settings, show
from mattergen_e.errors import UserError
from mattergen_e.labels.folder import Outcome
from mattergen_e.labels.run import Summary
from mattergen_e.labels.settings import LabelSettings


def test_settings_of_a_file_and_of_flags_come_together(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("atomic_dos:\n  smearing: 0.05\n  semicore_threshold: -8\nbader: {equivalent_tolerance: 0.1}\n")
    settings = read_settings(file, average_equivalent=True, allow_unconverged=False)
    assert settings.atomic_dos.smearing == 0.05 and settings.atomic_dos.semicore_threshold == -8
    assert settings.atomic_dos.grid.points == 512  # not named, so as by default
    assert settings.bader.equivalent_tolerance == 0.1 and settings.bader.average_equivalent
    assert not settings.allow_unconverged
    assert read_settings(None, False, False) == LabelSettings()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("atomic_dos: {smearing: -1}", "atomic_dos.smearing"),
        ("atomic_dos: {smaering: 0.1}", "atomic_dos.smaering"),
        ("total_dos: {grid: {minimum: 3, maximum: 1, points: 10}}", "total_dos.grid"),
        ("bader: neargrid", "bader"),
        ("[1, 2]", "the file"),
        ("a: b: c", "cannot be read as YAML"),
    ],
)
def test_wrong_settings_are_one_sentence(text: str, place: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=place) as caught:
        read_settings(file, False, False)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@given(content=st.binary(max_size=200))
def test_any_file_is_settings_or_one_sentence(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("settings") / "settings.yaml"
    file.write_bytes(content)
    try:
        assert isinstance(read_settings(file, False, False), LabelSettings)
    except UserError as error:
        assert "\n" not in str(error)


def test_failures_are_shown_by_reason() -> None:
    outcomes = (
        Outcome("a", "runs/a", None, "", ""),
        Outcome("b", "runs/b", "window", "the DOS ends at 3 eV [short]", ""),
        Outcome("c", "runs/c", "window", "the DOS ends at 4 eV", ""),
        Outcome("d", "runs/d", "damaged_file", "vasprun.xml is cut off", ""),
    )
    console = Console(width=120, record=True, file=io.StringIO())
    show(Summary(outcomes, reused=1), Path("labels"), console)
    text = console.export_text()
    assert "1 of 4 calculations labelled, 1 of them from before." in text
    assert text.index("window") < text.index("damaged_file") and "[short]" in text
    assert "labels/failed.jsonl" in text
