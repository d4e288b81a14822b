"""What PyTorch calls when it is imported, through the entry point group `torch.backends`.

PyTorch cannot be imported at all where such an entry point is missing or raises. So this file is installed as a module
of its own beside the package, also by an editable installation, and works when the package cannot be imported: because
a checkout was moved, say. It imports nothing of it outside of MatterGen's commands.
"""

from __future__ import annotations

import contextlib
import sys


def watch() -> None:
    """Makes MatterGen's commands end with one sentence on early errors; never raises."""
    try:
        main = getattr(sys.modules.get("__main__"), "__spec__", None)
        if any("mattergen" in name for name in (*sys.argv[:1], getattr(main, "name", ""))):
            from mattergen_e.upstream.startup import watch_for_early_errors

            watch_for_early_errors()
    except Exception as error:
        sentence = f"mattergen-e cannot be used ({type(error).__name__}: {error}): install it anew, or uninstall it."
        with contextlib.suppress(Exception):
            print(" ".join(sentence.split()), file=sys.stderr)
