"""One update as it was written, and the groups of edits that make one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest
from lightning_edit.solvers.base import Factors


@dataclass(frozen=True)
class Written:
    """One update as it was written.

    Args:
        factors: For each layer what was added to its weight.
        keys: For each layer the edits' keys ``(d_in, n)`` at that time.
        figures: See `Editor.write`.
        owners: To which of the edits each key belongs; None where each edit has one.
        values_seconds: What the pairs of a source took.
    """

    factors: dict[int, Factors] = field(default_factory=dict)
    keys: dict[int, Tensor] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    owners: tuple[int, ...] | None = None
    values_seconds: float = 0.0


def check_written(edits: int, stopped: str | None = None) -> None:
    """Refuses a run in which nothing could be written.

    Args:
        edits: Number of edits written.
        stopped: Why no more were written.

    Raises:
        EditError: If it is 0.
    """
    if not edits and stopped:
        raise EditError(f"The first update was refused, so the model is unedited: {stopped}")
    if not edits:
        raise EditError("No edit has a finite loss. Lower `values.lr`, or load the model in float32 or bfloat16.")


def batches_of(requests: Sequence[EditRequest], size: int | None) -> list[Sequence[EditRequest]]:
    """The requests in groups of at most ``size`` (all in one for None), in their order."""
    size = size or max(len(requests), 1)
    return [requests[i : i + size] for i in range(0, len(requests), size)]
