"""Work that may hang or crash, in a process of its own that is killed when its time is over.

A pool's workers cannot be stopped in the middle of a task, and a calculator can hang in C code where no exception
reaches it. So each task runs in a Python process that talks JSON over a socket: past the limit it is killed, and a new
one takes its place. Should its parent be killed first, the kernel's alarm ends it all the same.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

#: Longest time to import libraries and load weights, in seconds.
START_SECONDS = 600.0
#: The kernel's alarm rings so many seconds after the parent should have killed the process.
ALARM_MARGIN = 10.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


class TimeLimit(Exception):
    """The task took longer than allowed; its process was killed."""


class Crashed(Exception):
    """The process ended in the middle of the task; the text says how."""


class CannotStart(Exception):
    """The process could not get ready; the text says why."""


class Process:
    """One process, which does one task at a time."""

    def __init__(self, target: str, setup: dict[str, Any]) -> None:
        """Starts it; `ask` waits until it is ready.

        Args:
            target: "module:function"; called with `setup`, it gives the function that does the tasks.
            setup: Plain JSON.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), target],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interruption from the keyboard is the parent's to handle
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        self._connection = Connection(ours.detach())
        self._setup: dict[str, Any] | None = setup

    def ask(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Has a task done.

        Args:
            task: Plain JSON.
            seconds: The process is killed after so many.

        Returns:
            What the function returned.

        Raises:
            TimeLimit: If it took longer.
            Crashed: If the process ended.
            CannotStart: If it never got ready.
        """
        self._get_ready()
        return self._exchange({"task": task, "seconds": seconds}, seconds)

    def _get_ready(self) -> None:
        if self._setup is None:
            return
        try:
            answer = self._exchange(self._setup, START_SECONDS)
        except (TimeLimit, Crashed) as error:
            raise CannotStart(str(error) or f"it was not ready after {START_SECONDS:g} s") from None
        if answer.get("problem"):
            self.kill()
            raise CannotStart(answer["problem"])
        self._setup = None

    def _exchange(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            self._connection.send_bytes(json.dumps(message).encode())
            if not self._connection.poll(seconds):
                self.kill()
                raise TimeLimit
            return json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self.kill()
            code = self._process.returncode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            raise Crashed(f"its process ended with {how}") from None

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends the process and gives up what belongs to it."""
        self.kill()
        self._connection.close()


class Pool:
    """As many processes as threads ask at once; one that was killed is replaced."""

    def __init__(self, target: str, setup: dict[str, Any]) -> None:
        self._target, self._setup = target, setup
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
        """As `Process.ask`."""
        process = self._take()
        try:
            answer = process.ask(task, seconds)
        except BaseException:
            with self._lock:
                self._all.discard(process)
            process.close()
            raise
        with self._lock:
            self._idle.append(process)
        return answer

    def _take(self) -> Process:
        with self._lock:
            if self._closed:
                raise Crashed("the work was stopped")
            if self._idle:
                return self._idle.pop()
            process = Process(self._target, self._setup)
            self._all.add(process)
            return process

    def close(self) -> None:
        """Ends all processes; tasks that still run end as crashed."""
        with self._lock:
            self._closed = True
            for process in self._all:
                process.kill()
            for process in self._idle:
                process.close()
            self._all, self._idle = set(), []


def serve(connection: Connection, target: str) -> None:
    """The other end: gets ready, then does tasks until the parent goes."""
    module, _, name = target.partition(":")
    setup = json.loads(connection.recv_bytes())
    try:
        work = getattr(importlib.import_module(module), name)(setup)
    except Exception as error:
        connection.send_bytes(json.dumps({"problem": " ".join(str(error).split()) or type(error).__name__}).encode())
        return
    connection.send_bytes(b"{}")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever code it is in
    while True:
        asked = json.loads(connection.recv_bytes())
        signal.setitimer(signal.ITIMER_REAL, asked["seconds"] + ALARM_MARGIN)
        answer = work(asked["task"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    try:
        serve(Connection(int(sys.argv[1])), sys.argv[2])
    except (EOFError, OSError):
        sys.exit(0)
