"""Expressions of configurations: arithmetic, and nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mattergen_e import upstream
from mattergen_e.errors import UserError
from mattergen_e.upstream.expressions import compute


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 / 1000", 0.001),
        ("512 // 4 // 8 // 2", 8),
        ("(1 + len({'dft_band_gap': {'_target_': 'a.B', 'dim': 3}})) * 512", 1024),
        ('"mask" == "mask" and True', True),
        ('"uniform" == "mask" and True', False),
        ("len([1, 2]) if 3 >= 2 else 0", 2),
        ("round(min(2.4, 7)) - -1", 3),
        ("not None or 7", True),
    ],
)
def test_what_mattergens_settings_need(text: str, value: object) -> None:
    assert compute(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__",
        "[c for c in (1,)]",
        "'a' * 10",
        "9 ** 9 ** 9",
        "1e15 * 1e15",
        "open('x', 'w')",
        "lambda: 1",
        "f'{1}'",
        "len",
        "1 / 0",
        "max()",
        "a",
        "",
        "((((",
        "1 < 2 < 3",
        "{**{}}",
        "exec('1')",
        "(" * 500 + "1" + ")" * 500,
        "1" * 200_000,
    ],
)
def test_anything_else_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="^the expression '"):
        compute(text)


@given(st.text(max_size=60))
def test_no_text_ends_in_another_error(text: str) -> None:
    with contextlib.suppress(UserError):
        compute(text)


@given(st.integers(-99, 99), st.integers(1, 99), st.sampled_from("+-*/%"))
def test_numbers_as_python_computes_them(a: int, b: int, sign: str) -> None:
    expected = {"+": a + b, "-": a - b, "*": a * b, "/": a / b, "%": a % b}[sign]
    assert compute(f"{a} {sign} {b}") == expected


def test_it_stands_in_the_place_of_pythons_eval(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    upstream.prepare()
    proof = tmp_path / "proof"
    config = OmegaConf.create({"n": 4, "a": "${eval:'3 * ${.n}'}", "b": f'${{eval:\'open("{proof}", "w")\'}}'})
    assert config.a == 12
    with pytest.raises(Exception, match="is not arithmetic"):
        _ = config.b
    assert not proof.exists()
