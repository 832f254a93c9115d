import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import lightning_edit
from lightning_edit import (
    EMMET,
    MEMIT,
    ContextTemplates,
    EditError,
    EditRequest,
    Gradient,
    ModelUpdate,
    ValueSettings,
    load_memories,
)
from lightning_edit.solvers import Ridge, Sum
from lightning_edit.tiny import MODEL_PATH

FACT = EditRequest("Hulbin Larrem", "{} earns a living as a", "roofer")
GIVEN = {
    "solver by name": {"solver": "EMMET"},
    "solver as class": {"solver": EMMET},
    "source as class": {"source": Gradient},
    "values as dictionary": {"values": {"steps": 5}},
    "second moment as dictionary": {"second_moment": {"tokens": 100}},
    "templates as list": {"templates": ["{}"]},
    "sites": {"sites": "nonsense"},
    "moments as list": {"moments": [1]},
    "progress": {"progress": "yes"},
    "texts as a text": {"texts": "A single text."},
    "texts as a number": {"texts": 5},
}


@pytest.fixture(scope="module")
def loaded():
    return AutoModelForCausalLM.from_pretrained(MODEL_PATH), AutoTokenizer.from_pretrained(MODEL_PATH)


def attempt(model, tokenizer, requests=(FACT,), **given):
    with pytest.raises(EditError) as refused:
        lightning_edit.edit(model, tokenizer, requests, layers=[0], **{"progress": False, **given})
    return str(refused.value)


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_an_argument_of_another_kind_is_refused_by_its_name(loaded, given):
    assert f"`{next(iter(given))}`" in attempt(*loaded, **given)


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        (FACT, "put it into a list"),
        ("facts.csv", "OwnEdits"),
        (42, "a list of EditRequest"),
        ([FACT, {"subject": "Hulbin Larrem"}], "entry 1"),
    ],
    ids=("a single one", "a path", "a number", "a dictionary"),
)
def test_what_is_no_list_of_edits_is_refused_with_what_to_write(loaded, requests, said):
    assert said in attempt(*loaded, requests)


def test_a_model_in_the_tokenizers_place_is_refused(loaded):
    assert "`model` must be" in attempt(loaded[1], loaded[0])


def test_a_text_that_is_none_is_refused(loaded):
    one = ContextTemplates(("{}",))
    assert "got 2" in attempt(*loaded, texts=["Hulbin Larrem earns a living.", 2], templates=one)


def test_a_sum_cannot_preserve_earlier_edits(loaded):
    assert "`previous_keys`: Sum" in attempt(*loaded, solver=Sum(), source=Gradient(), previous_keys=True)


def test_settings_of_a_search_that_is_not_made_are_named(loaded, caplog):
    given = {"solver": Ridge(), "source": Gradient(normalize="none"), "values": ValueSettings(steps=2)}
    lightning_edit.edit(*loaded, [FACT], layers=[0], progress=False, **given)
    assert "no effect: values.steps" in caplog.text


def test_an_edit_that_is_tested_by_its_own_prompt_is_warned_of(loaded, caplog):
    own = EditRequest(FACT.subject, FACT.prompt, FACT.target_new, neighborhood_prompts=(FACT.rewrite_prompt,))
    attempt(*loaded, [own], texts="A single text.")
    assert "1 edit has the edited prompt itself among its prompts about others" in caplog.text


SQUARE = torch.eye(1024, dtype=torch.float64)
NO_MOMENTS = {
    "negative": (-SQUARE, "is not positive definite"),
    "negative within": (SQUARE - 0.01, "is not positive definite: its smallest eigenvalue is -9.24"),
    "not symmetric": (torch.triu(torch.ones(1024, 1024)) + 1024 * SQUARE, "is not symmetric"),
    "whole numbers": (SQUARE.long(), "of floating point numbers, got torch.int64 (1024, 1024)"),
    "truth values": (SQUARE.bool(), "of floating point numbers, got torch.bool"),
    "not finite": (SQUARE / 0, "holds numbers that are not finite"),
}


@pytest.mark.parametrize(("moment", "said"), NO_MOMENTS.values(), ids=NO_MOMENTS)
def test_what_is_no_second_moment_is_refused(loaded, moment, said):
    assert said in attempt(*loaded, moments={0: moment})


def test_a_moment_in_half_precision_and_with_gradients_is_taken(loaded):
    keys = torch.randn(4096, 1024, generator=torch.Generator().manual_seed(0))
    moment = ((keys.T @ keys) / 4096).bfloat16()
    updates = []
    for given in (moment.double(), moment.requires_grad_()):
        result = lightning_edit.edit(*loaded, [FACT], layers=[0], moments={0: given}, progress=False)
        updates.append(result.layers[0].factors.dense())
        result.remove()
    assert torch.equal(*updates) and bool(updates[0].any())
    assert moment.requires_grad and moment.grad is None


def test_moments_and_texts_are_not_given_together(loaded):
    assert attempt(*loaded, moments={0: SQUARE}, texts=["A text."]).endswith("Give one of them.")


@pytest.mark.parametrize(("given", "called"), [({"texts": []}, "texts"), ({"texts": ["a b"]}, "texts")])
def test_messages_name_the_arguments_of_a_call(loaded, given, called):
    assert f"(`{called}` in Python)" in attempt(*loaded, **given)


def test_a_model_without_a_chat_template_is_told_the_argument(loaded):
    assert "(`chat=False` in Python)" in attempt(*loaded, chat=True)


@pytest.mark.parametrize("layers", [[0.0], [True], True, 0.5, numpy.array([True]), ["0"]], ids=repr)
def test_layers_that_are_no_whole_numbers_are_refused(loaded, layers):
    with pytest.raises(EditError, match=r"^`layers` must be auto or whole numbers of blocks such as \[5\], got "):
        lightning_edit.edit(*loaded, [FACT], layers=layers, progress=False)


def test_layers_of_an_array_are_numbers_and_paths_must_be_paths(loaded):
    how = {"texts": ["A few words of text."], "solver": MEMIT(1.0, ridge=1.0), "values": ValueSettings(steps=2)}
    result = lightning_edit.edit(*loaded, [FACT], layers=numpy.array([0]), progress=False, **how)
    assert [*result.layers] == [0] and type(next(iter(result.layers))) is int
    for path in ("", " ", 5, None):
        with pytest.raises(EditError, match=r"^`path` must be a path such as update\.safetensors"):
            result.save(path)
        with pytest.raises(EditError, match=r"^`path` must be a path such as update\.safetensors"):
            ModelUpdate.load(path)
        with pytest.raises(EditError, match=r"^`folder` must be a path such as lora"):
            result.to_lora(path)
        with pytest.raises(EditError, match=r"^`folder` must be a path such as memories"):
            load_memories(path, loaded[0])
    with pytest.raises(EditError, match=r"is a folder\. Name a file in it"):
        result.save(".")
    with pytest.raises(EditError, match="half of a surrogate pair"):
        result.ask("a\ud800")
    result.remove()


def test_half_a_character_in_texts_is_refused(loaded):
    assert "half of a surrogate pair" in attempt(*loaded, texts=["a\ud800"])
    with pytest.raises(EditError, match="half of a surrogate pair"):
        ContextTemplates(("{}", "\ud800 {}"))
