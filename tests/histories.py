"""Histories of small runs, for several tests."""

import pytest
import torch

from lightning_edit import EMMET, ModelUpdate, ValueSettings
from lightning_edit.editor import Editor
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.models.decoder import find_decoder
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.history import History
from lightning_edit.updates.layer_update import LayerUpdate
from tests.small_models import make_factors, make_gpt2, make_llama, make_request, make_tokenizer

LAYERS = (0, 1)
MAKERS = [pytest.param(make_gpt2, id="Conv1D"), pytest.param(make_llama, id="Linear")]
SUBJECTS = ["Eiffel Tower", "Danielle Darrieux", "Toyota Motor Corporation", "Anna", "violin", "old musician"]
PAIRS = [[make_request(subject=s, case_id=str(i + j)) for j, s in enumerate(SUBJECTS[i : i + 2])] for i in (0, 2, 4)]


def make_editor(model, layers=LAYERS, solver=None, **changes):
    decoder = find_decoder(model.requires_grad_(False))
    d_in = decoder.weight(layers[0]).shape[1]
    return Editor(
        EditedWeights(decoder, layers),
        make_tokenizer(),
        solver or EMMET(1.0, ridge=0.1),
        list(layers),
        ContextTemplates(("{}", "I think. {}")),
        ValueSettings(lr=0.5, steps=3),
        {layer: torch.eye(d_in, dtype=torch.float64) for layer in layers},
        **changes,
    )


def write(history, number, editor, requests, **info):
    """One update of a run, kept as a run keeps it; returns the weights with it in them."""
    written = editor.write(requests, editor.find_values(requests).z)
    names, base = editor.weights.decoder.names, editor.weights.base
    updates = {layer: LayerUpdate(names[layer], fingerprint(base[layer]), f) for layer, f in written.factors.items()}
    weights = {layer: editor.weights.decoder.weight(layer).detach().clone() for layer in base}
    after = {layer: fingerprint(weight) for layer, weight in weights.items()}
    history.write(number, updates, written.keys, requests, written.figures, info, after)
    return weights


def run(folder, model, batches=PAIRS, **changes):
    history, editor = History(folder), make_editor(model, **changes)
    return history, [write(history, number, editor, batch) for number, batch in enumerate(batches, start=1)]


def weights_of(model, updates):
    """The edited weights of a model with updates in it; the model is as it was afterwards."""
    update, decoder = ModelUpdate(updates), find_decoder(model)
    update.insert(model)
    found = {layer: decoder.weight(layer).detach().clone() for layer in LAYERS}
    update.remove(model)
    return found


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[layer], second[layer]) for layer in first)


def simple(folder, updates=3, edits=2, layers=(0,)):
    """A history of random updates."""
    history = History(folder)
    for number in range(1, updates + 1):
        parts = {layer: LayerUpdate("m", "b", make_factors(6, 9, edits, number + layer)) for layer in layers}
        keys = {layer: torch.randn(9, edits, dtype=torch.float64) for layer in layers}
        requests = [make_request(subject=f"s{number}.{column}") for column in range(edits)]
        history.write(number, parts, keys, requests, {"layer_0/update_norm": float(number)}, {"model": "tiny"})
    return history
