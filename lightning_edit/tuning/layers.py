"""Which layers are worth trying, by a cheap probe: the trace of known facts at the subject's last token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.tracing.facts import Fact
from lightning_edit.tracing.noise import embedding_std
from lightning_edit.tracing.settings import TracingSettings
from lightning_edit.tracing.trace import trace_fact

SINGLE, SEVERAL = 6, 2
FACTS, SAMPLES = 16, 2
# MEMIT edits 5 of 28 layers of GPT-J.
SHARE = 5 / 28


def editable_layers(decoder: Decoder) -> list[int]:
    """The layers that an edit can be written to: not the last, from which nothing reaches later tokens.

    Args:
        decoder: The model.

    Raises:
        EditError: If there is none.
    """
    layers = [layer for layer in range(len(decoder.blocks) - 1) if layer not in decoder.refusals]
    if not layers:
        raise EditError("The model has no layer below its last that can be edited, so there is nothing to tune.")
    return layers


def effects(decoder: Decoder, tokenizer: Any, facts: Sequence[Fact], seed: int, report: Report = silent) -> Tensor:
    """The mean indirect effect ``(layers,)`` of restoring MLPs at the subject's last token.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        facts: Facts that it knows; of many the first `FACTS` are traced.
        seed: Of the noise.
        report: Called with the number of facts.

    Returns:
        The effects; all 0 where there is no fact, or where not all layers have an MLP that was found.
    """
    depth = len(decoder.blocks)
    if not facts or decoder.refusals:
        return torch.zeros(depth, dtype=torch.float64)
    std, settings = embedding_std(decoder, tokenizer, [f.subject for f in facts]), TracingSettings(SAMPLES, seed=seed)
    total = torch.zeros(depth, dtype=torch.float64)
    for number, fact in enumerate(facts[:FACTS], start=1):
        trace = trace_fact(decoder, tokenizer, fact, std, settings, ["mlp"], only_subject_end=True)
        total += trace.effect("mlp")[trace.subject[-1]]
        report("trace (facts)", number, min(len(facts), FACTS))
    return total / min(len(facts), FACTS)


def layer_sets(effect: Tensor, editable: Sequence[int], several: bool) -> tuple[tuple[int, ...], ...]:
    """The layers to try, the most promising first: single ones that lie apart, then several in a row.

    The layer a quarter of the way up is always among them, for a trace does not say where edits succeed, only where
    recalled facts pass.

    Args:
        effect: See `effects`.
        editable: The layers that may be tried, ascending.
        several: Whether more than one layer can be edited.
    """
    depth = len(effect)
    ranked = sorted(editable, key=lambda layer: (-float(effect[layer]), layer))
    usual = min(editable, key=lambda layer: abs(layer - depth // 4))
    gap, chosen = max(1, depth // 16), list[int]()
    for layer in (
        [ranked[0], usual, *_spread(editable), *ranked[1:]] if not effect.any() else [ranked[0], usual, *ranked]
    ):
        if len(chosen) < SINGLE and all(abs(layer - other) >= gap for other in chosen):
            chosen.append(layer)
    width = max(2, round(depth * SHARE))
    rows = [tuple(range(layer - width + 1, layer + 1)) for layer in chosen] if several else []
    rows = [row for row in rows if set(row) <= set(editable)]
    return (*((layer,) for layer in chosen), *rows[:SEVERAL])


def _spread(editable: Sequence[int]) -> list[int]:
    """Layers at equal distances, where nothing says which are better."""
    return [editable[i * (len(editable) - 1) // max(1, SINGLE - 1)] for i in range(SINGLE)]
