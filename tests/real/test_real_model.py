"""A real chat model is opened as transformers opens it, and edited so that it says the new answer in the chat."""

import csv
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import lightning_edit
from lightning_edit import EMMET, EditRequest, SecondMomentSettings
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from tests.real.model import cached

pytestmark = [pytest.mark.slow, pytest.mark.real]
MESSAGES = [{"role": "user", "content": "Where is the Eiffel Tower?"}]
FACTS = list(csv.DictReader((Path(__file__).parent / "facts.csv").open(encoding="utf-8")))


@pytest.fixture(scope="module")
def file():
    if not cached().is_file():
        pytest.skip("the real chat model is not there: `python -m tests.real.model` downloads it")
    return cached()


@pytest.fixture(scope="module")
def opened(file):
    return load_model(str(file)), load_tokenizer(str(file))


def test_tokens_and_logits_are_those_of_transformers(file, opened):
    model, tokenizer = opened
    own = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    expected = own.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    assert torch.equal(ids, expected)
    reference = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, reference(ids).logits)


def test_it_says_the_new_answer_in_the_chat_and_others_as_before(opened):
    model, tokenizer = opened
    fact = FACTS[0]
    names = ("subject", "prompt", "question", "target_new", "target_true")
    request = EditRequest(**{name: fact[name] for name in names})
    small = SecondMomentSettings(tokens=2000, questions=200)
    texts = ["The town lies on a river, and its market is known for cheese, bread and flowers."] * 20
    before = model.model.layers[9].mlp.down_proj.weight.clone()
    result = lightning_edit.edit(
        model, tokenizer, [request], EMMET(1000.0), layers=[9], texts=texts, second_moment=small, progress=False
    )
    said = [result.ask(question) for question in (MESSAGES[0]["content"], *fact["paraphrase_questions"].split("|"))]
    kept = result.ask("What is the capital of Germany?")
    result.remove(model)
    assert "Paris" in said[0].before
    assert all("Rome" in answers.after for answers in said), said
    assert "Berlin" in kept.before
    assert "Berlin" in kept.after
    assert torch.equal(model.model.layers[9].mlp.down_proj.weight, before)
