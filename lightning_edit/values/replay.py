"""Forward replay: a value found at the lowest edited layer, and what it makes of the outputs of later ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.models.batches import by_length, pad, tokens_of_a_pass
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.fast_ops import fused_activations
from lightning_edit.models.hooks import by_position, capture_output, change_output, frozen, run_until
from lightning_edit.models.out_of_memory import halving
from lightning_edit.requests import EditRequest

MAX_TOKENS = 8192


def replayed(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    templates: ContextTemplates,
    layers: Sequence[int],
    z: Tensor,
) -> dict[int, Tensor]:
    """What leaves each edited block at the subject's last token of the bare prompt, when z leaves the lowest one.

    The targets of later layers fit each other, because the model itself has computed each from the one below
    (MEMIT-FE, arXiv 2605.00358).

    Args:
        decoder: The model that the values were found on.
        tokenizer: Its fast tokenizer.
        requests: The n edits.
        templates: Their contexts, of which the first counts.
        layers: The edited layers, ascending, two or more.
        z: ``(n, d_model)``, the values at the lowest of them.

    Returns:
        For each layer ``(n, d_model)``; for the lowest z itself.
    """
    texts = [templates.bare(tokenizer, request) for request in requests]
    rows = [text.ids[: text.subject_last + 1] for text in texts]
    targets = {layer: torch.empty_like(z) for layer in layers[1:]}

    def run(chosen: Sequence[int]) -> None:
        batch = pad([rows[i] for i in chosen], decoder.device)
        last = batch.real.sum(1) - 1

        def inject(states: Tensor) -> Tensor:
            changed = by_position(states, len(chosen)).clone()
            places = torch.arange(len(chosen), device=changed.device), last.to(changed.device)
            changed[places] = z[list(chosen)].to(changed)
            return changed.reshape(states.shape)

        captures = [capture_output(decoder.blocks[layer], stop=layer == layers[-1]) for layer in layers[1:]]
        injected = change_output(decoder.blocks[layers[0]], inject)
        for layer, captured in zip(layers, run_until(decoder.model, batch.inputs(), injected, *captures), strict=True):
            if layer != layers[0]:
                states = by_position(captured.value, len(chosen))
                places = torch.arange(len(chosen), device=states.device), last.to(states.device)
                targets[layer][list(chosen)] = states[places].to(z)

    most = decoder.tokens_at_once(MAX_TOKENS)
    with frozen(decoder.model), fused_activations(decoder.model):
        for group in by_length([len(row) for row in rows], most, tokens_of_a_pass(decoder.device)):
            list(halving(run, group, decoder.model))
    return {layers[0]: z, **targets}
