"""Which edits have values, which of them wait for their update, and where a run goes on."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_edit.loop.run_state import Pending, RunState
from lightning_edit.requests import EditRequest, replaced_by
from lightning_edit.values.vectors import NOT_FINITE, Values

REPLACED = "a later edit of the same update replaces it"


class EditQueue:
    """The edits of a run in their order, from their values to their update.

    Args:
        size: How many edits make an update, None for all of them.
        together: Whether values of several updates may be found at once, because all start from the same model.
    """

    def __init__(self, size: int | None, together: bool = False) -> None:
        self.size, self.together = size, together
        self.offered = self.taken = 0
        self.left_out: dict[int, str] = {}
        self.pending: list[Pending] = []

    @property
    def waiting(self) -> int:
        """How many edits have values and no update yet."""
        return sum(len(positions) for positions, _ in self.pending)

    @property
    def room(self) -> int | None:
        """How many edits the update that is being gathered still takes."""
        return None if self.size is None else self.size - self.waiting

    def part(self, batch: Sequence[EditRequest], start: int) -> Sequence[EditRequest]:
        """The edits of a micro-batch whose values are to be found next, all together; none if it is used up.

        Args:
            batch: The micro-batch.
            start: The position of its first edit in the run.
        """
        rest = batch[self.offered - start :]
        return rest if self.together or self.size is None else rest[: self.room]

    def add(self, values: Values) -> Iterator[None]:
        """Takes the values of a part; yields each time an update is complete, which `take` then gives.

        Args:
            values: Of all edits of the part, in their order.
        """
        start, end = self.offered, self.offered + len(values)
        finite = values.finite.tolist()
        self.left_out |= {start + i: why for i, why in values.left_out().items()}
        kept = [i for i, ok in enumerate(finite) if ok and i >= self.taken]
        while kept:
            chosen, kept = kept[: self.room], kept[self.room :] if self.room is not None else []
            self.pending.append(([start + i for i in chosen], values.where(torch.tensor(chosen))))
            self.offered, self.taken = (start, chosen[-1] + 1) if kept else (end, 0)
            if self.room == 0:
                yield
        self.offered, self.taken = end, 0

    def together_now(self, requests: Sequence[EditRequest]) -> tuple[list[int], Tensor]:
        """Positions and value vectors ``(n, d_model)`` of the edits that wait; those that a later one replaces are out.

        Args:
            requests: All edits of the run.
        """
        positions = [position for part, _ in self.pending for position in part]
        z = Values.join([values for _, values in self.pending]).z
        later = replaced_by([requests[position] for position in positions])
        kept = [i for i in range(len(positions)) if i not in later]
        return [positions[i] for i in kept], z[kept]

    def take(self, requests: Sequence[EditRequest]) -> tuple[list[int], Tensor]:
        """What `together_now` tells, and leaves nothing waiting.

        Args:
            requests: All edits of the run.
        """
        positions, z = self.together_now(requests)
        waited = [position for part, _ in self.pending for position in part]
        self.left_out |= {position: REPLACED for position in waited if position not in positions}
        self.pending = []
        return positions, z

    def leave_out(self, positions: Sequence[int]) -> None:
        """Notes edits that could not be written although they had values.

        Args:
            positions: Where they are among those of the run.
        """
        self.left_out |= dict.fromkeys(positions, NOT_FINITE)

    def so_far(self, of_all: int) -> Sequence[int]:
        """The positions of the edits that have values, written or not.

        Args:
            of_all: How many edits the run has; a checkpoint that is only measured may speak of more.
        """
        reached = min(self.offered + self.taken, of_all)
        if not self.left_out:
            return range(reached)
        return [position for position in range(reached) if position not in self.left_out]

    def restore(self, state: RunState) -> None:
        """Goes back, or on, to where a run was.

        Args:
            state: That of the run.
        """
        self.offered, self.taken = state.offered, state.taken
        self.left_out, self.pending = dict(state.left_out), list(state.pending)
