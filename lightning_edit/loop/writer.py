"""What writes the updates of a run, as the loop over them sees it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from lightning_edit.gradients.statistics import Statistics
from lightning_edit.progress import Report
from lightning_edit.requests import EditRequest
from lightning_edit.solvers import Factors, PreviousKeys
from lightning_edit.solvers.anchors import Memory
from lightning_edit.updates.written import Written


class Writer(Protocol):
    """Writes edits into the weights; what it remembers from update to update can be put back.

    Attributes:
        previous_keys: See `Editor`.
        statistics: See `Editor`.
        anchored: For each layer what it remembers.
    """

    previous_keys: dict[int, PreviousKeys] | None
    statistics: Mapping[str, Statistics]
    anchored: dict[int, Memory]

    def write(self, requests: Sequence[EditRequest], z: Tensor, measured: bool = ..., report: Report = ...) -> Written:
        """Writes an update, see `Editor.write`."""

    def finish(self) -> dict[int, Factors]:
        """What is added once after the last update."""

    def release(self, keys: dict[int, Tensor]) -> None:
        """Stops preserving earlier edits, because later ones are to replace them."""

    def describe(self) -> dict[str, Any]:
        """The settings that an update's file tells of itself."""
