"""The keys of all tokens of edits, prompt and answer, at several layers in one pass."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.models.batches import by_length, pad, tokens_of_a_pass
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.fast_ops import fused_activations
from lightning_edit.models.finding.sites import by_token, capture_keys, stacked
from lightning_edit.models.hooks import frozen, run_until
from lightning_edit.models.out_of_memory import halving
from lightning_edit.requests import EditRequest

MAX_TOKENS = 8192


def token_keys(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    templates: ContextTemplates,
    layers: Sequence[int],
) -> dict[int, Tensor]:
    """The keys at every token of the edits' bare prompts with their new answers, on the model as it is now.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        requests: The edits.
        templates: Their contexts, of which the bare one counts, in each world.
        layers: The edited layers, ascending.

    Returns:
        For each layer ``(d_in, tokens)`` in float64, of experts ``(E d_in, tokens)``.
    """
    bare = replace(templates, texts=("{}",))
    rows = [text.ids for request in requests for text in bare.encode(tokenizer, request, target=True)]
    modules = [decoder.down_projection(layer) for layer in layers]
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def run(chosen: Sequence[int]) -> None:
        batch = pad([rows[i] for i in chosen], decoder.device)
        captures = [capture_keys(module, stop=module is modules[-1]) for module in modules]
        real = batch.real.flatten().nonzero()[:, 0]
        for layer, captured in zip(layers, run_until(decoder.model, batch.inputs(), *captures), strict=True):
            tokens = by_token(captured.value)
            found[layer].append(stacked(tokens[real.to(tokens.device)]).double())

    most = decoder.tokens_at_once(MAX_TOKENS)
    with frozen(decoder.model), fused_activations(decoder.model):
        for group in by_length([len(row) for row in rows], most, tokens_of_a_pass(decoder.device)):
            list(halving(run, group, decoder.model))
    return {layer: torch.cat(parts).T.contiguous() for layer, parts in found.items()}
