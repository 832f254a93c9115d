"""Where subject and target are found in tokens, for every way a tokenizer may behave."""

import pytest
from transformers import ByT5Tokenizer

from lightning_edit import ContextTemplates, ValueSettings
from lightning_edit.asking.tokenization import (
    check_lengths,
    encode,
    encode_subject,
    encode_target,
    join_target,
    require_offsets,
)
from lightning_edit.errors import EditError
from lightning_edit.models.decoder import find_decoder
from lightning_edit.values.optimize import encode_texts, optimize_values
from tests.small_models import BOS, EOS, make_gpt2, make_request, make_tokenizer

TOKENIZERS = [
    pytest.param({}, id="plain"),
    pytest.param({"bos": True}, id="bos"),
    pytest.param({"eos": True}, id="eos"),
    pytest.param({"bos": True, "eos": True}, id="bos-eos"),
    pytest.param({"padding_side": "left"}, id="left"),
    pytest.param({"token_type_ids": True}, id="token-type-ids"),
    pytest.param({"trim_offsets": False}, id="untrimmed-offsets"),
]
# Template, subject, and the text up to the subject's end as the tokens must give it back.
PLACES = [
    pytest.param("{} is in Paris", "The Eiffel Tower", "The Eiffel Tower", id="at-the-start"),
    pytest.param("Everyone knows {}", "Anna", "Everyone knows Anna", id="at-the-end"),
    pytest.param("Anna and {} are Anna", "Anna", "Anna and Anna", id="three-times"),
    pytest.param("Paris is near {}", "Paris", "Paris is near Paris", id="also-before"),
    pytest.param("{} is near Paris", "Paris", "Paris", id="also-after"),
    pytest.param("{}'s brother went", "Anna", "Anna", id="possessive"),
    pytest.param("The old {}, which", "violin", "The old violin", id="comma"),
    pytest.param("{} speaks", "Zoë Đặng", "Zoë Đặng", id="accents"),
    pytest.param("In {} they speak", "東京都", "In 東京都", id="cjk"),
    pytest.param("I like {}!", "👩‍🚀🎻", "I like 👩‍🚀🎻", id="emoji"),
    pytest.param("東京 {} 東京", "Anna", "東京 Anna", id="after-multi-byte"),
    pytest.param("Braces {} here", "a {} {b}", "Braces a {} {b}", id="braces"),
    pytest.param("{x} and {}", "Anna", "{x} and Anna", id="braces-in-the-prompt"),
]


@pytest.mark.parametrize("settings", TOKENIZERS)
@pytest.mark.parametrize(("template", "subject", "upto"), PLACES)
@pytest.mark.parametrize("target", [None, "Rome", "the old musician from Łódź"])
def test_the_last_token_of_the_subject_is_found(settings, template, subject, upto, target):
    tokenizer = make_tokenizer(**settings)
    found = encode_subject(tokenizer, template, subject, target)
    assert tokenizer.decode(found.ids[: found.subject_last + 1], skip_special_tokens=True) == upto
    # One token fewer and the subject is not complete.
    assert len(tokenizer.decode(found.ids[: found.subject_last], skip_special_tokens=True).rstrip("\ufffd")) < len(upto)
    assert tokenizer.decode(found.ids[found.target_start :]) == (f" {target}" if target else "")


@pytest.mark.parametrize("settings", TOKENIZERS)
def test_a_leading_bos_stays_and_a_trailing_eos_goes(settings):
    tokenizer = make_tokenizer(**settings)
    ids, offsets = encode(tokenizer, "Paris is here")
    assert len(ids) == len(offsets)
    assert tokenizer.decode(ids) == (BOS if "bos" in settings else "") + "Paris is here"
    assert (tokenizer.eos_token_id in tokenizer("Paris is here")["input_ids"]) == ("eos" in settings)


def test_special_tokens_of_the_text_itself_stay():
    tokenizer = make_tokenizer(eos=True)
    ids, _ = encode(tokenizer, f"Paris{EOS}")
    assert ids == [*make_tokenizer()("Paris")["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize("settings", TOKENIZERS)
@pytest.mark.parametrize("prompt", ["Paris is in", "Paris is in ", "Paris is in\n", "東京", "Is it Anna?"])
@pytest.mark.parametrize("target", ["Rome", "the old violin", "Łódź", "東京都", "42!"])
def test_the_target_is_all_that_follows_the_prompt(settings, prompt, target):
    tokenizer = make_tokenizer(**settings)
    ids, start = encode_target(tokenizer, prompt, target)
    assert tokenizer.decode(ids[start:]).strip() == target
    assert tokenizer.decode(ids[:start], skip_special_tokens=True).strip() == prompt.strip()
    assert tokenizer.decode(ids, skip_special_tokens=True) == join_target(prompt, target)


@pytest.mark.parametrize(
    ("prompt", "joined"), [("It is", "It is Rome"), ("It is ", "It is Rome"), ("It is\n", "It is\nRome")]
)
def test_one_space_separates_prompt_and_target(prompt, joined):
    assert join_target(prompt, "Rome") == joined


@pytest.mark.parametrize("target", ["", " "])
def test_an_answer_without_tokens_is_refused(target):
    with pytest.raises(EditError, match="leaves no tokens to predict in 'Paris is '"):
        encode_target(make_tokenizer(), "Paris is ", target.strip())


def test_an_answer_that_would_open_the_text_is_refused_unless_a_bos_does():
    with pytest.raises(EditError, match="leaves no tokens to predict"):
        encode_target(make_tokenizer(), "", "Rome")
    ids, start = encode_target(make_tokenizer(bos=True), "", "Rome")
    assert (start, len(ids) > 1) == (1, True)


def test_a_slow_tokenizer_is_refused_with_a_remedy():
    with pytest.raises(EditError, match=r"^ByT5Tokenizer gives no character offsets.*Load the fast tokenizer"):
        require_offsets(ByT5Tokenizer())
    require_offsets(make_tokenizer())


@pytest.mark.parametrize(("context", "fits"), [(5, True), (4, False), (None, True)])
def test_a_text_longer_than_the_context_is_refused_by_name(context, fits):
    if fits:
        check_lengths([3, 5], ["first", "second"], context)
        return
    with pytest.raises(EditError, match=r"^second has 5 tokens but the model's context holds 4\. Shorten it"):
        check_lengths([3, 5], ["first", "second"], context)


def test_an_edit_whose_template_is_too_long_is_refused_by_name():
    templates = ContextTemplates(("{}", "Paris " * 80 + "{}"))
    with pytest.raises(EditError, match=r"^record 7 with its longest context template has \d+ tokens .* holds 64"):
        optimize_values(
            find_decoder(make_gpt2()), make_tokenizer(), [make_request()], templates, layer=1, settings=ValueSettings()
        )


def test_the_texts_of_a_value_are_its_templates_and_the_kl_prompt():
    tokenizer, templates = make_tokenizer(), ContextTemplates(("{}", "I think. {}"))
    requests = [make_request(), make_request(subject="Anna", prompt="{} plays the", target_new="violin")]
    rows = encode_texts(tokenizer, requests, templates, "{} is a", context=64)
    assert [(edit, tokenizer.decode(text.ids)) for edit, text in rows] == [
        (0, "The Eiffel Tower is located in the city of Rome"),
        (0, "I think. The Eiffel Tower is located in the city of Rome"),
        (0, "Eiffel Tower is a"),
        (1, "Anna plays the violin"),
        (1, "I think. Anna plays the violin"),
        (1, "Anna is a"),
    ]
    assert all(text.target_start == len(text.ids) for _, text in (rows[2], rows[5]))
