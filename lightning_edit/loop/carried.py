"""What updates leave for later ones, in bytes: their sum, earlier keys, and what an anchor remembers."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.places import weight_shape
from lightning_edit.solvers import AlphaEdit, Anchor, Solver
from lightning_edit.solvers.previous_keys import SHARE, SHARE_OF_EXPERTS
from lightning_edit.values.memory import DOUBLE


@dataclass(frozen=True)
class Carried:
    """Bytes of what is carried from update to update.

    Args:
        kept: What is there after an update.
        working: What more there is while an update is solved and written.
    """

    kept: int = 0
    working: int = 0


@dataclass(frozen=True)
class Course:
    """How many keys a run writes, and what holds them.

    Args:
        keys: Of one update.
        updates: How many there are.
        preserves: Whether earlier keys are preserved (C_p).
        anchor: What else holds updates to those before; None for nothing.
        tokens: Of the texts of one update, for an anchor that asks for all of them.
    """

    keys: int
    updates: int = 1
    preserves: bool = False
    anchor: Anchor | None = None
    tokens: int = 0


def carried(decoder: Decoder, layers: Sequence[int], solver: Solver, course: Course) -> Carried:
    """What is carried in a run at its last update, where it is most; nothing where there is one.

    Args:
        decoder: The model.
        layers: The edited layers.
        solver: Which member of the family writes.
        course: What the run writes.
    """
    before = course.keys * (course.updates - 1)
    if not before:
        return Carried()
    kept = working = 0
    at_work: list[int] = []
    for layer in layers:
        d_out, d_in = weight_shape(decoder, layer)
        dense = course.anchor is not None and course.anchor.writes_dense
        total = d_out * d_in if dense else min((d_out + d_in) * (before + course.keys), d_out * d_in)
        # To be undone, an update leaves what was there before it in place.
        kept, working, own = kept + total, working + total, 0
        if course.preserves:
            stays, all_layers, own = _of_keys(decoder, layer, solver, course.keys, before)
            kept, working = kept + stays, working + all_layers
        if course.anchor is not None:
            remembered, more = course.anchor.numbers((d_out, d_in), course.keys, before + course.keys, course.tokens)
            kept, working, own = kept + remembered, working + remembered, own + more
        at_work.append(own)
    return Carried(DOUBLE * kept, DOUBLE * (working + max(at_work)))


def _of_keys(decoder: Decoder, layer: int, solver: Solver, keys: int, before: int) -> tuple[int, int, int]:
    """Numbers of C_p: what is kept, what all layers have more at work, and what one layer has."""
    d_in, after = decoder.key_size(layer), before + keys
    most = int((SHARE_OF_EXPERTS if decoder.experts(layer) else SHARE) * d_in)
    recent, moment = min(after, most) * d_in, d_in**2 * (after > most)
    # The solver has the keys by rows and what it makes of them; AlphaEdit's factor is one that C alone does not need.
    by_rows, factor = 2 * min(before, most) * d_in, moment * isinstance(solver, AlphaEdit)
    # While keys are folded into the matrix, the one before it is still there.
    new_moment = d_in**2 * (before > most)
    if decoder.memory == "low":
        return recent + moment, new_moment, 2 * by_rows + factor + keys * d_in
    return recent + moment, new_moment + by_rows + factor, by_rows + keys * d_in
