"""Value vectors of a few edits through a cache, and everything that they depend on, to be changed by tests."""

from dataclasses import fields

import torch

from lightning_edit import ContextTemplates, ValueSettings
from lightning_edit.models.decoder import find_decoder
from lightning_edit.storage.cache import Cache
from lightning_edit.values.cache import cached_values, edited_part, value_parts, weights_of
from lightning_edit.values.optimize import optimize_values
from lightning_edit.values.vectors import Values
from tests.small_models import make_gpt2, make_request, make_tokenizer

LAYERS = [0, 1]
FRENCH = {"subject": "Danielle Darrieux", "prompt": "The mother tongue of {} is", "target_new": "English"}


class Run:
    """Everything that values depend on, and the values through a cache."""

    def __init__(self, *folders):
        self.caches = [Cache(folder) for folder in folders]
        self.model, self.tokenizer, self.layer = make_gpt2(), make_tokenizer(), 1
        self.layers = LAYERS
        self.templates = ContextTemplates(("{}", "I think. {}"))
        self.settings = ValueSettings(steps=2)
        self.requests = [make_request(), make_request(**FRENCH), make_request(subject="Rome", target_new="Paris")]
        self.told, self.base = [], None

    def start(self):
        """What is asked once, before the first edit."""
        decoder = find_decoder(self.model)
        self.base = value_parts(decoder, self.tokenizer, self.templates, self.layer, self.settings)
        self.before = weights_of(decoder, self.layers)
        return self

    def values(self):
        decoder, self.told = find_decoder(self.model), []
        if self.base is None:
            self.start()

        def compute(report):
            return optimize_values(
                decoder, self.tokenizer, self.requests, self.templates, self.layer, self.settings, report
            )

        def report(*told, **figures):
            self.told.append((*told, figures))

        parts = self.base | edited_part(decoder, self.layers, self.before)
        return cached_values(self.caches, parts, self.requests, compute, report, decoder.device)


def same_bits(first, second):
    pairs = [(getattr(first, f.name), getattr(second, f.name)) for f in fields(Values)]
    return all(a.dtype == b.dtype and a.shape == b.shape and raw(a) == raw(b) for a, b in pairs)


def raw(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
