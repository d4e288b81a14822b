"""The command `mattergen-e`: quick help, late imports, one line per error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import typer

import mattergen_e
from mattergen_e import cli
from mattergen_e.errors import UserError


def run(*words: str) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    return int(ended.value.code or 0)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Adds a sub-command `probe` that is made of the given function or `typer.Typer`."""

    def add(attribute: object) -> None:
        module = ModuleType("probe_module")
        module.probe = attribute  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "probe_module", module)
        monkeypatch.setitem(cli.COMMANDS, "probe", cli.Entry("probe_module", "probe", "Probe it."))

    return add


def test_help_lists_all_commands_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    code = """
import sys, time
from mattergen_e.cli import main
try:
    main(["--help"])
except SystemExit as ended:
    assert not ended.code
heavy = {"torch", "numpy", "mattergen", "pymatgen", "hydra", "mattergen_e.cli.data"} & set(sys.modules)
print("imported:", sorted(heavy), "seconds:", time.process_time())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    for name, entry in cli.COMMANDS.items():
        assert f" {name} " in result.stdout
        assert entry.summary.split(".")[0] in result.stdout
    imported, seconds = result.stdout.split("imported: ")[1].split(" seconds: ")
    assert imported == "[]"
    assert float(seconds) < 1.0  # of the processor, on a slow and busy machine; ordinarily a third of it


def test_without_words_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "doctor" in "".join(capsys.readouterr())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"mattergen-e {mattergen_e.__version__}\n"


def test_version_of_the_installed_script() -> None:
    script = Path(sys.executable).parent / "mattergen-e"
    result = subprocess.run([str(script), "--version"], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout == f"mattergen-e {mattergen_e.__version__}\n"


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert f"mattergen-e {name}" in capsys.readouterr().out


def test_misspelt_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doktor") == 2
    assert "Did you mean 'doctor'?" in capsys.readouterr().err


def test_function_and_application_as_sub_command(
    command: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(lambda: typer.echo("a function"))
    assert run("probe") == 0
    application = typer.Typer()
    application.callback()(lambda: None)
    application.command("inner")(lambda: typer.echo("an application"))
    command(application)
    assert run("probe", "inner") == 0
    assert capsys.readouterr().out == "a function\nan application\n"


def test_what_an_import_prints_is_dropped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "loud_module.py").write_text("print('MODELS_PROJECT_ROOT')\n\ndef probe():\n    print('result')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.COMMANDS, "probe", cli.Entry("loud_module", "probe", "Probe it."))
    assert run("probe") == 0
    assert capsys.readouterr().out == "result\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("the file x\nis empty: fill it."), 2, "mattergen-e: the file x is empty: fill it."),
        (KeyboardInterrupt(), 130, "mattergen-e: interrupted."),
        (ZeroDivisionError("division by zero"), 1, "mattergen-e: unexpected ZeroDivisionError: division by zero"),
    ],
    ids=["user", "interrupt", "unexpected"],
)
def test_errors_are_one_line(
    error: BaseException,
    code: int,
    line: str,
    command: Callable[[object], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def probe() -> None:
        raise error

    monkeypatch.delenv(cli.DEBUG, raising=False)
    command(probe)
    assert run("probe") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("error", [UserError("empty"), ZeroDivisionError("zero")], ids=["user", "unexpected"])
def test_debugging_shows_the_traceback(
    error: Exception, command: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe() -> None:
        raise error

    command(probe)
    monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(type(error)):
        cli.main(["probe"])


def test_user_error_of_mattergens_code_under_our_command(
    command: Callable[[object], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mattergen_e.upstream import exit_on_user_error

    @exit_on_user_error
    def probe() -> None:
        raise UserError("empty: fill it.")

    monkeypatch.setattr(sys, "argv", ["/usr/bin/mattergen-e", "probe"])
    command(probe)
    assert run("probe") == 2
    assert capsys.readouterr().err == "mattergen-e: empty: fill it.\n"
