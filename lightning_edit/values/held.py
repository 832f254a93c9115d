"""Earlier values of a text, which are in their places while a later one is searched for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import Encoded
from lightning_edit.models.decoder import Decoder, ValueSite
from lightning_edit.models.hooks import by_position, change_output
from lightning_edit.models.prefixes.prefix_cache import PrefixCache, cache_texts
from lightning_edit.models.prefixes.shared_prefixes import cache_prefixes

# Where earlier values of a text stand ``(k,)``, and their deltas ``(k, d_model)``.
Held = tuple[Tensor, Tensor]


def prefixes(
    decoder: Decoder, layer: int, site: ValueSite, texts: Sequence[Encoded], held: Sequence[Held] | None
) -> PrefixCache:
    """The cache of all that stands before the subjects' last tokens, with earlier values in their places.

    Args:
        decoder: The model.
        layer: The edited block.
        site: Where values are added.
        texts: One for each row.
        held: Earlier values of each row; None for none.
    """
    rows = [text.ids[: text.subject_last] for text in texts]
    if held is None:
        return cache_prefixes(decoder, rows)
    # Texts that begin alike have values of their own, so each is run by itself.
    added = in_place(held, max(map(len, rows)), decoder.device)
    module = decoder.blocks[layer] if site == "block" else decoder.down_projection(layer)

    def add(states: Tensor) -> Tensor:
        return plus(by_position(states, len(rows)), added).reshape(states.shape)

    with change_output(module, add):
        return cache_texts(decoder.model, rows, len(decoder.blocks), decoder.device)


def in_place(held: Sequence[Held], length: int, device: torch.device) -> Tensor:
    """Earlier values where they stand, and 0 elsewhere, ``(rows, length, d_model)``.

    Args:
        held: Those of each row.
        length: How many tokens a row has.
        device: Where they are needed.
    """
    deltas = held[0][1]
    added = torch.zeros(len(held), length, deltas.shape[1], dtype=deltas.dtype, device=device)
    for row, (places, values) in enumerate(held):
        added[row, places.to(device)] = values.to(device)
    return added


def plus(states: Tensor, added: Tensor) -> Tensor:
    """States with something added in its own precision, in new memory.

    Args:
        states: Of any shape and precision.
        added: Of the same shape.
    """
    return (states.to(added.dtype) + added.to(states.device)).to(states.dtype)
