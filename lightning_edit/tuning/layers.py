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
# A state that brings back so much of the most is still read by later tokens.
READ = 0.5
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
    """The mean indirect effect ``(layers,)`` of restoring the hidden state at the subject's last token.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        facts: Facts that it knows; of many the first `FACTS` are traced.
        seed: Of the noise.
        report: Called with the number of facts.

    Returns:
        The effects; all 0 where there is no fact.
    """
    depth = len(decoder.blocks)
    if not facts:
        return torch.zeros(depth, dtype=torch.float64)
    std, settings = embedding_std(decoder, tokenizer, [f.subject for f in facts]), TracingSettings(SAMPLES, seed=seed)
    total = torch.zeros(depth, dtype=torch.float64)
    for number, fact in enumerate(facts[:FACTS], start=1):
        trace = trace_fact(decoder, tokenizer, fact, std, settings, ["state"], only_subject_end=True)
        total += trace.effect("state")[trace.subject[-1]]
        report("trace (facts)", number, min(len(facts), FACTS))
    return total / min(len(facts), FACTS)


def layer_sets(effect: Tensor, editable: Sequence[int], several: bool) -> tuple[tuple[int, ...], ...]:
    """The layers to try: single ones, then several in a row.

    They are spread evenly up to the highest layer whose state later tokens still read. The layer a quarter of the way
    up, which is near those published for most models, is always among them.

    Args:
        effect: See `effects`.
        editable: The layers that may be tried, ascending.
        several: Whether more than one layer can be edited.
    """
    depth, most = len(effect), max(float(effect[layer]) for layer in editable)
    read = [layer for layer in editable if most > 0 and float(effect[layer]) >= READ * most]
    # In a shallow model a trace has little to choose from.
    highest = max(read, default=editable[-1]) if len(editable) > SINGLE else editable[-1]
    within = [layer for layer in editable if layer <= highest]
    usual = min(editable, key=lambda layer: (abs(layer - depth // 4), layer))
    count = min(SINGLE, len(within))
    single = {within[round(i * (len(within) - 1) / max(1, count - 1))] for i in range(count)} | {usual}
    width = max(2, round(depth * SHARE))
    # Published ones end about there, or somewhat higher.
    ends = [layer for layer in sorted(single) if layer >= usual and several]
    rows = [tuple(range(layer - width + 1, layer + 1)) for layer in ends]
    rows = [row for row in rows if set(row) <= set(editable)][::2]
    return (*((layer,) for layer in sorted(single)), *rows[:SEVERAL])
