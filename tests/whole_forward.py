"""What a search for values must compute, by ordinary passes over whole texts."""

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import Encoded
from lightning_edit.models.decoder import Decoder, ValueSite
from lightning_edit.models.hooks import change_output


def whole_logits(decoder: Decoder, layer: int, site: ValueSite, text: Encoded, delta: Tensor) -> Tensor:
    """The logits ``(tokens, vocabulary)`` of one whole text.

    Args:
        decoder: The model.
        layer: The edited block.
        site: Where delta is added.
        text: The text.
        delta: ``(d_model,)``, added by a hook at the subject's last token.
    """

    def add(states: Tensor) -> Tensor:
        moved = states.clone()
        moved.view(len(text.ids), -1)[text.subject_last] += delta
        return moved

    module = decoder.blocks[layer] if site == "block" else decoder.down_projection(layer)
    with change_output(module, add):
        return decoder.model(torch.tensor([text.ids]), use_cache=False).logits[0]


def expected_logits(
    decoder: Decoder, layer: int, site: ValueSite, rows: list[tuple[int, Encoded]], delta: Tensor
) -> Tensor:
    """What `ValueBatch.logits` gives: at the tokens of answers first, then behind the KL prompts.

    Args:
        decoder: The model.
        layer: The edited block.
        site: Where delta is added.
        rows: Each edit's number with one of its texts.
        delta: ``(edits, d_model)``.
    """
    found = []
    for number, text in sorted(rows, key=lambda row: row[1].target_start == len(row[1].ids)):
        logits = whole_logits(decoder, layer, site, text, delta[number])
        first, last = text.target_start - 1, len(text.ids) - 1
        found.append(logits[first:last] if first < last else logits[text.subject_last, None])
    return torch.cat(found)
