"""Pages and their pieces from `templates/`, where every text that comes in is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup as Html

from mattergen_e.journal import write_output


class Section(NamedTuple):
    """A part of a page: its anchor, its heading, and what stands below."""

    key: str
    title: str
    content: Html


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("mattergen_e.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return found


def page(title: str, sections: Sequence[Section], *, introduction: Html | None = None, script: str = "") -> str:
    """A page in one file that needs no network.

    Args:
        title: Its heading and name.
        sections: At least one; each is in the navigation.
        introduction: Below the heading.
        script: Name of the package file that the page runs; by default it runs none.
    """
    return _environment().get_template("page.html.j2").render(
        title=title,
        sections=sections,
        introduction=introduction or Html(),
        style=_package_file("style.css"),
        script=_package_file(script) if script else None,
    )  # fmt: skip


def write_page(content: str, out: Path, option: str) -> int:
    """Write a page; one that exists is replaced when the new one is complete.

    Returns:
        Its size in bytes.

    Raises:
        UserError: If it cannot be written; `option` is the one that names the file.
    """
    page = content.encode()
    write_output(out, page, f"choose another {option}")
    return len(page)


def piece(name: str, *parts: Any, **named: Any) -> Html:
    """What a macro of `templates/pieces.html.j2` makes of its arguments."""
    return getattr(_environment().get_template("pieces.html.j2").module, name)(*parts, **named)


def join(parts: Iterable[str]) -> Html:
    """Several pieces as one, each escaped unless it is `Html`."""
    return Html().join(parts)


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str | None = None, texts: int = 1) -> Html:
    """A table that scrolls in itself where it is wider than the page.

    Args:
        head: Of the columns.
        rows: Cells; the first of each is the head of its row.
        caption: What it shows.
        texts: So many columns from the left hold text, the others numbers.
    """
    return piece("table", head, rows, caption, texts)


def missing(what: str, command: str) -> Html:
    """One line in the place of a section without data."""
    return piece("missing", what, command)


def figures(drawn: Iterable[Html], wide: bool = False) -> Html:
    """Figures side by side, as many as the page is wide."""
    return piece("figures", drawn, wide)


def formula(name: str) -> Html:
    """A chemical formula with its numbers below the line."""
    return piece("formula", re.split(r"(?<=[A-Za-z)\]])(\d+(?:\.\d+)?)", name))


def percent(share: float) -> str:
    """A share of one, as 12.5 %."""
    return f"{100 * share:.1f} %"


def _package_file(name: str) -> Html:
    """A file of styles or a script that lies beside this module."""
    return Html((files("mattergen_e.report") / name).read_text(encoding="utf-8"))
