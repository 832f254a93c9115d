"""Keys and values of text that no longer changes, to be attended to and never written."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from lightning_edit.batches import TokenBatch


class FrozenLayer(DynamicLayer):
    """One layer's cache that hands out stored states in front of new ones and stores nothing.

    Args:
        length: Number of cached positions.
        keys: ``(rows, heads, length, head_dim)``, None for a layer that will not be run.
        values: The same for values.
    """

    def __init__(self, length: int, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()
        self.length, self.keys, self.values = length, keys, values
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The stored states followed by the new ones."""
        if self.keys is None or self.values is None or not self.length:
            return key_states, value_states
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)

    def get_seq_length(self) -> int:
        """Number of cached positions."""
        return self.length

    def select(self, rows: Tensor) -> "FrozenLayer":
        """The same for some of the rows."""
        if self.keys is None or self.values is None:
            return FrozenLayer(self.length)
        return FrozenLayer(self.length, self.keys[rows], self.values[rows])


class PrefixCache:
    """The frozen cache of a batch of prefixes, one layer for each block.

    Args:
        layers: One for each block of the model.
    """

    def __init__(self, layers: list[FrozenLayer]) -> None:
        self.layers = layers

    def select(self, rows: Tensor) -> "PrefixCache":
        """The cache of some of the rows, ``rows`` being their indices."""
        return PrefixCache([layer.select(rows) for layer in self.layers])

    def keep_from(self, layer: int) -> "PrefixCache":
        """The cache without the states of the blocks under ``layer``, which will not run again."""
        return PrefixCache([FrozenLayer(old.length) if i < layer else old for i, old in enumerate(self.layers)])

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of the model's forward."""
        return {"past_key_values": Cache(layers=list(self.layers)), "use_cache": True}


@torch.no_grad()
def cache_prefixes(model: Any, prefixes: TokenBatch, blocks: int) -> PrefixCache:
    """Runs the prefixes once and keeps what later tokens attend to.

    Args:
        model: The model, with head.
        prefixes: Left-padded prefixes; of length 0 where no row has one.
        blocks: Number of blocks of the model.
    """
    _rows, length = prefixes.input_ids.shape
    if length == 0:
        return PrefixCache([FrozenLayer(0) for _ in range(blocks)])
    # Without a configuration every layer keeps all positions; sliding windows are left to the attention mask.
    cache = DynamicCache()
    model.base_model(**prefixes.inputs(), past_key_values=cache, use_cache=True)
    padding = prefixes.attention_mask.eq(0)[:, None, :, None]
    layers = []
    for layer in cache.layers:
        # A padded position attends to nothing and may hold NaN, which a weight of zero would not silence.
        layers.append(FrozenLayer(length, layer.keys.masked_fill(padding, 0), layer.values.masked_fill(padding, 0)))
    return PrefixCache(layers)
