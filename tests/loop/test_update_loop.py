"""The updates of a run without a trainer: written, kept, undone, looked at in between."""

import pytest
import torch

from lightning_edit.loop.edit_queue import EditQueue
from lightning_edit.loop.run_state import RunState
from lightning_edit.loop.update_loop import UpdateLoop
from lightning_edit.requests import fact_of
from tests.histories import LAYERS, PAIRS, make_editor
from tests.small_models import make_gpt2

REQUESTS = [request for pair in PAIRS for request in pair]


def make_loop(independent=False, size=2):
    editor = make_editor(make_gpt2(), previous_keys=None if independent else {})
    loop = UpdateLoop(EditQueue(size, together=independent), independent)
    loop.editor, loop.weights = editor, editor.weights
    return loop


def offer(loop, requests):
    """Takes values of edits into the queue; returns how many updates became complete."""
    return sum(1 for _ in loop.queue.add(loop.editor.find_values(requests)))


def weights(loop):
    return {layer: loop.weights.decoder.weight(layer).detach().clone() for layer in LAYERS}


def same(first, second):
    return all(torch.equal(first[layer], second[layer]) for layer in LAYERS)


def keep(loop):
    loop.keep(REQUESTS, {"solve": 1.0}, [])


def test_an_update_is_kept_or_undone_as_a_whole():
    loop = make_loop()
    unedited = weights(loop)
    assert offer(loop, PAIRS[0]) == 1
    assert loop.write(REQUESTS).requests == PAIRS[0]
    keep(loop)
    kept, keys = weights(loop), loop.editor.previous_keys[0].dense()
    assert not same(kept, unedited)
    offer(loop, PAIRS[1])
    loop.write(REQUESTS)
    assert (loop.edits_written, loop.updates_written) == (4, 2)
    assert not same(weights(loop), kept)
    loop.refuse("enough")
    loop.undo()
    assert same(weights(loop), kept)
    assert torch.equal(loop.editor.previous_keys[0].dense(), keys)
    assert (loop.edits_written, loop.updates_written, loop.last_update, loop.kept.stopped) == (2, 1, None, "enough")


def test_edits_that_wait_are_in_the_model_only_while_one_looks():
    loop = make_loop(size=None)
    unedited = weights(loop)
    offer(loop, PAIRS[0])
    with loop.edits_so_far(REQUESTS):
        seen = weights(loop)
    assert same(weights(loop), unedited)
    assert loop.editor.previous_keys == {}
    loop.write(REQUESTS)
    assert same(weights(loop), seen)


def test_a_kept_state_goes_on_in_another_process_bit_for_bit():
    whole, stopped = make_loop(), make_loop()
    for loop in (whole, stopped):
        offer(loop, PAIRS[0])
        loop.write(REQUESTS)
        keep(loop)
    resumed = make_loop()
    resumed.restore(RunState.unpacked(stopped.kept.packed()), REQUESTS)
    for loop in (whole, resumed):
        offer(loop, PAIRS[1])
        loop.write(REQUESTS)
    assert same(weights(whole), weights(resumed))
    assert resumed.edits_written == 4


def test_independent_updates_are_measured_each_by_itself():
    loop = make_loop(independent=True)
    unedited, edited = weights(loop), []
    for pair in PAIRS[:2]:
        offer(loop, pair)
        loop.write(REQUESTS)
        edited.append(weights(loop))
        loop.set_aside()
        keep(loop)
        assert same(weights(loop), unedited)
    parts = loop.written_together([*PAIRS[0], *PAIRS[1]])
    assert parts == PAIRS[:2]
    for part, expected in zip(parts, edited, strict=True):
        with loop.as_edited(part):
            assert same(weights(loop), expected)
        assert loop.facts_with(part[:1]) == set(map(fact_of, part))
    assert loop.facts_with(PAIRS[2]) == set() and make_loop().facts_with(PAIRS[0]) is None
    with loop.as_edited(PAIRS[2]):
        assert same(weights(loop), unedited)


def test_nothing_is_lost_where_an_update_cannot_be_solved():
    loop = make_loop()
    before = weights(loop)
    offer(loop, PAIRS[0])
    loop.editor.moments = {layer: torch.full((24, 24), float("nan"), dtype=torch.float64) for layer in LAYERS}
    with pytest.raises(ValueError):
        loop.write(REQUESTS)
    assert same(weights(loop), before)
    assert loop.edits_written == 0
