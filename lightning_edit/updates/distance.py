"""How far weights without an update are from those of a run that never made it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.updates.files.update_file import StoredUpdate
from lightning_edit.updates.sums import dense_update


@dataclass
class _Layer:
    """Sums ``(d_out, d_in)`` over the updates so far: removed, kept, and what the kept ones would have differed by."""

    removed: Tensor
    kept: Tensor
    gained: Tensor
    any_removed: bool = False
    exact: bool = True


def first_order_distance(updates: Iterable[StoredUpdate], without: Collection[int]) -> dict[int, float | None]:
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
        For each layer the distance; 0 where only the last updates are removed, as that is exact. None where it cannot
        be told because a later update is dense, so that its S is not known, or has its values from a source.
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
            # A gradient on another model is not known from this one.
            writer = None if "source" in stored.record.info else update.factors.right
            if not sums.any_removed:
                continue
            if writer is None or len(writer) != keys.shape[1]:
                sums.exact = False
            else:
                sums.gained += (sums.removed @ keys - sums.gained @ keys) @ writer
    return {layer: _ratio(sums) for layer, sums in sorted(layers.items())}


def _ratio(sums: _Layer) -> float | None:
    if not sums.exact:
        return None
    difference = float(sums.gained.norm())
    return difference / float((sums.kept + sums.gained).norm()) if difference else 0.0
