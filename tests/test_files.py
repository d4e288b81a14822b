"""Files and folders appear whole or not at all, and nothing is left behind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from kills import kills

from mattergen_e import files
from mattergen_e.errors import UserError
from mattergen_e.files import appearing, check_name, lock_beside, replacing, replacing_all
from mattergen_e.journal import claim, write_output

NAMES = ["out", "a name [x]*", "..." + "n" * 240, "é" * 100]


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(target: Path, words: str) -> None:
    with claim(target), appearing(target) as folder:
        (folder / "deep").mkdir()
        for name in ("one", "deep/two"):
            (folder / name).write_text(words)


def whole(words: str) -> dict[str, str]:
    return {"one": words, "deep/two": words}


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_appears_and_is_replaced(tmp_path: Path, name: str) -> None:
    for words in ("first", "second"):
        write(tmp_path / name, words)
        assert content(tmp_path / name) == whole(words)
        assert os.listdir(tmp_path) == [name]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    for before in ({}, whole("first")):
        with pytest.raises(ZeroDivisionError), claim(tmp_path / "out"), appearing(tmp_path / "out") as folder:
            (folder / "half").write_text(str(1 / 0))
        assert content(tmp_path) == {f"out/{key}": value for key, value in before.items()}
        write(tmp_path / "out", "first")


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_kill_leaves_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    """Killed before each operation; where names can be exchanged at once, there is a folder at every moment."""
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    ends = set()
    for place in kills(lambda at: write(at / "out", "new"), lambda at: write(at / "out", "old"), tmp_path):
        found = content(place / "out") if (place / "out").exists() else None
        assert found in (whole("old"), whole("new")) or (found is None and not exchanges)
        with claim(place / "out"):  # as the same command begins
            assert content(place / "out") in (whole("old"), whole("new"))
            ends.add(content(place / "out")["one"])
        assert os.listdir(place) == ["out"]
        write(place / "out", "again")
        assert content(place / "out") == whole("again") and os.listdir(place) == ["out"]
    assert ends == {"old", "new"}


def test_a_kill_before_there_was_one(tmp_path: Path) -> None:
    for place in kills(lambda at: write(at / "deep" / "out", "new"), lambda at: None, tmp_path):
        if (place / "deep" / "out").exists():
            assert content(place / "deep" / "out") == whole("new")
        write(place / "deep" / "out", "again")
        assert content(place) == {f"deep/out/{key}": value for key, value in whole("again").items()}


def test_an_output_is_made_by_one(tmp_path: Path) -> None:
    with claim(tmp_path / "out"), pytest.raises(UserError, match=r"out is in use by another run \(process \d+\): wait"):
        write(tmp_path / "out", "other")
    with claim(tmp_path / "out"), appearing(tmp_path / "out") as folder:
        write(tmp_path / "other", "words")  # leaves what is made beside it alone
        (folder / "one").write_text("mine")
    assert content(tmp_path / "out") == {"one": "mine"}


def test_links_are_neither_followed_nor_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    write(precious, "mine")
    (tmp_path / "link").symlink_to(precious)
    with pytest.raises(UserError, match="is a symbolic link, which is not replaced"):
        write(tmp_path / "link", "theirs")
    lock = lock_beside(tmp_path / "out")
    lock.symlink_to(precious / "one")
    with pytest.raises(UserError, match="symbolic links"):
        write(tmp_path / "out", "theirs")
    assert content(precious) == whole("mine") and not (tmp_path / "out").exists()
    lock.unlink()
    stale = tmp_path / f"{lock.name.removesuffix('lock')}0.tmp"
    stale.symlink_to(precious)
    write(tmp_path / "out", "new")
    assert content(precious) == whole("mine") and not stale.is_symlink()


def test_what_is_made_and_not_needed_goes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim(tmp_path / "a" / "b" / "out"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_no_output_without_a_name() -> None:
    with pytest.raises(UserError, match="choose another output"), claim(Path("/")):
        pass


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_umask_decides_who_reads(tmp_path: Path) -> None:
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            with claim(tmp_path / "file"), replacing(tmp_path / "file", tmp_path / "file") as file:
                file.write(b"x")
            write(tmp_path / "out", "words")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask


def test_several_files_are_replaced_in_their_order(tmp_path: Path) -> None:
    def replace(at: Path) -> None:
        with claim(at / "c"), replacing_all([at / name for name in "abc"], at / "c") as opened:
            for file in opened:
                file.write(b"new")

    def begin(at: Path) -> None:
        for name in "abc":
            (at / name).write_text("old")

    seen = set()
    for place in kills(replace, begin, tmp_path):
        words = "".join((place / name).read_text()[0] for name in "abc")
        seen.add(words)
        replace(place)
        assert content(place) == {"a": "new", "b": "new", "c": "new"}
    assert seen == {"ooo", "noo", "nno", "nnn"}


def test_a_file_that_cannot_be_written_is_named_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, reason in ((tmp_path / "folder", "Is a directory"), (tmp_path / "no" / "file", "No such file")):
        with pytest.raises(UserError, match=f"{reason}.*: choose another") as caught:
            write_output(path, b"x")
        assert str(tmp_path) in str(caught.value) and ".mattergen_e" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mp-149", "NaCl (2)", "é", "a.b", "x" * 200])
def test_names_that_can_be_files(name: str, tmp_path: Path) -> None:
    check_name(name)
    (tmp_path / name).write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "../victim", "/etc/passwd", "a/b", "a\\b", "..\\victim", "C:\\x", "a\0b", "a\nb",
     " a", "a ", "x" * 201, "é" * 101, "\ud800"],
)  # fmt: skip
def test_names_that_cannot(name: str) -> None:
    with pytest.raises(ValueError, match="give it another|leave out"):
        check_name(name)
