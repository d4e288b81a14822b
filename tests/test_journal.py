"""What is finished survives a kill at any byte; what is not finished is not there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mattergen_e.errors import UserError
from mattergen_e.journal import FileJournal, LineJournal, Lock, difference, file_name, hold

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ITEMS = st.dictionaries(st.text(max_size=8), JSON, max_size=5)


def entry(content: Any) -> tuple[str, Any] | None:
    """An item, or a note that belongs to none."""
    return None if "note" in content else (content["key"], content["value"])


def open_lines(path: Path, **options: Any) -> LineJournal:
    return LineJournal(path, entry, **options)


# -- lines ------------------------------------------------------------------------------------------------------------


@given(items=ITEMS, more=ITEMS)
@settings(max_examples=60, deadline=None)
def test_cut_at_every_byte(
    items: dict[str, Any], more: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever a kill cuts the file, exactly the finished prefix is read, and the journal goes on from it."""
    path = tmp_path_factory.mktemp("lines") / "items.jsonl"
    journal, ends = open_lines(path), [0]
    for key, value in items.items():
        journal.add({"key": key, "value": value})
        ends.append(path.stat().st_size)
    journal.close()
    whole = path.read_bytes() if items else b""
    keys = list(items)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        finished = max(i for i, end in enumerate(ends) if end <= cut)
        expected = {key: items[key] for key in keys[:finished]}
        assert open_lines(path, read_only=True).items == expected
        assert path.read_bytes() == whole[:cut]
        resumed = open_lines(path)
        assert resumed.items == expected and path.read_bytes() == whole[: ends[finished]]
        for key, value in more.items():
            resumed.add({"key": key, "value": value})
        resumed.close()
        assert open_lines(path).items == expected | more


def test_the_last_line_of_a_key_counts_and_notes_are_no_items(tmp_path: Path) -> None:
    journal = open_lines(tmp_path / "items.jsonl", sync=True)
    for content in ({"key": "a", "value": 1}, {"note": "lunch"}, {"key": "b", "value": 2}, {"key": "a", "value": 3}):
        journal.add(content)
    assert "a" in journal and "note" not in journal
    assert journal.items == open_lines(journal.path).items == {"a": 3, "b": 2}


def test_a_damaged_line_is_refused_or_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    for damage in (b"[1]", b"{", b"\xff", b"", b"7", b'{"key": "b"}'):
        content = b'{"key": "a", "value": 1}\n' + damage + b'\n{"key": "c", "value": 3}\n'
        path.write_bytes(content)
        with pytest.raises(ValueError, match="^line 2: "):
            open_lines(path)
        assert open_lines(path, skip_damaged=True).items == {"a": 1, "c": 3}
        assert path.read_bytes() == content


def test_what_is_not_finite_is_refused_and_nothing_written(tmp_path: Path) -> None:
    journal = open_lines(tmp_path / "items.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        journal.add({"key": "a", "value": float("nan")})
    assert journal.items == {} and not journal.path.exists()


def test_a_full_disk_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_lines(tmp_path / "items.jsonl")
    journal.add({"key": "a", "value": 1})
    write = os.write

    def run_full(file: int, content: bytes) -> int:
        if len(content) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:7])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", run_full)
        with pytest.raises(OSError, match="No space left"):
            journal.add({"key": "b", "value": "x" * 40})
    assert journal.items == {"a": 1}
    journal.add({"key": "c", "value": 3})
    assert open_lines(journal.path).items == {"a": 1, "c": 3}


def test_replacing_is_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_lines(tmp_path / "items.jsonl")
    for key in "abc":
        journal.add({"key": key, "value": key})
    whole = journal.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(OSError, match="broken"):
            journal.replace([{"key": "a", "value": 1}])
    assert journal.path.read_bytes() == whole and list(journal.items) == ["a", "b", "c"]
    journal.replace([{"key": "b", "value": 2}])
    journal.add({"key": "d", "value": 4})
    assert open_lines(journal.path).items == journal.items == {"b": 2, "d": 4}


# -- files ------------------------------------------------------------------------------------------------------------


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "parts", "part_{}.npz")
    assert journal.numbers() == [] and 0 not in journal
    for number, content in ((3, b"three"), (0, b"zero"), (1234567, b"many")):
        with journal.write(number) as file:
            file.write(content)
    for number in (1, 3):
        with suppress(KeyboardInterrupt), journal.write(number) as file:
            file.write(b"half")
            raise KeyboardInterrupt
    (tmp_path / "parts" / "part_mine.npz").write_bytes(b"foreign")
    (tmp_path / "parts" / "part_12.npz").write_bytes(b"foreign")
    assert journal.numbers() == [0, 3, 1234567] and 1 not in journal
    assert journal.path(3).name == "part_000003.npz" and journal.path(3).read_bytes() == b"three"
    assert len(list((tmp_path / "parts").iterdir())) == 5


@given(name=st.text(max_size=200), other=st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_names_of_files_are_safe_and_distinct(name: str, other: str) -> None:
    found = file_name(name)
    assert Path(found).name == found and not found.startswith(".") and len(found) < 120 and found.isascii()
    assert (found == file_name(other)) == (name == other)


@pytest.mark.parametrize("name", ["mp-149", "a/b c", "..", "x" * 300, "é", "CON\nx", ""])
def test_such_names_too(name: str) -> None:
    found = file_name(name)
    assert Path(found).name == found and not found.startswith(".") and len(found) < 120 and found.isascii()
    assert found != file_name(name + "'")


# -- settings ---------------------------------------------------------------------------------------------------------


@given(before=JSON, now=JSON)
@settings(max_examples=200, deadline=None)
def test_a_difference_is_found_if_there_is_one(before: Any, now: Any) -> None:
    assert (difference(before, now) is None) == (before == now)
    assert difference(before, json.loads(json.dumps(before))) is None


def test_the_first_difference_is_named() -> None:
    found = difference({"a": [1, {"b": 2}], "c": 5}, {"a": [1, {"b": 3}], "c": 6})
    assert found == ("a.1.b", 2, 3) and str(found) == "'a.1.b' was 2 and is now 3"
    assert str(difference({"a": 1}, {"a": 1, "b": ["x"]})) == "'b' was not set and is now [\"x\"]"
    assert str(difference({"a": {"b": 1}}, {"a": {}})) == "'a.b' was 1 and is now not set"
    assert difference({"a": 1}, {"a": 1.0}) is None
    assert len(str(difference({"a": "x" * 500}, {"a": "y" * 500}))) < 200


# -- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_is_held_by_one_and_left_clean(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    with hold(folder, "parts"):
        (folder / "parts").mkdir()
        assert (folder / ".mattergen_e.lock").read_text() == str(os.getpid())
        with pytest.raises(UserError, match=f"in use by another run .process {os.getpid()}.: wait"), hold(folder):
            pass
        for place in (folder, folder / "parts"):
            (place / ".mattergen_e-1.tmp").write_text("half")
    with hold(folder, "parts"):
        assert sorted(path.name for path in folder.rglob("*")) == [".mattergen_e.lock", "parts"]
    assert [path.name for path in folder.rglob("*")] == ["parts"]


def test_what_the_file_system_refuses_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    sentence = r"file cannot be written to \(File exists\): choose another --out\.$"
    with pytest.raises(UserError, match=sentence), hold(tmp_path / "file"):
        pass
    sentence = r"gone/x cannot be written to \(No such file or directory\): do this\.$"
    with pytest.raises(UserError, match=sentence), hold(tmp_path, advice="do this"):
        (tmp_path / "gone" / "x").write_text("")
    with hold(tmp_path):  # not left locked
        pass


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".mattergen_e.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="symbolic links"), hold(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_lock_file_without_its_process_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".mattergen_e.lock").write_text("999999999999")
    with hold(tmp_path):
        assert (tmp_path / ".mattergen_e.lock").read_text() == str(os.getpid())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(code, "not here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match=f"{re.escape(str(tmp_path))} is on a file system without locks: run only one"):
        lock = Lock(tmp_path)
    lock.release()
    lock.release()  # twice is once
    assert not list(tmp_path.iterdir())


# -- kills ------------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from mattergen_e.journal import FileJournal, LineJournal, hold

folder = Path(sys.argv[1])
with hold(folder, "parts"):
    lines = LineJournal(folder / "items.jsonl", lambda entry: (entry["key"], entry["value"]))
    files = FileJournal(folder / "parts", "part_{}.bin")
    print("open", flush=True)
    for number in range(100000):
        if str(number) not in lines:
            lines.add({"key": str(number), "value": "x" * 3000})
        if number not in files:
            with files.write(number) as file:
                for _ in range(20):
                    file.write(number.to_bytes(8, "big") * 100)
            print(number, flush=True)
"""


def test_kill_at_any_moment(tmp_path: Path) -> None:
    """A process is killed with -9 at random times; the next one finds all that it had finished, and goes on."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    told, random_times = -1, random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        first = int(process.stdout.readline())
        assert first == told + 1 or first == told + 2  # one more may be finished than was told
        with pytest.raises(UserError, match=f"in use by another run .process {process.pid}."), hold(tmp_path):
            pass
        time.sleep(random_times.uniform(0.02, 0.2))
        process.send_signal(signal.SIGKILL)
        told = int(([str(first), *process.communicate()[0].split()])[-1])
        lines = LineJournal(tmp_path / "items.jsonl", lambda e: (e["key"], e["value"]), read_only=True)
        assert list(lines.items) == [str(number) for number in range(len(lines.items))] and len(lines.items) > told
        assert set(lines.items.values()) == {"x" * 3000}
        files = FileJournal(tmp_path / "parts", "part_{}.bin")
        assert files.numbers() == list(range(len(files.numbers()))) and len(files.numbers()) in (told + 1, told + 2)
        for number in files.numbers():
            assert files.path(number).read_bytes() == number.to_bytes(8, "big") * 2000
    with hold(tmp_path, "parts"):
        assert not list(tmp_path.rglob("*.tmp"))
