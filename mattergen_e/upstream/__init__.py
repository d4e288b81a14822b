"""The door to MatterGen: everything that reaches into it from outside stands in this room. No other file patches anything.

Checked on MatterGen 1.0.3 (PyPI wheel and git checkout) with torch 2.15, pytorch-lightning 2.6 and hydra 1.3.8.
`prepare()` is called by the Hydra search path plugin as soon as one of MatterGen's applications looks for a
configuration, which each of its commands does before it builds or loads anything; `generator.install()` where that
application is MatterGen's generator.

| item | reason | checked version |
| --- | --- | --- |
| `package_data.repair_scale_factors` | the PyPI wheel lacks `common/gemnet/gemnet-dT.json`, without which `GemNetT()` raises | 1.0.3 |
| `checkpoints.allow_harmless_classes` | torch loads with `weights_only=True`; older checkpoints hold configuration containers | 1.0.3 |
| `expressions.replace_eval` | MatterGen computes `${eval:...}` of configurations with Python's `eval` | 1.0.3 |
| `hub.say_hub_errors_in_one_sentence` | without a network, a published checkpoint ends in a page of traceback | 1.0.3 |
| `startup.watch_for_early_errors` | the same for `mattergen-generate --pretrained-name`, which asks the hub before all else, and for what Hydra says of a recipe | 1.0.3 |
| `arguments.watch_words` | `fire` refused an unknown flag of `mattergen-generate` after the whole run, and took words of any kind | 1.0.3 |
| `conditions.register_property` | a condition must be in upstream's list before a dataset or an embedding is built | 1.0.3 |
| `generator._check_conditions` | what the model cannot take was refused after loading it, or by an assertion; compositions that Python callers give to the joint sampling ended in a `TypeError` | 1.0.3 |
| `generator._check_steps` | a model trained with another number of steps than the sampling settings ended in a bare assertion | 1.0.3 |
| `generator._replace_draw_samples` | upstream writes structures only, at the very end, through fixed temporary names | 1.0.3 |
"""  # noqa: E501

from __future__ import annotations

from mattergen_e.upstream.arguments import typed
from mattergen_e.upstream.checkpoints import allow_harmless_classes, load_checkpoint
from mattergen_e.upstream.commands import (
    Terminated,
    exit_on_user_error,
    interrupted_without_traceback,
    is_mattergen_command,
    told_to_end,
)
from mattergen_e.upstream.conditions import (
    ARRAY_CONDITIONS,
    check_known,
    known_properties,
    mattergens_properties,
    register_property,
)
from mattergen_e.upstream.expressions import replace_eval
from mattergen_e.upstream.hub import say_hub_errors_in_one_sentence
from mattergen_e.upstream.memory import is_out_of_memory, memory_sentence, memory_wanted
from mattergen_e.upstream.package_data import DATA, PackageData, package_data, repair_scale_factors
from mattergen_e.upstream.startup import COMPOSITIONS, watch_for_early_errors
from mattergen_e.upstream.trust import check_at_the_door

CHECKED_VERSION = "1.0.3"

__all__ = [
    "ARRAY_CONDITIONS",
    "CHECKED_VERSION",
    "COMPOSITIONS",
    "DATA",
    "PackageData",
    "Terminated",
    "check_at_the_door",
    "check_known",
    "exit_on_user_error",
    "interrupted_without_traceback",
    "is_mattergen_command",
    "is_out_of_memory",
    "known_properties",
    "load_checkpoint",
    "mattergens_properties",
    "memory_sentence",
    "memory_wanted",
    "package_data",
    "prepare",
    "register_property",
    "told_to_end",
    "typed",
    "watch_for_early_errors",
]


def prepare() -> None:
    """Makes MatterGen complete and its checkpoints safe to load; does nothing the second time."""
    repair_scale_factors()
    allow_harmless_classes()
    replace_eval()
    say_hub_errors_in_one_sentence()
