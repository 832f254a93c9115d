"""Passes for second moments over the same few texts, whose batches are counted, that several tests share."""

import torch

from lightning_edit import SecondMomentSettings
from lightning_edit.keys.layer_stats import second_moments
from lightning_edit.models.decoder import find_decoder
from lightning_edit.storage.cache import Cache
from tests.small_models import SENTENCES, make_gpt2, make_tokenizer

LAYERS = [0, 2]
# In batches of so few tokens there are nearly as many batches as texts.
FEW = 60


def texts(count=12):
    """Of many lengths."""
    words = " ".join(SENTENCES).split()
    return [" ".join(words[i : i + 2 + 5 * i % 23]) for i in range(count)]


class Watched:
    """A model that notes the rows of each batch and does something at one of them."""

    def __init__(self, dtype=torch.float32, at=None, then=None):
        self.model = make_gpt2(dtype)
        self.decoder = find_decoder(self.model)
        self.batches, self._at, self._then = [], at, then
        self.model.register_forward_pre_hook(self.look, with_kwargs=True)

    def look(self, _, args, inputs):
        self.batches.append(tuple(inputs["input_ids"].shape))
        if len(self.batches) == self._at:
            self._then()

    def moments(self, folder=None):
        settings = SecondMomentSettings(tokens=10_000, cache_dir=None if folder is None else str(folder))
        return second_moments(self.decoder, make_tokenizer(), texts(), LAYERS, settings)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[layer], second[layer]) for layer in first)


def close(first, second):
    return all(torch.allclose(first[layer], second[layer], rtol=1e-12, atol=1e-14) for layer in LAYERS)


def kinds(folder):
    return sorted(entry.kind for entry in Cache(folder).entries())
