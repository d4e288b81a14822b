"""What MatterGen's commands refuse before any plugin of Hydra can act, and how they end."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType, TracebackType
from typing import Any

from mattergen_e.errors import UserError
from mattergen_e.upstream.arguments import watch_words
from mattergen_e.upstream.commands import Terminated, is_mattergen_command
from mattergen_e.upstream.hub import hub_sentence, is_hub_error
from mattergen_e.upstream.memory import is_out_of_memory, memory_sentence
from mattergen_e.upstream.sentences import causes, configuration_sentence

#: What is said when compositions are given to a model, or to sampling settings, that generate the elements.
COMPOSITIONS = (
    "target_compositions needs a model trained for crystal structure prediction, without diffusion of atom types, and "
    "MatterGen's --sampling_config_name=csp."
)

#: What the user typed that leads to a configuration, by the function of MatterGen that composes it.
OPTIONS = {
    ("mattergen.common.utils.data_classes", "config"): "--model_path or --config_overrides: ",
    ("mattergen.generator", "_load_sampling_config"): "--sampling_config_name or --sampling_config_overrides: ",
}
#: Set to 1, Hydra's variable or ours shows tracebacks in place of sentences; the last tells that it was us who set it.
FULL_ERROR, DEBUG, OURS = "HYDRA_FULL_ERROR", "MATTERGEN_E_DEBUG", "MATTERGEN_E_SAYS_ERRORS"


def watch_for_early_errors() -> None:
    """Makes MatterGen's commands end with one sentence where the user can mend what is wrong.

    `mattergen-generate` asks the hub, and compares the model with --target_compositions, before the search path plugin
    can act, and `mattergen-train` and `mattergen-finetune` compose their recipe first of all. PyTorch calls the entry
    points of the group `torch.backends` when it is imported, and MatterGen's commands import it before that. Any other
    process is left as it is.
    """
    if not is_mattergen_command() or _wanted(DEBUG) or (_wanted(FULL_ERROR) and not _wanted(OURS)):
        return
    before = sys.excepthook
    watch_words()
    os.environ[FULL_ERROR] = os.environ[OURS] = "1"  # Hydra hands its errors on, which it prints itself otherwise

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            print("mattergen-e: interrupted.", file=sys.stderr)
            raise Terminated(signal.SIGINT)
        sentence = sentence_of(error, trace)
        if sentence is None:
            before(kind, error, trace)
            return
        print(f"mattergen-e: {sentence}", file=sys.stderr)
        raise SystemExit(2)

    sys.excepthook = hook


def sentence_of(error: BaseException, trace: TracebackType | None) -> str | None:
    """What is said of an error that ended one of MatterGen's commands; None for one that the user cannot mend."""
    frames = {(f.f_globals.get("__name__"), f.f_code.co_name): f for f, _ in traceback.walk_tb(trace)}
    own = next((e for e in causes(error) if isinstance(e, UserError)), None)
    if own is not None:
        return str(own)
    if is_hub_error(error) and any(name == "from_hf_hub" for _, name in frames):
        return hub_sentence(error)
    if "crystal structure prediction" in str(error) and ("mattergen.generator", "__post_init__") in frames:
        return COMPOSITIONS
    if is_out_of_memory(error):
        return memory_sentence(error, _batch_size(frames))
    typed = next((words for place, words in OPTIONS.items() if place in frames), "")
    sentence = configuration_sentence(error, trace)
    return None if sentence is None else typed + (sentence.removeprefix("--config-name=") if typed else sentence)


def _batch_size(frames: dict[tuple[Any, str], FrameType]) -> int | None:
    """Crystals of a batch of MatterGen's own generation."""
    frame = frames.get(("mattergen.generator", "generate"))
    return None if frame is None else frame.f_locals.get("batch_size")


def _wanted(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")
