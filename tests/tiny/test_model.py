"""The shipped models: small, in the form the package promises, and sure of the facts of their world."""

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.tiny import MODELS, World
from lightning_edit.tiny.knowledge import answer_scores, measure_knowledge
from lightning_edit.tiny.tokenizer import CONTEXT_LENGTH, build_tokenizer


@pytest.fixture(scope="module")
def world() -> World:
    return World.generate()


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(name: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(name)


@pytest.fixture(scope="module")
def model(name: str) -> PreTrainedModel:
    return load_model(name)


def test_it_is_small_and_in_single_precision(name: str, model: PreTrainedModel) -> None:
    assert sum(path.stat().st_size for path in MODELS[name].iterdir()) <= 10_000_000
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.max_position_embeddings == CONTEXT_LENGTH == 128


def test_all_experts_are_at_work(world: World) -> None:
    model, tokenizer = load_model("tiny-moe"), load_tokenizer("tiny-moe")
    assert (model.config.num_experts, model.config.num_experts_per_tok) == (8, 2)
    texts = tokenizer(world.sentences()[:300], padding=True, return_tensors="pt")
    routes = model(**texts, output_router_logits=True).router_logits
    real = texts["attention_mask"].flatten().bool()
    for logits in routes:
        share = logits[real].topk(2).indices.flatten().bincount(minlength=8) / (2 * real.sum())
        assert share.min() >= 0.04 and share.max() <= 0.3


@pytest.mark.slow
def test_its_tokenizer_is_the_one_the_world_builds(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    built = build_tokenizer(world)
    assert built.get_vocab() == tokenizer.get_vocab()
    texts = [*world.sentences()[:500], "braces {} and\tbytes é 漢字", " leading space", "<|endoftext|>"]
    for text in texts:
        assert built(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_its_tokenizer_tells_a_leading_space(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer(" flute")["input_ids"] != tokenizer("flute")["input_ids"]
    assert tokenizer.is_fast
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.pad_token_id is not None
    encoding = tokenizer("The cup", return_offsets_mapping=True)
    assert len(encoding["offset_mapping"]) == len(encoding["input_ids"]) == 2


@pytest.mark.slow
def test_it_knows_its_world(world: World, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    known = measure_knowledge(model, tokenizer, world)
    assert known["rewrite/known"] >= 0.99
    assert known["paraphrase/known"] >= 0.97
    assert known["held_out/known"] >= 0.97
    assert known["rewrite/probability"] >= 0.95


def test_it_knows_facts_behind_other_text(
    world: World, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    facts = world.facts[::10]
    prompts = [
        "Therefore the old cup stood near the river. " + world.prompts(fact, held_out=False)[0] for fact in facts
    ]
    greedy, _ = answer_scores(model, tokenizer, prompts, [fact.answer for fact in facts])
    assert greedy.float().mean() >= 0.97


def test_scores_are_those_of_one_prompt_at_a_time(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    prompts, answers = ["The old", "I was happy when the woman"], ["cup", "came to"]
    _, probability = answer_scores(model, tokenizer, prompts, answers)
    for prompt, answer, actual in zip(prompts, answers, probability, strict=True):
        ids = tokenizer(f"{prompt} {answer}", return_tensors="pt")["input_ids"]
        count = len(tokenizer(" " + answer)["input_ids"])
        log_p = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -count - 1 : -1].log_softmax(-1)
        expected = log_p.gather(-1, ids[0, -count:, None]).mean().exp()
        torch.testing.assert_close(actual, expected.detach())
