"""The site's first page is the README; links out of docs/ lead to the repository's files as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: Any) -> Files:
    """Adds the README as the first page."""
    text = (ROOT / "README.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leaves the words of links to files that are not pages."""
    outside = r"\[([^\]]+)\]\((?:\.\./[^)]*|examples/[^)]*|benchmarks/[^)]*|CHANGELOG\.md|CITATION\.cff|cards/[^)]*)\)"
    return re.sub(outside, r"\1", markdown)
