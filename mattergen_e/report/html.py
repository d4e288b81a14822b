"""Pieces of HTML; every text that comes in is escaped here, and only here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template


class Html(str):
    """Text that is HTML already."""


def text(value: object) -> Html:
    """Escaped, unless it is `Html`."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Several pieces as one, each escaped unless it is `Html`; empty ones are left out."""
    return Html(between.join(piece for piece in map(text, parts) if piece))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element; attributes that are None are left out, a trailing underscore of their names too."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{join(content)}</{name}>")


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    caption: str | None = None,
    texts: int = 1,
) -> Html:
    """A table that scrolls in itself where it is wider than the page.

    Args:
        head: Of the columns.
        rows: Cells; the first of each is the head of its row.
        caption: What it shows.
        texts: So many columns from the left hold text, the others numbers.
    """
    kinds = ["n" if i >= texts else None for i in range(len(head))]
    heads = [tag("th", cell, scope="col", class_=kind) for cell, kind in zip(head, kinds, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [tag("td", cell, class_=kind) for cell, kind in zip(rest, kinds[1:], strict=True)]
        lines.append(tag("tr", tag("th", first, scope="row"), *cells))
    content = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines), aria_label=caption)
    scrolled = tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption or "table")
    return tag("div", tag("p", caption, class_="caption"), scrolled, class_="tabled") if caption else scrolled


def missing(what: str, command: str) -> Html:
    """One line in the place of a section without data."""
    return tag("p", f"{what}: ", tag("code", command), class_="missing")


def figures(drawn: Iterable[Html], wide: bool = False) -> Html:
    """Figures side by side, as many as the page is wide."""
    return tag("div", *drawn, class_="figures wide" if wide else "figures")


def formula(name: str) -> Html:
    """A chemical formula with its numbers below the line."""
    pieces = re.split(r"(?<=[A-Za-z)\]])(\d+(?:\.\d+)?)", name)
    return join(tag("sub", piece) if i % 2 else piece for i, piece in enumerate(pieces))


def percent(share: float) -> str:
    """A share of one, as 12.5 %."""
    return f"{100 * share:.1f} %"


def package_file(name: str) -> str:
    """A text file that lies beside this module."""
    return (files("mattergen_e.report") / name).read_text(encoding="utf-8")


def fill(template: str, **parts: str) -> str:
    """A template with its $names replaced once: what is put in is not looked at again."""
    return Template(template).substitute(parts)
