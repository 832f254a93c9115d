"""When a device has no room for so much at once: the same work in smaller parts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error

from lightning_edit.distributed.process_group import is_sharded
from lightning_edit.errors import EditError

T = TypeVar("T")
R = TypeVar("R")
# Main memory that is short for an eighth is short for other reasons, and each attempt would take long.
SMALLEST_SHARE = 8


def halving(job: Callable[[Sequence[T]], R], items: Sequence[T], model: Any) -> Iterator[R]:
    """Does a job on all items at once, or where memory runs out on halves, quarters and so on, one after the other.

    With weights that are divided between processes it is not tried again: the others are in the middle of the pass.

    Args:
        job: Must change nothing that lasts before it has succeeded.
        items: What it is given, as a whole or in parts.
        model: What the job runs.

    Yields:
        What the job returns for each part, in the order of the items.

    Raises:
        RuntimeError: If a device has no room for a single item.
        EditError: If there is too little main memory for an eighth of the items, or for a single one.
    """
    size, start = len(items), 0
    while start < len(items) or not items:
        part, result = items[start : start + size], list[R]()
        try:
            result.append(job(part))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or is_sharded(model):
                raise
            _check_smaller(error, len(part), len(items))
        # Only here, after the handler, is the failed attempt let go of with all that it had on the device.
        if result:
            yield from result
            start += max(size, 1)
            if not items:
                return
        else:
            garbage_collection_cuda()
            size = len(part) // 2
            rank_zero_warn(f"Out of memory with {len(part)} at once; continuing with {size}, which is slower.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left.

    Args:
        error: What was raised.
    """
    return isinstance(error, MemoryError) or (isinstance(error, Exception) and is_oom_error(error))


def _check_smaller(error: BaseException, tried: int, of: int) -> None:
    main_memory = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
    if main_memory and (tried < 2 or tried * SMALLEST_SHARE <= of):
        said = (str(error).strip() or "MemoryError").splitlines()[0]
        raise EditError(
            f"The machine is out of main memory: none is left for {tried} of {of} items ({said}). "
            "End other programs, load the model in bfloat16 (`model.dtype`), or set `data.batch_size`, the edits at "
            "once (`micro_batch` in Python), to a smaller number."
        ) from error
    if tried < 2:
        raise error
