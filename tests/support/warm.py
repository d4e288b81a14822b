"""Commands in fresh processes without the seconds that importing torch and MatterGen takes in each.

A server imports what all commands import, and nothing else; each command runs in a fork of it, with its own arguments,
environment, folder and output, as if a person had typed it. Tests of what happens before these imports end start a
process of their own.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

BIN = Path(sys.executable).parent
PRELOADED = (
    "mattergen.scripts.run",
    "mattergen.scripts.finetune",
    "mattergen.scripts.generate",
    "mattergen_e.cli",
    "mattergen_e.upstream",
    "pymatgen.io.cif",
)


class Command:
    """A command that runs: `pid`, `poll`, `wait` and `send_signal` as of `subprocess.Popen`."""

    def __init__(self, server: Server, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """Its exit code, when it has ended; a `subprocess.TimeoutExpired` if it has not, and then it is killed."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process, and to no child of it."""
        os.kill(self.pid, number)


class Server:
    """One server; it starts when it is first asked for something."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(
        self,
        words: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> Command:
        """Starts a command in a session of its own.

        Args:
            words: A console script of this environment and its arguments; or this Python with a script, or with -c.
            cwd: Where.
            environment: All of its variables; by default those of this process.
            output: Folder for `out` and `err`, what it prints; None: nowhere.
        """
        request = {
            "words": [str(word) for word in words],
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
            "out": os.devnull if output is None else str(output / "out"),
            "err": os.devnull if output is None else str(output / "err"),
        }
        return Command(self, self.ask(request))

    def run(
        self,
        words: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; arguments as of `start`."""
        with tempfile.TemporaryDirectory() as folder:
            code = self.start(words, cwd=cwd, environment=environment, output=Path(folder)).wait(timeout)
            out, err = (Path(folder, name).read_text(errors="replace") for name in ("out", "err"))
        return subprocess.CompletedProcess(list(words), code, out, err)

    def ask(self, request: Mapping[str, Any]) -> Any:
        """The server's answer to a request."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError("the server of commands has ended")
        return json.loads(answer)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            settings = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings
            )
            atexit.register(self.close)
        return self._process

    def close(self) -> None:
        """Ends the server."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.wait()
            self._process = None


def _serve(requests: IO[str], answers: IO[str]) -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    for line in requests:
        request = json.loads(line)
        if "poll" in request:
            ended, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.fork()
            if answer == 0:
                _become(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _become(request: Mapping[str, Any]) -> None:
    """Turns this fork into the command, and ends it as Python would."""
    os.setsid()
    for descriptor, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        opened = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, descriptor)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "r" if n == 0 else "w", buffering=1) for n in range(3))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    importlib.import_module("numpy").random.seed()  # a new process has random numbers of its own
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    code = 1
    try:
        try:
            _call(request["words"])
            code = 0
        except SystemExit:
            raise
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        code = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def _call(words: list[str]) -> None:
    from importlib.metadata import entry_points

    from mattergen_e.upstream import watch_for_early_errors

    name, arguments = Path(words[0]).name, words[1:]
    if words[0] == sys.executable:
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
            runpy.run_path(arguments[0], run_name="__main__")
        return
    sys.argv = [str(BIN / name), *arguments]
    watch_for_early_errors()  # a process of its own does so when it imports torch
    (script,) = entry_points(group="console_scripts", name=name)
    sys.exit(script.load()())


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is printed on import goes nowhere near the answers
    sys.argv = ["warm"]
    _serve(sys.stdin, answers)
