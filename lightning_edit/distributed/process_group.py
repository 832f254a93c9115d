"""What several processes of one run do together: each does its share of the work, and all know the whole result."""

import socket
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

import torch.distributed
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from lightning_edit.errors import EditError

T = TypeVar("T")
R = TypeVar("R")
# Whether this process is at its share of something.
_AT_SHARE: ContextVar[bool] = ContextVar("_AT_SHARE", default=False)


def processes() -> int:
    """How many processes there are in the run."""
    return torch.distributed.get_world_size() if in_a_group() else 1


def in_a_group() -> bool:
    """Whether the run was started as one of several processes, of which there may be one."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def first_of_machine() -> bool:
    """Whether this process is the first one on its machine, whatever started it; all must ask at the same time."""
    names = gathered(socket.gethostname())
    return processes() == 1 or names.index(socket.gethostname()) == torch.distributed.get_rank()


def is_sharded(model: Any) -> bool:
    """Whether each process holds only a part of the weights.

    Every pass of such a model needs all processes, so all of them go through all of the work together.

    Args:
        model: The model.
    """
    return processes() > 1 and any(isinstance(module, FSDPModule) for module in model.modules())


def sharing(model: Any) -> int:
    """How many processes share the work on a model: all of them, but one if its weights are divided.

    Args:
        model: The model.
    """
    return 1 if is_sharded(model) else processes()


def own_share(items: Sequence[T], model: Any) -> Sequence[T]:
    """The part of the items that is this process's own; the parts follow each other in the order of the processes.

    The parts differ by one item at most, and are empty where there are fewer items than processes.

    Args:
        items: The same in every process.
        model: What is to be done to them is done with this model.
    """
    count = sharing(model)
    if count == 1:
        return items
    rank, n = torch.distributed.get_rank(), len(items)
    # Rounded up: where they are few, the first process, which shows and logs, has some.
    return items[-(-rank * n // count) : -(-(rank + 1) * n // count)]


def gathered(own: T) -> list[T]:
    """What every process has, in the order of the processes; all must call it.

    Args:
        own: What this process has; tensors should be on the CPU.
    """
    if processes() == 1:
        return [own]
    results: list[Any] = [None] * processes()
    torch.distributed.all_gather_object(results, own)
    return results


def by_first(job: Callable[[], T]) -> T:
    """What a job of the first process returns, in every process; all must call it.

    For what is read from a disk: the processes may see different ones, or look at different moments.

    Args:
        job: Is called in the first process alone. What it returns goes to the others: tensors should be on the CPU.

    Raises:
        EditError: In the others, if the first one failed.
    """
    if processes() == 1:
        return job()
    result: list[Any] = [None]
    with Together():
        if torch.distributed.get_rank() == 0:
            result = [job()]
    torch.distributed.broadcast_object_list(result, 0)
    return result[0]


class Together:
    """A ``with`` block of work that each process does by itself; if one fails, the others fail with its message.

    Without it they would wait for what will never come. All processes must enter it.

    Raises:
        EditError: At the end of the block, if another process failed.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            # Ctrl-C waits for nobody.
            return
        failures = gathered(None if error is None else f"{type(error).__name__}: {error}")
        if error is None:
            for rank, failure in enumerate(failures):
                if failure is not None:
                    raise EditError(f"Process {rank} failed, so this one stops too. It said: {failure}")


def in_shares(job: Callable[[Sequence[T]], R], items: Sequence[T], model: Any) -> list[R]:
    """Does a job on this process's share of the items, and returns what all processes found.

    Args:
        job: Is given a share, which is not empty. What it returns goes from process to process: tensors should be on
            the CPU.
        items: The same in every process.
        model: See `own_share`.

    Returns:
        The results of the shares, in the order of the items.

    Raises:
        EditError: If another process failed.
    """
    if sharing(model) == 1:
        return [job(items)] if items else []
    # Each process has other items now, so a part of the job cannot be shared once more.
    assert not _AT_SHARE.get(), "a share of work is not to be shared again"
    own, results = own_share(items, model), list[R]()
    at_share = _AT_SHARE.set(True)
    try:
        with Together():
            results = [job(own)] if own else []
    finally:
        _AT_SHARE.reset(at_share)
    return [result for part in gathered(results) for result in part]


def summed(tensors: Sequence[Tensor], model: Any) -> None:
    """Adds up what the processes found of the same tensors, in place; all have the same sums, to the last bit.

    Args:
        tensors: Of the same shapes in every process, on the model's device or kept on the CPU.
        model: See `own_share`.
    """
    if sharing(model) > 1:
        for tensor in tensors:
            # What one process of a GPU sends to another must be there.
            there = tensor.to(model.device)
            torch.distributed.all_reduce(there)
            tensor.copy_(there)


def agreed(tensors: Sequence[Tensor], model: Any) -> None:
    """Gives all processes what the first one found, in place, if all of them do the same with a divided model.

    Args:
        tensors: Of the same shapes in every process, on the model's device.
        model: See `is_sharded`.
    """
    if is_sharded(model):
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)
