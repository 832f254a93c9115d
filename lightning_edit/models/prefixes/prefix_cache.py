"""Keys and values of text that no longer changes, to be attended to and never written."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from lightning_edit.models.batches import TokenBatch, pad
from lightning_edit.models.hooks import capture_input, run_until


class FrozenLayer(DynamicLayer):
    """One layer's cache that hands out stored states in front of new ones and stores nothing.

    Args:
        length: Number of cached positions.
        keys: ``(texts, heads, length, head_dim)``, None for a layer that will not be run.
        values: The same for values.
        rows: ``(rows,)`` the text of each row; None where each row has its own. They are put side by side only while
            the layer runs.
    """

    def __init__(
        self, length: int, keys: Tensor | None = None, values: Tensor | None = None, rows: Tensor | None = None
    ) -> None:
        super().__init__()
        self.length, self.keys, self.values, self.rows = length, keys, values, rows
        self.is_initialized = keys is not None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The stored states followed by the new ones."""
        if self.keys is None or self.values is None or not self.length:
            return key_states, value_states
        keys, values = self.keys, self.values
        if self.rows is not None:
            rows = self.rows.to(keys.device)
            keys, values = keys[rows], values[rows]
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)

    def get_seq_length(self) -> int:
        """Number of cached positions."""
        return self.length

    def select(self, rows: Tensor) -> "FrozenLayer":
        """The same for some of the rows."""
        if self.keys is None or self.values is None:
            return FrozenLayer(self.length)
        if self.rows is not None:
            return self.spread(self.rows[rows.to(self.rows.device)])
        rows = rows.to(self.keys.device)
        return FrozenLayer(self.length, self.keys[rows], self.values[rows])

    def spread(self, rows: Tensor) -> "FrozenLayer":
        """One text for each of ``rows``, without copies: its index."""
        return FrozenLayer(self.length, self.keys, self.values, rows)


class RecordingLayer(FrozenLayer):
    """A layer that also keeps, for later, the stored states together with the new ones.

    Args:
        layer: The stored states.
    """

    def __init__(self, layer: FrozenLayer) -> None:
        super().__init__(layer.length, layer.keys, layer.values, layer.rows)
        self.recorded: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The stored states followed by the new ones."""
        self.recorded = super().update(key_states, value_states)
        return self.recorded


class PrefixCache:
    """The frozen cache of a batch of prefixes, one layer for each block.

    Args:
        layers: One for each block of the model.
    """

    def __init__(self, layers: Sequence[FrozenLayer]) -> None:
        self.layers = list(layers)

    @property
    def length(self) -> int:
        """Number of cached positions, padding included."""
        return self.layers[0].length

    def select(self, rows: Tensor) -> "PrefixCache":
        """The cache of some of the rows, ``rows`` being their indices."""
        return PrefixCache([layer.select(rows) for layer in self.layers])

    def spread(self, rows: Tensor) -> "PrefixCache":
        """The cache of rows of which several share a text, ``rows`` being the index of each one's text."""
        return PrefixCache([layer.spread(rows) for layer in self.layers])

    def keep_from(self, layer: int) -> "PrefixCache":
        """The cache without the states of the blocks under ``layer``, which will not run again."""
        return PrefixCache([FrozenLayer(old.length) if i < layer else old for i, old in enumerate(self.layers)])

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of the model's forward."""
        return {"past_key_values": Cache(layers=list(self.layers)), "use_cache": True}

    def growing(self, rows: int) -> DynamicCache:
        """A cache of so many rows, each with the one cached text, to which generation may add.

        Args:
            rows: How many.
        """
        cache = DynamicCache()
        for number, layer in enumerate(self.layers):
            assert layer.keys is not None and layer.values is not None
            states = (part.expand(rows, -1, -1, -1) for part in (layer.keys, layer.values))
            cache.update(*states, number)
        return cache

    @torch.no_grad()
    def extend(self, model: Any, batch: TokenBatch, mask: Tensor) -> "PrefixCache":
        """Runs what follows the cached texts, and returns the cache of both, aligned to the right.

        Args:
            model: The model, with head.
            batch: What follows each row's text, padded to the right.
            mask: ``(rows, cached + new)``, what may be attended to.
        """
        recording = PrefixCache([RecordingLayer(layer) for layer in self.layers])
        _run(model, {**batch.inputs(), "attention_mask": mask, **recording.inputs()})
        real = torch.cat([mask[:, : self.length].bool(), batch.real], dim=1).sum(1)
        longest, padding = int(real.max()), batch.input_ids.shape[1] - batch.real.sum(1)
        layers = []
        for layer in recording.layers:
            assert isinstance(layer, RecordingLayer) and layer.recorded is not None
            keys, values = (_align_right(states, padding)[:, :, -longest:] for states in layer.recorded)
            layers.append(FrozenLayer(longest, keys, values))
        return PrefixCache(layers)


@torch.no_grad()
def cache_texts(model: Any, texts: Sequence[Sequence[int]], blocks: int, device: torch.device) -> PrefixCache:
    """Runs texts once and keeps what later tokens attend to, aligned to the right.

    Args:
        model: The model, with head.
        texts: Token ids of each row, some possibly empty.
        blocks: Number of blocks of the model.
        device: Where token ids go in.
    """
    length = max(len(text) for text in texts)
    if length == 0:
        return PrefixCache([FrozenLayer(0) for _ in range(blocks)])
    batch = pad(texts, device)
    # Without a configuration every layer keeps all positions; sliding windows are left to the attention mask.
    cache = DynamicCache()
    _run(model, {**batch.inputs(), "past_key_values": cache, "use_cache": True})
    padding = length - batch.real.sum(1)
    return PrefixCache(
        [
            FrozenLayer(length, _align_right(layer.keys, padding), _align_right(layer.values, padding))
            for layer in cache.layers
        ]
    )


def _run(model: Any, inputs: dict[str, Any]) -> None:
    """A pass for the cache's sake: no logits are needed."""
    run_until(model, inputs, capture_input(model.get_output_embeddings(), stop=True))


def _align_right(states: Tensor, padding: Tensor) -> Tensor:
    """Moves each row's states ``(rows, heads, length, head_dim)`` by its padding; zeros take their place."""
    source = torch.arange(states.shape[2], device=states.device)[None] - padding[:, None].to(states.device)
    index = source.clamp(min=0)[:, None, :, None].expand_as(states)
    return states.gather(2, index).masked_fill(source.lt(0)[:, None, :, None], 0)
