"""Text that the model generates for its own second moments."""

import logging

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit.keys.own_text import kept_texts, sample_texts
from lightning_edit.tiny import MODEL_PATH


@pytest.fixture(scope="module")
def tiny():
    return AutoModelForCausalLM.from_pretrained(MODEL_PATH), AutoTokenizer.from_pretrained(MODEL_PATH)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_texts_and_leaves_the_random_state(tiny):
    before = torch.random.get_rng_state()
    first = sample_texts(*tiny, tokens=20, seed=3)
    assert first == sample_texts(*tiny, tokens=20, seed=3) != sample_texts(*tiny, tokens=20, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_texts_are_written_once(tiny, tmp_path):
    model, tokenizer = tiny
    written = list[float]()

    def report(_, done, *__, **___):
        written.append(done)

    def texts(seed=0):
        return kept_texts(model, tokenizer, 20, seed, str(tmp_path), report)

    first = texts()
    assert first == sample_texts(model, tokenizer, 20, 0)
    once = len(written)
    assert texts() == first
    assert len(written) == once
    assert texts(seed=1) != first
    # Other weights write another text.
    bias = model.transformer.ln_f.bias
    with torch.no_grad():
        bias += 1
        try:
            assert texts() != first
        finally:
            bias -= 1
    # So does another temperature.
    model.generation_config.temperature, usual = 5.0, model.generation_config.temperature
    try:
        assert texts() != first
    finally:
        model.generation_config.temperature = usual
    (damaged, *_) = sorted(tmp_path.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert texts() == first


def test_no_mask_is_said_to_be_missing(tiny, monkeypatch):
    model, tokenizer = tiny
    assert model.config.pad_token_id == tokenizer.bos_token_id, "only then would transformers warn"
    logger, said = logging.getLogger("transformers.modeling_utils"), []
    # Each warning is given once in a process, by a cache.
    type(logger).warning_once.cache_clear()
    monkeypatch.setattr(logger, "handle", lambda record: logger.filter(record) and said.append(record.getMessage()))
    sample_texts(model, tokenizer, tokens=20, seed=0)
    assert said == []
    type(logger).warning_once.cache_clear()
    model(torch.zeros(1, 2, dtype=torch.long))
    assert ["attention_mask" in message for message in said] == [True]
