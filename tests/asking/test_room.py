"""How many tokens a reply gets: enough for what is before the answer, and for all of it."""

import pytest

from lightning_edit.asking.questions import as_question
from lightning_edit.asking.room import room_for, room_of
from lightning_edit.asking.tokenization import encode_prompt
from tests.small_models import make_request

LONG = "1984 was the year in which she left the country for good. " * 6


@pytest.mark.parametrize("separator", [None, "\n", "\n\n", "\nAnswer: "])
@pytest.mark.parametrize("answer", [LONG.strip(), '"' + LONG.strip()])
def test_a_long_answer_fits_with_what_separates_it(separator, answer, tiny_tokenizer):
    request = make_request(separator=separator, target_new=answer)
    prompt = request.rewrite_prompt
    whole = prompt + (" " if separator is None else separator) + answer
    wanted = len(encode_prompt(tiny_tokenizer, whole)) - len(encode_prompt(tiny_tokenizer, prompt))
    assert room_of(tiny_tokenizer, 20, request, prompt, answer) == wanted > 60


def test_what_leads_in_has_room_beside_a_short_answer(tiny_tokenizer):
    asked = as_question(make_request(target_new="Rome"))
    lead_in = asked.lead_ins[asked.rewrite_prompt]
    beside = len(encode_prompt(tiny_tokenizer, lead_in))
    assert room_of(tiny_tokenizer, 20, asked, asked.rewrite_prompt, "Rome") == 20 + beside
    assert room_for(tiny_tokenizer, 20, "Where is it?", "Rome") == 20
    assert room_for(tiny_tokenizer, 20, "Where is it?", LONG, lead_in) > 60 + beside
