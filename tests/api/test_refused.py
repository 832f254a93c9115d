import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import lightning_edit
from lightning_edit import EMMET, ContextTemplates, EditError, EditRequest, Gradient, ValueSettings
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
