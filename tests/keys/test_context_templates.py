"""Context templates: what they are, how they weigh, and where generated ones come from."""

import pytest
import torch
from transformers import GenerationConfig

from lightning_edit import ContextTemplates
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import OPENINGS, generate_templates
from tests.small_models import BOS, EOS, make_gpt2, make_llama, make_tokenizer

SIX = ("{}", *(f"{i}. {{}}" for i in range(5)))


@pytest.mark.parametrize("make_model", [make_gpt2, make_llama])
def test_the_same_seed_gives_the_same_texts_and_another_gives_others(make_model):
    model, tokenizer = make_model(), make_tokenizer()
    torch.manual_seed(1)
    first = generate_templates(model, tokenizer, seed=0)
    torch.manual_seed(2)
    assert generate_templates(model, tokenizer, seed=0) == first
    assert generate_templates(model, tokenizer, seed=1) != first


def test_the_models_own_generation_settings_decide_nothing():
    model, tokenizer = make_gpt2(), make_tokenizer()
    expected = [generate_templates(model, tokenizer, seed) for seed in (0, 1)]
    own = GenerationConfig(top_p=0.01, temperature=0.1, repetition_penalty=5.0, eos_token_id=tokenizer.eos_token_id)
    model.generation_config = own
    assert [generate_templates(model, tokenizer, seed) for seed in (0, 1)] == expected
    assert expected[0] != expected[1]
    assert model.generation_config is own


def test_the_random_state_of_the_caller_is_untouched():
    before = torch.get_rng_state()
    generate_templates(make_gpt2(), make_tokenizer(), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", [{}, {"bos": True}, {"token_type_ids": True}], ids=str)
def test_generated_texts_continue_the_openings_and_end_before_the_prompt(settings):
    tokenizer = make_tokenizer(**settings)
    templates = generate_templates(make_gpt2(), tokenizer, seed=0, average="flat")
    assert templates.average == "flat"
    assert templates.texts[0] == "{}"
    assert len(templates.texts) == 1 + len(OPENINGS)
    for opening, text in zip(OPENINGS, templates.texts[1:], strict=True):
        assert text.startswith(opening)
        assert text.endswith(". {}")
        assert len(text) > len(opening + ". {}")
        assert BOS not in text and EOS not in text


def test_a_trailing_eos_of_the_tokenizer_is_not_continued():
    model = make_gpt2()
    plain, ending = (generate_templates(model, make_tokenizer(eos=eos), seed=0) for eos in (False, True))
    assert ending == plain


def test_dropout_of_a_model_in_training_changes_nothing():
    model = make_gpt2(resid_pdrop=0.5, embd_pdrop=0.5)
    expected = generate_templates(model, make_tokenizer(), seed=0)
    assert generate_templates(model.train(), make_tokenizer(), seed=0) == expected
    assert model.training


def test_braces_that_a_model_writes_are_removed():
    model, tokenizer = make_gpt2(), make_tokenizer()
    braces = tokenizer.convert_tokens_to_ids(["{", "}"])
    with torch.no_grad():
        # The hidden state is the same everywhere and points at the two braces.
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(30 * model.transformer.wte.weight[braces].sum(0))
        said = model.generate(input_ids=torch.tensor([[5]]), max_new_tokens=8, do_sample=False, pad_token_id=1)
    assert set(said[0, 1:].tolist()) <= set(braces)
    assert generate_templates(model, tokenizer, seed=0).texts == ("{}", *(f"{word}. {{}}" for word in OPENINGS))


@pytest.mark.parametrize(
    ("texts", "average", "weights"),
    [
        (SIX, "nested", [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]),
        (SIX, "flat", [1 / 6] * 6),
        (("{}",), "nested", [1]),
        (("{}",), "flat", [1]),
        (("{}", "A. {}"), "nested", [0.5, 0.5]),
    ],
)
def test_key_weights_follow_the_average_and_add_up_to_one(texts, average, weights):
    found = ContextTemplates(texts, average).key_weights()
    assert found.tolist() == pytest.approx(weights)
    assert float(found.sum()) == pytest.approx(1, abs=1e-15)
    assert found.dtype == torch.float64


@pytest.mark.parametrize("prompt", ["{} is in", "The {} is {not} a {0}", "Back\\1 {}"])
def test_a_prompt_keeps_its_own_hole_in_every_template(prompt):
    assert ContextTemplates(("{}", "It is so. {}")).apply(prompt) == [prompt, f"It is so. {prompt}"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("{}", "no hole"), "exactly one {} for the prompt, got 'no hole'"),
        (("{}", "{} and {}"), "exactly one {} for the prompt, got '{} and {}'"),
        (("I think. {}", "{}"), r"first context template must be the bare '{}', got \['I think"),
        ((), r"first context template must be the bare '{}', got \[\]"),
    ],
)
def test_unusable_templates_are_refused(texts, message):
    with pytest.raises(EditError, match=message):
        ContextTemplates(texts)
