"""Calls in Python that follow each other compare with what all of them have seen, as the updates of a run do."""

import pytest
import torch

from lightning_edit import Gradient, Ridge, edit
from tests.gradients.test_gradient import EDITS, ETA, editor_of
from tests.small_models import make_gpt2, make_tokenizer

SOURCE = Gradient(eta=ETA)
FIRST, SECOND, THIRD = EDITS[:2], EDITS[2:4], EDITS[4:]


def call(model, edits, layers=(0, 1), source=SOURCE):
    return edit(model, make_tokenizer(), edits, Ridge(1.0), list(layers), source=source, progress=False)


def in_a_run(*updates, source=SOURCE):
    """What the last of some updates adds, each of some edits at some layers; statistics go from one to the next."""
    model, statistics = make_gpt2(), {}
    for edits, layers in updates:
        editor = editor_of(model, source, 1.0, list(layers))
        editor.statistics = statistics
        factors = editor.write(edits, torch.zeros(len(edits), 0)).factors
        statistics = editor.statistics
    return factors


def check_same(result, factors):
    assert result.layers.keys() == factors.keys()
    for layer, own in factors.items():
        torch.testing.assert_close(result.layers[layer].factors.dense(), own.dense(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("normalize", ["standard", "whitened"])
def test_a_later_call_goes_on_with_what_earlier_ones_have_seen(normalize):
    source, model = Gradient(eta=ETA, normalize=normalize), make_gpt2()
    both = [(edits, (0, 1)) for edits in (FIRST, SECOND, THIRD)]
    for number, (edits, _) in enumerate(both, 1):
        last = call(model, edits, source=source)
        check_same(last, in_a_run(*both[:number], source=source))
    alone = call(make_gpt2(), THIRD, source=source)
    assert not torch.allclose(alone.layers[0].factors.dense(), last.layers[0].factors.dense(), rtol=1e-3)


@pytest.mark.parametrize("between", [(0,), (1,)])
def test_what_a_call_on_fewer_layers_has_seen_counts_too(between):
    model = make_gpt2()
    call(model, FIRST)
    call(model, SECOND, between)
    check_same(call(model, THIRD), in_a_run((FIRST, (0, 1)), (SECOND, between), (THIRD, (0, 1))))


def test_what_was_seen_goes_with_a_result_that_is_removed_and_comes_back_with_it():
    model = make_gpt2()
    first, second = call(model, FIRST), call(model, SECOND)
    second.remove()
    check_same(again := call(model, SECOND), in_a_run((FIRST, (0, 1)), (SECOND, (0, 1))))
    again.remove()
    first.remove()
    check_same(alone := call(model, THIRD), in_a_run((THIRD, (0, 1))))
    alone.remove()
    for result in (second, first):
        result.insert()
    check_same(call(model, THIRD), in_a_run((FIRST, (0, 1)), (SECOND, (0, 1)), (THIRD, (0, 1))))
