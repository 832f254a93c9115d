"""Whether torch computes in the precision of the weights, or casts to a lower one in between (autocast)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


def autocast_now() -> dict[str, str]:
    """For each kind of device to whose autocast the caller has switched, the precision: ``{"cpu": "bfloat16"}``."""
    accelerator = torch.accelerator.current_accelerator()
    kinds = ["cpu", *([] if accelerator is None else [accelerator.type])]
    on = [kind for kind in kinds if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)]
    return {kind: str(torch.get_autocast_dtype(kind)).removeprefix("torch.") for kind in on}


@contextmanager
def without_autocast() -> Iterator[None]:
    """Inside a ``with`` block, or a function that it decorates, all is computed in the precision of the weights."""
    with ExitStack() as together:
        for kind in autocast_now():
            together.enter_context(torch.autocast(kind, enabled=False))
        yield
