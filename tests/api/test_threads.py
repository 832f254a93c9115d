"""Threads that work on models at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

from lightning_edit import MEMIT, ContextTemplates, ValueSettings, edited
from lightning_edit.storage.fingerprint import fingerprint
from tests.api.test_sequential import FIRST, LAYERS, SECOND, THIRD, TOKENIZER, made, moments_of, same, snapshot
from tests.small_models import make_gpt2


def at_once(*tasks):
    """The results of tasks that begin together, each in a thread of its own."""
    ready = threading.Barrier(len(tasks))

    def run(task):
        ready.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(timeout=120) for future in [pool.submit(run, task) for task in tasks]]


def prints_of(model):
    return {name: fingerprint(tensor) for name, tensor in model.state_dict().items()}


def test_threads_that_edit_one_model_take_turns():
    model = make_gpt2()
    before = snapshot(model)
    results = at_once(*(lambda one=one: made(model, [one]) for one in (FIRST, SECOND, THIRD)))
    assert all(result.is_inserted for result in results)
    together = prints_of(model)
    one_by_one = set()
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        other = make_gpt2()
        for place in order:
            made(other, [(FIRST, SECOND, THIRD)[place]])
        one_by_one.add(str(prints_of(other)))
    assert len(one_by_one) > 1 and str(together) in one_by_one
    at_once(*(result.remove for result in results))
    assert same(model, before)


def test_a_thread_waits_for_the_end_of_a_block_with_an_edited_model():
    model = make_gpt2()
    before = snapshot(model)
    inside, done = threading.Event(), threading.Event()
    how = {"moments": moments_of(model), "templates": ContextTemplates(), "values": ValueSettings(steps=3)}

    def in_a_block():
        with edited(model, TOKENIZER, [FIRST], MEMIT(20.0), LAYERS, **how):
            inside.set()
            # Long enough for the other to run into the block, were it not made to wait.
            done.wait(timeout=3)
            return done.is_set()

    def beside():
        inside.wait(timeout=60)
        result = made(model, [SECOND])
        done.set()
        return result

    was_disturbed, result = at_once(in_a_block, beside)
    assert not was_disturbed and result.is_inserted
    result.remove()
    assert same(model, before)


def test_an_answer_is_that_of_the_model_as_it_was_asked_for():
    model = make_gpt2()
    result = made(model, [FIRST])
    alone = [result.ask("The Louvre is in", tokens=4).after for _ in range(2)]
    tasks = [lambda: result.ask("The Louvre is in", tokens=4).after] * 4 + [lambda: made(model, [SECOND])]
    *answers, other = at_once(*tasks)
    assert alone[0] == alone[1] and answers == alone[:1] * 4 and other.is_inserted
