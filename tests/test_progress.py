"""The progress bar: silent where nobody watches, one line where a terminal is."""

from __future__ import annotations

import io

import pytest

from mattergen_e.progress import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_shown_on_a_terminal_only(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with bar("Reading crystals", 4, completed=1) as advance:
        advance()
        advance(2)
    assert ("Reading crystals" in stream.getvalue()) == stream.isatty()


def test_not_shown_if_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with bar("Reading crystals", 4, wanted=False) as advance:
        advance()
    assert terminal.getvalue() == ""
