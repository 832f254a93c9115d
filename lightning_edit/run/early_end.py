"""Fits that end before all edits had their turn, because the trainer or a signal ends them."""

from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.errors import EditError
from lightning_edit.run.edit_callback import EditingRun


def edits_left(module: EditingRun) -> int:
    """How many edits had no turn because the trainer ended the fit; warns where that was e.g. its `max_time`.

    Args:
        module: The module whose fit ends.

    Raises:
        EditError: If none had.
    """
    loop, trainer, edits = module.loop, module.trainer, len(module.requests)
    left = edits - loop.queue.offered - loop.queue.taken
    if left <= 0 or loop.stopped is not None:
        return 0
    if trainer.received_sigterm:
        return left
    ended = f"The trainer ended the fit before {left} of {edits} edits had their turn"
    if not loop.edits_written:
        raise EditError(f"{ended}, so nothing is edited. Raise or leave out `trainer.max_time`.")
    rank_zero_warn(f"{ended}. To make the others too, resume the run with a larger `trainer.max_time`, or null.")
    return left
