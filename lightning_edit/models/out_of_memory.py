"""When a device has no room for so much at once: the same work in halves."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error

from lightning_edit.distributed.process_group import is_sharded

T = TypeVar("T")
R = TypeVar("R")


def halving(job: Callable[[Sequence[T]], R], items: Sequence[T], model: Any) -> Iterator[R]:
    """Does a job on all items at once, or where memory runs out on one half after the other.

    With weights that are divided between processes it is not tried again: the others are in the middle of the pass.

    Args:
        job: Must change nothing that lasts before it has succeeded.
        items: What it is given, as a whole or in parts.
        model: What the job runs.

    Yields:
        What the job returns for each part, in the order of the items.

    Raises:
        RuntimeError: If there is no room for a single item.
    """
    result: list[R] = []
    try:
        result.append(job(items))
    except RuntimeError as error:
        if len(items) < 2 or not is_oom_error(error) or is_sharded(model):
            raise
    # Only here, after the handler, is the failed attempt let go of with all that it had on the device.
    if not result:
        garbage_collection_cuda()
        middle = len(items) // 2
        yield from halving(job, items[:middle], model)
        yield from halving(job, items[middle:], model)
    yield from result
