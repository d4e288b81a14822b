"""A file that says or unpacks more than anybody has is refused before that is allocated."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mattergen_e import limits
from mattergen_e.limits import TooLarge, lines, load_yaml, open_npz, read_bytes, read_npy, read_text, read_yaml


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No test may take much more memory than the process has, or long."""
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert time.monotonic() - begin < 30


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can reach."""
    for name, size in {"TEXT": 1 << 20, "LINE": 1 << 10, "ARRAY": 1 << 20, "ARRAYS": 3 << 20}.items():
        monkeypatch.setattr(limits, name, size)


# -- text -------------------------------------------------------------------------------------------------------------


def test_files_up_to_the_limit_are_read(tmp_path: Path, small: None) -> None:
    content = b"x" * (1 << 20)
    for name, pack in {
        "a.txt": bytes, "a.txt.gz": gzip.compress, "A.GZ": gzip.compress, "a.bz2": bz2.compress, "a.xz": lzma.compress
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(pack(content))
        assert read_bytes(tmp_path / name) == content
        (tmp_path / name).write_bytes(pack(content + b"x"))
        with pytest.raises(TooLarge, match=r"^it holds more than 1 MiB$"):
            read_bytes(tmp_path / name)


def test_a_packed_file_that_unpacks_to_terabytes(tmp_path: Path, small: None) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(64 << 20)) * 40)  # members one after another
    with pytest.raises(TooLarge):
        read_bytes(tmp_path / "a.gz")


@pytest.mark.parametrize(
    "content", [b"x", b"\x1f\x8b", gzip.compress(b"x" * 99, mtime=0)[:-9], gzip.compress(b"x", mtime=0)[:-4] + b"abcd"]
)
def test_damaged_packed_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"no sound \.gz file"):
        read_bytes(tmp_path / "a.gz")
    for ending in ("bz2", "xz"):
        (tmp_path / f"a.{ending}").write_bytes(b"x" + content)
        with pytest.raises(ValueError, match=f"no sound .{ending} file"):
            read_bytes(tmp_path / f"a.{ending}")


def test_text_is_read_as_python_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("a\r\nb\rc\né\u2028d".encode() + b"\xff")
    assert read_text(tmp_path / "a", errors="replace") == (tmp_path / "a").read_text("utf-8", "replace")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "a")


def test_lines_are_bounded(small: None) -> None:
    text = "a\n" + "b" * 1023 + "\n" + "last"
    assert list(lines(io.StringIO(text))) == text.splitlines(keepends=True)
    for kind in (io.StringIO(text + "x" * 2000), io.BytesIO(text.encode() + b"x" * 2000)):
        with pytest.raises(TooLarge, match="line 3 is longer than"):
            list(lines(kind))


# -- arrays -----------------------------------------------------------------------------------------------------------


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def header(shape: str, dtype: str = "<f8", content: bytes = b"") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + content


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def test_arrays_are_those_that_numpy_reads(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "f": np.arange(6.0).reshape(2, 3), "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "u": np.array(["a", "bc"]), "b": np.array([True]), "scalar": np.float32(1.5), "none": np.zeros((0, 3)),
    }  # fmt: skip
    (tmp_path / "a.npz").write_bytes(npz(**arrays))
    for file in (tmp_path / "a.npz", str(tmp_path / "a.npz"), io.BytesIO(npz(**arrays))):
        with open_npz(file) as found:
            assert found.files == list(found) == list(arrays) and len(found) == 6 and "f" in found and "x" not in found
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array)
                assert found[name].dtype == array.dtype
            with pytest.raises(KeyError):
                found["x"]
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        for mmap in (False, True):
            np.testing.assert_array_equal(read_npy(tmp_path / f"{name}.npy", mmap), array)


@pytest.mark.parametrize(
    "content",
    [
        header("(10**12,)"), header("(1000000000000,)"), header("(2, 1000000000000)", content=bytes(64)),
        header("(-1,)"), header("(1 << 62, 4)"), header("(4611686018427387904, 4)"), header("(8,)", content=bytes(63)),
        header("(8,)", "|O", bytes(64)), header("(8,)", "nonsense"), header("'x'"), header("(", content=b"x"),
        header("(1.5,)"), b"\x93NUMPY\x09\x00", b"", b"x", b"\x93NUMPY\x01\x00\xff\xff{'descr': ",
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path: Path, content: bytes) -> None:
    with open_npz(io.BytesIO(zipped(a=content))) as arrays, pytest.raises(ValueError, match="its array 'a' is damaged"):
        arrays["a"]
    (tmp_path / "a.npy").write_bytes(content)
    for mmap in (False, True):
        with pytest.raises(ValueError, match="no sound npy file"):
            read_npy(tmp_path / "a.npy", mmap)


def test_arrays_that_unpack_to_too_much(small: None) -> None:
    large, allowed = np.zeros((1 << 17) + 1), np.zeros((1 << 17) - 100)
    with open_npz(io.BytesIO(npz(a=allowed, b=large))) as arrays:
        assert arrays["a"].shape == allowed.shape
        with pytest.raises(TooLarge, match="its array 'b' holds more than 1 MiB"):
            arrays["b"]
    with open_npz(io.BytesIO(npz(a=allowed, b=allowed, c=allowed, d=allowed))) as arrays:
        assert all(arrays[name].shape == allowed.shape for name in "abc")
        with pytest.raises(TooLarge, match="its arrays hold more than 3 MiB"):
            arrays["d"]


def test_a_member_that_says_less_than_it_unpacks_to() -> None:
    raw = bytearray(zipped(a=header("(8,)", content=bytes(64)) + bytes(1 << 20)))
    size = struct.pack("<I", len(header("(8,)", content=bytes(64)) + bytes(1 << 20)))
    raw = bytearray(bytes(raw).replace(size, struct.pack("<I", len(header("(8,)", content=bytes(64))))))
    with open_npz(io.BytesIO(bytes(raw))) as arrays, pytest.raises(ValueError, match="its array 'a' is damaged"):
        arrays["a"]


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x05\x06" + bytes(17), npz(a=np.zeros(9))[:-30], zlib.compress(b"x" * 99)]
)
def test_what_is_no_npz(content: bytes) -> None:
    with pytest.raises(ValueError, match="no sound npz file"), open_npz(io.BytesIO(content)):
        pass


# -- YAML -------------------------------------------------------------------------------------------------------------


def laughs(depth: int, merge: bool = False) -> str:
    """A billion laughs: each line names the one before ten times."""
    if merge:
        rows = ["a0: &a0 {k: 1}"]
        rows += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}], k{i}: 1}}" for i in range(1, depth)]
    else:
        rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, depth)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (laughs(9), "more than 1,000,000 values, aliases included"),
        (laughs(9, merge=True), "more than 1,000,000 values, aliases included"),
        ("a: &a [*a]", "holds itself"),
        ("a: &a {b: *a}", "holds itself"),
        ("[" * 50_000, "nested too deeply"),
        ("- " * 50_000 + "a", "nested too deeply"),
        ("a: " + "9" * 5_000, "Exceeds the limit"),
        ("a: 2020-99-99", "month must be in 1..12"),
        ("x" * ((1 << 23) + 1), "longer than 8 MiB"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: [", "expected the node content"),
        ("\0", "special characters are not allowed"),
        ("? [a]\n: b", "unhashable key"),
    ],
)
def test_yaml_that_is_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content)
    for read in (lambda: load_yaml(content), lambda: read_yaml(tmp_path / "a.yaml")):
        with pytest.raises(yaml.YAMLError, match=words):
            read()


@pytest.mark.parametrize(
    "content",
    ["", "a: 1", "- &x {a: [1, 2.5, null]}\n- *x\n- <<: *x\n  b: c", laughs(4), json.dumps({"a": [1, {"b": "é"}]}),
     "a: 2020-01-01", "a: 1:30"],
)  # fmt: skip
def test_yaml_is_what_pyyaml_reads(content: str) -> None:
    assert load_yaml(content) == load_yaml(content.encode()) == yaml.safe_load(content)


def test_yaml_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(yaml.YAMLError, match="not UTF-8"):
        read_yaml(tmp_path / "a.yaml")


# -- who reads --------------------------------------------------------------------------------------------------------


def _tables(path: Path) -> Any:
    from mattergen_e.crystals.tables import raw_rows

    return list(raw_rows(path, (".csv", ".jsonl")))


def _sources(path: Path) -> Any:
    from mattergen_e.data.sources import iter_records

    return list(iter_records(path))


def _structures(path: Path) -> Any:
    from mattergen_e.crystals.reading import read_structures

    return read_structures([path])


def _card(path: Path) -> Any:
    from mattergen_e.training.card import read_card

    return read_card(path)


def _constraints(path: Path) -> Any:
    from mattergen_e.generation.constraints.reading import read_constraints

    return read_constraints(path)


def _curves(path: Path) -> Any:
    from mattergen_e.targets.files import read_curves

    return read_curves(path)


def _spectra(path: Path) -> Any:
    from mattergen_e.spectra.files import read_dos

    return read_dos(path, [0])


def _array(path: Path) -> Any:
    from mattergen_e.data.cache import load_array

    return load_array(path)


def _settings(path: Path) -> Any:
    from mattergen_e.cli.settings import read_settings
    from mattergen_e.labels.settings import LabelSettings

    return read_settings(LabelSettings, path, {}, "docs/data.md")


BOMB = gzip.compress(bytes(2 << 20))
READERS: list[tuple[Callable[[Path], Any], str, bytes]] = [
    (_tables, "a.csv.gz", BOMB),
    (_tables, "a.jsonl.gz", BOMB),
    (_sources, "a.jsonl.gz", BOMB),
    (_sources, "a.csv", b"material_id,cif\n" + b"x" * (2 << 20)),
    (_structures, "a.cif", bytes(2 << 20)),
    (_structures, "a.extxyz", bytes(2 << 20)),
    (_structures, "a.jsonl", bytes(2 << 20)),
    (_card, "card.yaml", laughs(9).encode()),
    (_constraints, "a.yaml", laughs(9).encode()),
    (_settings, "a.yaml", laughs(9).encode()),
    (_curves, "a.npz", npz(dos=np.zeros((2, 1 << 17)), energies=np.zeros(9))),
    (_curves, "a.jsonl", bytes(2 << 20)),
    (_spectra, "a.npz", npz(window=np.zeros(2), energies=np.zeros(2 << 17))),
    (_array, "a.npy", header("(1000000000000,)")),
]


@pytest.mark.parametrize(("read", "name", "content"), READERS, ids=lambda value: getattr(value, "__name__", None))
def test_readers_say_it_in_one_sentence(
    read: Callable[[Path], Any], name: str, content: bytes, tmp_path: Path, small: None
) -> None:
    from mattergen_e.errors import UserError

    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="more than|longer than|shorter than") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)
