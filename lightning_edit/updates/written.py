"""One update as it was written."""

from dataclasses import dataclass, field

from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.solvers.anchors import Memory
from lightning_edit.solvers.base import EditProblem, Factors


@dataclass(frozen=True)
class Written:
    """One update as it was written.

    Args:
        factors: For each layer what was added to its weight.
        keys: For each layer the edits' keys ``(d_in, n)`` at that time.
        figures: See `Editor.write`.
        owners: To which of the edits each key belongs; None where each edit has one.
        values_seconds: What the pairs of a source took.
        anchored: For each layer what the anchor remembers once it is written.
        problems: For each layer its least squares, where something is still to be done to the update.
        left_out: Places of the edits that could not be written, because their loss is never finite.
    """

    factors: dict[int, Factors] = field(default_factory=dict)
    keys: dict[int, Tensor] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    owners: tuple[int, ...] | None = None
    values_seconds: float = 0.0
    anchored: dict[int, Memory] = field(default_factory=dict)
    problems: dict[int, EditProblem] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()

    def edits(self, layer: int) -> int:
        """How many edits were written at a layer."""
        return self.keys[layer].shape[1] if self.owners is None else len(set(self.owners))


def check_written(edits: int, stopped: str | None = None, on_top: bool = False) -> None:
    """Refuses a run in which nothing could be written.

    Args:
        edits: Number of edits written.
        stopped: Why no more were written.
        on_top: Whether the model holds the edits of an earlier run.

    Raises:
        EditError: If it is 0.
    """
    if not edits and stopped:
        left = "holds the edits of the run it was built on, and no others" if on_top else "is unedited"
        raise EditError(f"The first update was refused, so the model {left}: {stopped}")
    if not edits:
        raise EditError(
            "No edit has a value to be written, as the log says. If losses are not finite, lower the learning rate "
            "(`values.lr`, with `descent` `values.radius`; of other methods `lr`), or load the model in float32 or "
            "bfloat16; if values are too large, raise `values.norm_anchor`."
        )
