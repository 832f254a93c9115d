"""Passes of the search on a GPU, recorded once and replayed: a CUDA graph starts all operations of a pass as one.

With few tokens a GPU waits for its operations to be started from Python, one after the other. A recorded pass reads and
writes the same memory each time, so delta, its texts and what they are compared with must stay where they are. The
value of one edit of Llama-3 8B (bfloat16, 20 steps) takes 0.74 s so on an H200, 1.89 s if not recorded; with hundreds
of edits the GPU is busy anyway. The values were the same to the last bit in every comparison.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.distributed.process_group import is_sharded
from lightning_edit.values.batch import ValueBatch

logger = logging.getLogger(__name__)

# A recording costs about a pass, so it is made anew for fewer rows only where no more than this share of them is left.
WORTH = 0.75
LOOPED = "eager"
# Loss terms ``(2, n)`` and their gradient ``(n, d_model)``.
Pass = tuple[Tensor, Tensor]


def looped(model: Any) -> bool:
    """Whether a model's experts are run one after the other, each with the tokens that a processor has found for it.

    Args:
        model: The model; one without experts says of its experts what it says of others, but cannot be set to another
            way of running them.
    """
    return model._can_set_experts_implementation() and model.config.get_text_config()._experts_implementation == LOOPED


@dataclass
class Recordings:
    """The recorded passes of a search, one for each batch of texts.

    Args:
        possible: Whether passes can be recorded; false as soon as one could not be.

    Attributes:
        recorded: How many were recorded.
    """

    possible: bool
    recorded: int = 0
    _made: list[tuple[ValueBatch, torch.cuda.CUDAGraph, Pass]] = field(default_factory=list)
    _passed: list[ValueBatch] = field(default_factory=list)

    @staticmethod
    def on(model: Any, device: torch.device) -> "Recordings":
        """For a model; possible where all of it is on one GPU, and no expert waits to be told which tokens visit it.

        Args:
            model: The model.
            device: Of delta.
        """
        places = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
        return Recordings(device.type == "cuda" and places == {device} and not is_sharded(model) and not looped(model))

    def replayed(self, group: ValueBatch, job: Callable[[], Pass]) -> Pass | None:
        """What a pass gives, replayed, and before that recorded where it is not yet; None where it has to be made.

        A pass is recorded once it was made, so that nothing is left that is set up only once.

        Args:
            group: The texts.
            job: The pass.
        """
        if not self.possible or not any(passed is group for passed in self._passed):
            return None
        found = next((made for made in self._made if made[0] is group), None)
        if found is None and (found := self._recorded(group, job)) is None:
            return None
        found[1].replay()
        return found[2]

    def passed(self, group: ValueBatch) -> None:
        """Notes that a pass was made.

        Args:
            group: The texts.
        """
        if self.possible and not any(passed is group for passed in self._passed):
            self._passed.append(group)

    def _recorded(
        self, group: ValueBatch, job: Callable[[], Pass]
    ) -> tuple[ValueBatch, torch.cuda.CUDAGraph, Pass] | None:
        graph = torch.cuda.CUDAGraph()
        # Passes follow each other, so what one needs in between is free for the next.
        pool = self._made[0][1].pool() if self._made else None
        try:
            with torch.cuda.graph(graph, pool=pool):
                made = job()
        # Some models look at a tensor's numbers in the middle of a pass, and memory may be short.
        except RuntimeError as error:
            self.possible = False
            self._made.clear()
            # What draws random numbers on this device would still be told that it is being recorded, and refuse.
            generator = torch.cuda.default_generators[group.row_edits.device.index]
            generator.graphsafe_set_state(generator.clone_state())
            logger.info("Passes are not recorded, which is slower: %s", str(error).splitlines()[0])
            return None
        self._made.append((group, graph, made))
        self.recorded += 1
        return self._made[-1]

    def fewer(self, groups: list[ValueBatch], going: Tensor) -> list[ValueBatch]:
        """The texts of those edits that go on; where passes are recorded, of all as long as most of them go on.

        Args:
            groups: The texts.
            going: ``(n,)`` which edits go on.
        """
        if self.possible:
            left = sum(int(going[group.row_edits].sum()) for group in groups)
            if left > WORTH * sum(map(len, groups)):
                return groups
        self._made.clear()
        self._passed.clear()
        return [kept for group in groups if (kept := group.keep(going)) is not None]
