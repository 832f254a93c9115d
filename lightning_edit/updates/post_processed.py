"""Post-processing where the weights are: each update as it is written, and the sum of all after the last."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.solvers import Factors, PostProcessor
from lightning_edit.updates.edited_weights import EditedWeights


def post_processed(
    factors: Factors, layer: int, weights: EditedWeights, processors: Sequence[PostProcessor]
) -> Factors:
    """An update as it is to be written.

    Args:
        factors: As it was solved.
        layer: Its layer.
        weights: The edited weights, without it.
        processors: What becomes of an update; those of the sum of all updates are passed over.
    """
    for process in processors:
        if not process.of_sum:
            dense = factors.dense()
            weight = weights.base[layer] if process.of_base else weights.decoder.weight(layer).detach()
            factors = Factors(_by_expert(process, dense, weight.to(dense), weights.decoder.experts(layer)))
    return factors


def _by_expert(process: PostProcessor, update: Tensor, weight: Tensor, experts: int) -> Tensor:
    """Processes the matrix of each expert by itself; one that is not changed stays so."""
    if not experts:
        return process(update, weight)
    pairs = zip(update.chunk(experts, dim=1), weight.chunk(experts, dim=1), strict=True)
    return torch.cat([process(part, own) if bool(part.any()) else part for part, own in pairs], dim=1)


def process_sum(weights: EditedWeights, processors: Sequence[PostProcessor]) -> dict[int, Factors]:
    """Post-processes the sum of all updates, and writes what that comes to.

    Args:
        weights: The edited weights.
        processors: Those of the sum count.

    Returns:
        For each layer what was added to its weight for that; empty where there is nothing to do.
    """
    corrections: dict[int, Factors] = {}
    last = [process for process in processors if process.of_sum]
    for layer, factors in dict(weights.added).items() if last else ():
        before = after = factors.dense()
        for process in last:
            base = weights.base[layer].double().to(after.device)
            after = _by_expert(process, after, base, weights.decoder.experts(layer))
        corrections[layer] = Factors(after - before)
        weights.add(layer, corrections[layer])
    return corrections
