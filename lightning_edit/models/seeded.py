"""Random numbers from a seed that leave those of the caller as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside a ``with`` block, random numbers are those of a seed; at its end the caller's go on where they were.

    A seed is set on all GPUs, so the state of all of them is kept, not only of those that the model is on.

    Args:
        seed: Decides what is drawn.
    """
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(gpus):
        torch.manual_seed(seed)
        yield
