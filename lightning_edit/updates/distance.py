"""How far weights without an update are from those of a run that never made it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_edit.updates.files.update_file import StoredUpdate
from lightning_edit.updates.sums import dense_update

# Under which an update's file names a solver whose factors are not R and S; see `Solver.one_writer`.
NO_WRITER = "no_writer"


@dataclass
class _Layer:
    """Sums ``(d_out, d_in)`` over the updates so far: removed, kept, and what the kept ones would have differed by."""

    removed: Tensor
    kept: Tensor
    gained: Tensor
    any_removed: bool = False
    unknown: str = ""


def first_order_distance(updates: Iterable[StoredUpdate], without: Collection[int]) -> dict[int, float | str]:
    """How far the sum of the kept updates is from that of a run without the removed ones, to first order.

    A solver is linear in the residual, Delta_j = R_j S_j, and S_j depends on the keys alone. Later updates found less
    to do because the model held the removed ones: R_j is the value minus what the model answers, and without them it
    answers less by their Delta K_j, and by what the kept updates in between would have differed by. So, with Delta_i'
    = 0 for a removed one,

        R_j' = R_j + sum_{i<j} (Delta_i - Delta_i') K_j,      Delta_j' = R_j' S_j
        distance = |sum_kept Delta - sum_kept Delta'|_F / |sum_kept Delta'|_F

    Exact for a run with one edited layer and the same value vectors, as long as earlier keys are not in S (C_p). A new
    run finds other value vectors, so its distance is larger as a rule: on the embedded model up to 2.2 times. With
    several layers each is looked at for itself.

    Args:
        updates: All updates, in their order, with R in ``left`` and S in ``right``.
        without: The numbers of the removed ones.

    Returns:
        For each layer the distance; 0 where only the last updates are removed, as that is exact. A text that says why
        where it cannot be told: a later update is dense, so that its S is not known, or has no S that all directions of
        the output share, or has its values from a source.
    """
    layers: dict[int, _Layer] = {}
    for stored in updates:
        for layer, update in stored.updates.items():
            delta, keys = dense_update(update.factors), stored.keys[layer]
            none = torch.zeros_like(delta)
            sums = layers.setdefault(layer, _Layer(removed=none.clone(), kept=none.clone(), gained=none))
            if stored.record.number in without:
                sums.removed += delta
                sums.any_removed = True
                continue
            sums.kept += delta
            if not sums.any_removed:
                continue
            writer = update.factors.right
            sums.unknown = sums.unknown or _unknown(stored.record.info, writer, keys.shape[1])
            if writer is not None and not sums.unknown:
                sums.gained += (sums.removed @ keys - sums.gained @ keys) @ writer
    return {layer: _ratio(sums) for layer, sums in sorted(layers.items())}


def _unknown(info: Mapping[str, Any], writer: Tensor | None, keys: int) -> str:
    """Why the S of an update is not known; nothing where it is."""
    if "source" in info:
        # What it would be on another model is not known from this one.
        return f"values from {str(info['source']).partition('(')[0]}"
    if (solver := info.get(NO_WRITER) or _without_note(info)) is not None:
        return f"{solver}, which writes each direction of the output in its own way"
    return "dense updates" if writer is None or len(writer) != keys else ""


def _without_note(info: Mapping[str, Any]) -> str | None:
    """The one solver of that kind that there was when files did not note it yet."""
    solver = str(info.get("solver", "")).partition("(")[0]
    return solver if solver == "OutputMEMIT" else None


def _ratio(sums: _Layer) -> float | str:
    if sums.unknown:
        return sums.unknown
    difference = float(sums.gained.norm())
    return difference / float((sums.kept + sums.gained).norm()) if difference else 0.0
