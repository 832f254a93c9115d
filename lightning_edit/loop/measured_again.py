"""A checkpoint that is measured again: where it stands for its run, without the updates that were removed from that."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.errors import EditError
from lightning_edit.loop.run_state import RunState
from lightning_edit.messages import counted
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.removed import Removed, removed_from

REMOVED = "the update that holds it was removed from the run"


def as_run_is_now(state: RunState, file: Path, bases: Mapping[str, Any], weights: EditedWeights) -> RunState:
    """What is measured of a checkpoint whose run may have had updates removed since; says so if it had.

    Args:
        state: What the checkpoint holds.
        file: The checkpoint.
        bases: For each edited layer the fingerprint of the unedited weight, as the checkpoint has it.
        weights: Those that are measured.

    Returns:
        For a run's ``edited.ckpt`` the run as it is now; for any other checkpoint what it holds, removed or not. The
        same object if nothing was removed.

    Raises:
        EditError: If updates were removed and the sum of the others is not there, or is another run's.
    """
    removed = removed_from(file, state.updates_written)
    if removed is None:
        return state
    if not removed.stands_for_run:
        rank_zero_warn(removed.note)
        return state
    kept = removed.kept()
    for layer, update in kept.items():
        base = weights.base.get(layer)
        if base is None or update.base != bases.get(str(layer)) or update.factors.shape != tuple(base.shape):
            raise EditError(
                f"{removed}, but the sum of its other updates does not fit this model: {removed.run} holds the files "
                "of another run. Put its own update.safetensors back."
            )
    left_out = _places(state, removed)
    edits = state.edits_written - len(left_out)
    rank_zero_warn(f"{removed.note} It holds {counted(edits, 'edit')}.")
    return replace(
        state,
        added={layer: update.factors for layer, update in kept.items()},
        edits_written=edits,
        left_out={**state.left_out, **dict.fromkeys(left_out, REMOVED)},
    )


def _places(state: RunState, removed: Removed) -> list[int]:
    """Where the edits of removed updates are among those of the run."""
    written = [place for place in range(state.offered + state.taken) if place not in state.left_out]
    return [written[place] for place in removed.places(state.edits_written) if place < len(written)]
