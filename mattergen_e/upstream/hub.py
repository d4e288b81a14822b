"""Published checkpoints without a network."""

from __future__ import annotations

import functools
from typing import Any

from mattergen_e.errors import UserError
from mattergen_e.upstream.commands import exit_on_user_error


def say_hub_errors_in_one_sentence() -> None:
    """Makes a published checkpoint that cannot be fetched a `UserError`; does nothing the second time."""
    import mattergen.common.utils.data_classes as data_classes

    info: Any = data_classes.MatterGenCheckpointInfo
    original = info.from_hf_hub.__func__
    if getattr(original, "_mattergen_e", False):
        return

    @functools.wraps(original)
    @exit_on_user_error
    def from_hf_hub(cls: type, model_name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(cls, model_name, *args, **kwargs)
        except Exception as error:
            if not is_hub_error(error):
                raise
            raise UserError(hub_sentence(error, f"'{model_name}' ")) from error

    from_hf_hub._mattergen_e = True  # type: ignore[attr-defined]
    info.from_hf_hub = classmethod(from_hf_hub)


def is_hub_error(error: BaseException) -> bool:
    """Whether an error is of the network or of the hub's client."""
    # requests, httpx and huggingface_hub each have their own families
    module = type(error).__module__.split(".")[0]
    return isinstance(error, OSError) or module in ("huggingface_hub", "requests", "httpx", "urllib3")


def hub_sentence(error: BaseException, name: str = "") -> str:
    """What is said of a published checkpoint that cannot be fetched."""
    return (
        f"the published checkpoint {name}is not on this machine and cannot be fetched from the Hugging Face hub "
        f"({type(error).__name__}): connect to the network once, or name a folder with --model_path "
        "(mattergen-generate) or adapter.model_path (mattergen-finetune)."
    )
