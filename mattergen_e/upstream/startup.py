"""What MatterGen's commands refuse before any plugin of Hydra can act."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from mattergen_e.upstream.commands import is_mattergen_command
from mattergen_e.upstream.hub import hub_sentence, is_hub_error

#: What is said when compositions are given to a model, or to sampling settings, that generate the elements.
COMPOSITIONS = (
    "target_compositions needs a model trained for crystal structure prediction, without diffusion of atom types, and "
    "MatterGen's --sampling_config_name=csp."
)

#: What the user typed that leads to a configuration, by the function of MatterGen that composes it.
OPTIONS = {
    ("mattergen.common.utils.data_classes", "config"): "--model_path or --config_overrides",
    ("mattergen.generator", "_load_sampling_config"): "--sampling_config_name or --sampling_config_overrides",
}


def watch_for_early_errors() -> None:
    """Makes `mattergen-generate` end with one sentence when it cannot reach the hub or take what was typed.

    It asks the hub, and compares the model with --target_compositions, before the search path plugin can act. PyTorch
    calls the entry points of the group `torch.backends` when it is imported, and MatterGen's commands import it first
    of all. Any other process is left as it is.
    """
    if not is_mattergen_command():
        return
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        functions = {(f.f_globals.get("__name__"), f.f_code.co_name) for f, _ in traceback.walk_tb(trace)}
        typed = next((words for place, words in OPTIONS.items() if place in functions), None)
        if is_hub_error(error) and any(name == "from_hf_hub" for _, name in functions):
            sentence = hub_sentence(error)
        elif "crystal structure prediction" in str(error) and ("mattergen.generator", "__post_init__") in functions:
            sentence = COMPOSITIONS
        elif typed and type(error).__module__.startswith(("hydra", "omegaconf")):
            sentence = f"{typed}: {' '.join(str(error).splitlines()[:2])}"
        else:
            before(kind, error, trace)
            return
        print(f"mattergen-e: {sentence}", file=sys.stderr)
        raise SystemExit(2)

    sys.excepthook = hook
