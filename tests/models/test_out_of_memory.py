from contextlib import contextmanager

import pytest
import torch

from lightning_edit import ContextTemplates, EditError, ValueSettings
from lightning_edit.keys.edit_keys import compute_keys
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.metrics.token_scores import score_tokens
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.out_of_memory import halving
from lightning_edit.requests import EditRequest
from lightning_edit.tiny import World
from lightning_edit.values.optimize import optimize_values

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."
TEMPLATES = ContextTemplates(("{}", "It is known that {}", "They say: {}"))


@contextmanager
def room_for(model, rows):
    """A device on which a pass of more rows runs out of memory; tells the rows of passes that ran and of all."""
    ran, tried = [], []

    def refuse(_, args, kwargs):
        count = (args[0] if args else kwargs["input_ids"]).shape[0]
        tried.append(count)
        if count > rows:
            raise torch.OutOfMemoryError(FULL)
        ran.append(count)

    handles = [part.register_forward_pre_hook(refuse, with_kwargs=True) for part in (model, model.base_model)]
    try:
        yield ran, tried
    finally:
        for handle in handles:
            handle.remove()


@pytest.fixture(scope="module")
def material():
    model = load_model("tiny", "float64")
    records = World.generate().records(6, seed=0)
    requests = [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in records]
    return find_decoder(model), load_tokenizer("tiny"), requests


def test_every_item_is_done_once_and_in_order():
    tried = []

    def job(items):
        tried.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError(FULL)
        return list(items)

    assert [x for part in halving(job, range(10), None) for x in part] == list(range(10))
    assert tried == [10, 5, 2, 2, 2, 2, 2]


def test_a_single_item_without_room_is_an_error_and_other_errors_are_not_tried_again():
    tried = []

    def job(error, items):
        tried.append(len(items))
        raise error

    with pytest.raises(torch.OutOfMemoryError):
        list(halving(lambda items: job(torch.OutOfMemoryError(FULL), items), range(4), None))
    assert tried == [4, 2, 1]
    with pytest.raises(RuntimeError, match="shape"):
        list(halving(lambda items: job(RuntimeError("shape"), items), range(4), None))
    assert tried == [4, 2, 1, 4]


def test_memory_that_really_ends_is_recognized():
    def job(items):
        torch.empty(len(items) << 50, dtype=torch.uint8)

    with pytest.raises(EditError, match=r"out of main memory: none is left for 1 of 2 .*allocate"):
        list(halving(job, range(2), None))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
@pytest.mark.slow
def test_main_memory_that_is_short_for_an_eighth_ends_the_run_with_a_message(error):
    tried = []

    def job(items):
        tried.append(len(items))
        raise error

    warned = pytest.warns(UserWarning, match="Out of memory with 64 at once; continuing with 32")
    with warned, pytest.raises(EditError, match=r"none is left for 8 of 64 .*data\.batch_size"):
        list(halving(job, range(64), None))
    assert tried == [64, 32, 16, 8]


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.slow
def test_values_are_found_in_as_small_parts_as_it_takes(material, rows):
    decoder, tokenizer, requests = material
    settings = ValueSettings(steps=6, lr=0.5, clamp_norm_factor=4.0, early_stop_loss=1.0)
    expected = optimize_values(decoder, tokenizer, requests, TEMPLATES, 0, settings)
    with room_for(decoder.model, rows) as (ran, _):
        found = optimize_values(decoder, tokenizer, requests, TEMPLATES, 0, settings)
    assert max(ran) <= rows
    assert found.steps.tolist() == expected.steps.tolist()
    assert len(set(found.steps.tolist())) > 1
    assert (found.z - expected.z).norm() <= 1e-10 * (expected.z - expected.z0).norm()


@pytest.mark.slow
def test_a_batch_that_was_halved_stays_halved(material):
    decoder, tokenizer, requests = material
    settings = ValueSettings(steps=5, early_stop_loss=0.0)
    with room_for(decoder.model, 4) as (ran, tried):
        optimize_values(decoder, tokenizer, requests, TEMPLATES, 0, settings)
    failed = len(tried) - len(ran)
    # In preparing alone: each step runs groups of a size that fits.
    assert 0 < failed < 20


@pytest.mark.slow
def test_keys_and_scores_too(material):
    decoder, tokenizer, requests = material
    texts = [tokenizer(request.rewrite_prompt + " " + request.target_new)["input_ids"] for request in requests]
    keys = compute_keys(decoder, tokenizer, requests, TEMPLATES, 0)
    scores = score_tokens(decoder, texts, [1] * len(texts))
    with room_for(decoder.model, 2) as (ran, _):
        fewer_keys = compute_keys(decoder, tokenizer, requests, TEMPLATES, 0)
        fewer_scores = score_tokens(decoder, texts, [1] * len(texts))
    assert max(ran) <= 2
    assert torch.allclose(fewer_keys.mean, keys.mean, rtol=0, atol=1e-12)
    assert torch.allclose(fewer_scores.log_probs, scores.log_probs, rtol=0, atol=1e-12)
