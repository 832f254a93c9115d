"""Value vectors that an earlier call has found are found again, by calls and by runs alike."""

from dataclasses import replace

import pytest
import torch

from lightning_edit import MEMIT, ContextTemplates, ValueSettings, edit
from lightning_edit.editor import Editor
from lightning_edit.models.decoder import find_decoder
from lightning_edit.storage.cache import Cache
from tests.small_models import make_gpt2, make_request, make_tokenizer

EDITS = [
    make_request(),
    make_request(subject="Anna", prompt="{} went to school in", target_new="London", target_true="Rome"),
    make_request(subject="Toyota Motor Corporation", prompt="The headquarters of {} are in", target_new="Rome"),
]
TOKENIZER = make_tokenizer()


def made(model, folder, requests=EDITS, layers=(0,), distribution="uniform", **changes):
    values = replace(ValueSettings(steps=3, cache_dir=str(folder)), **changes)
    size = find_decoder(model).moment_shape(0)[0]
    moments = {layer: torch.eye(size, dtype=torch.float64) for layer in layers}
    how = {"moments": moments, "templates": ContextTemplates(), "values": values, "micro_batch": 2}
    how |= {"distribution": distribution, "progress": False}
    return edit(model, TOKENIZER, requests, MEMIT(20.0), list(layers), **how)


@pytest.fixture
def nothing_is_searched(monkeypatch):
    return lambda: monkeypatch.setattr(Editor, "find_values", lambda *_, **__: pytest.fail("values were searched for"))


@pytest.mark.parametrize("changes", [{}, {"norm_anchor": "auto"}], ids=["plain", "measured norm"])
def test_a_second_call_searches_nothing(changes, tmp_path, nothing_is_searched):
    first = made(make_gpt2(), tmp_path, **changes)
    kept = len(list(Cache(tmp_path).entries()))
    # What the norm is measured with is what is written, before it has that norm.
    assert kept == 2
    nothing_is_searched()
    model = make_gpt2()
    second = made(model, tmp_path, **changes)
    assert torch.equal(first.layers[0].factors.dense(), second.layers[0].factors.dense())
    second.remove()
    made(model, tmp_path, **changes)
    assert len(list(Cache(tmp_path).entries())) == kept


def test_a_call_after_another_finds_nothing_of_the_weights_before(tmp_path):
    model = make_gpt2()
    first = made(model, tmp_path, EDITS[:1])
    again = made(model, tmp_path, EDITS[:1])
    assert len(list(Cache(tmp_path).entries())) == 2
    assert not torch.equal(first.layers[0].factors.dense(), again.layers[0].factors.dense())


def test_values_are_found_again_whatever_layers_below_are_edited(tmp_path, nothing_is_searched):
    made(make_gpt2(n_layer=3), tmp_path, layers=(0, 1))
    # With replay they are found at the lowest layer.
    first = made(make_gpt2(n_layer=3), tmp_path, layers=(0, 1), distribution="replay")
    assert len(list(Cache(tmp_path).entries())) == 4
    nothing_is_searched()
    for layers, distribution in (((1,), "uniform"), ((0,), "uniform"), ((0, 1), "last"), ((0, 1), "replay")):
        again = made(make_gpt2(n_layer=3), tmp_path, layers=layers, distribution=distribution)
    assert torch.equal(first.layers[1].factors.dense(), again.layers[1].factors.dense())


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made(make_gpt2(), "cache", cache_dir=None)
    assert list(tmp_path.iterdir()) == []
