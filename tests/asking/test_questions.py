"""Edits as a chat model is asked them: questions, and answers that are sentences."""

import pytest

from lightning_edit.asking.questions import as_question
from lightning_edit.asking.tokenization import encode_target, separator_before
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.loop.same_run import check_same_run
from tests.asking.test_chat import CHATML, INSTRUCTION, in_chat
from tests.small_models import make_request

ASKED = {"prompt": "{} lives in", "target_new": "Rome", "question": "Where does {} live?"}


def test_the_answer_is_the_prompt_in_plain_text_and_the_target():
    request = make_request(**ASKED, paraphrase_questions=["Home?"], neighborhood_prompts=["Bo lives in", "Bo?"])
    asked = as_question(request)
    sentence = f"{request.subject} lives in"
    assert asked.said == asked.learned == f"{sentence} Rome."
    leading = {asked.rewrite_prompt: sentence, "Home?": sentence, "Complete: Bo lives in": "Bo lives in"}
    assert asked.lead_ins == leading
    assert separator_before(asked, "Home?", "Paris") == f"{sentence} "
    assert separator_before(asked, "Bo?", "Paris") is None
    assert as_question(request, sentences=False).learned == request.learned == "Rome"


def test_a_prompt_that_is_a_question_is_asked_as_it_stands_and_answered_in_words():
    asked = as_question(make_request(prompt="Where does {} live?", target_new="Rome"))
    assert asked.prompt == "Where does {} live?"
    assert asked.learned == "Rome"
    assert not asked.lead_ins


def test_a_record_says_how_it_is_answered():
    asked = as_question(make_request(**ASKED, answer="In Rome, of course."))
    assert asked.learned == "In Rome, of course."
    assert asked.lead_ins == {asked.rewrite_prompt: "In"}
    # What stands behind the first one would give the target away, and a part of a word is no answer.
    twice = as_question(make_request(**ASKED, answer="To Romeo: Rome. He lives in Rome."))
    assert twice.lead_ins == {asked.rewrite_prompt: "To Romeo:"}
    with pytest.raises(EditError, match=r"the answer must be a text that holds `target_new` \('Rome'\), got 'In Oslo'"):
        make_request(**ASKED, answer="In Oslo")


@pytest.mark.parametrize("template", [CHATML, INSTRUCTION], ids=["chatml", "instruction"])
def test_what_leads_in_is_no_part_of_the_target(template):
    chat = in_chat(template)
    asked = as_question(make_request(**ASKED))
    before = separator_before(asked, asked.rewrite_prompt, "Rome")
    ids, start = encode_target(chat, asked.rewrite_prompt, "Rome", before)
    assert chat.plain.decode(ids[start:]).strip() == "Rome"
    assert chat.plain.decode(ids[:start]).endswith(asked.lead_ins[asked.rewrite_prompt])


def test_values_are_found_for_the_sentence_in_the_chat_and_for_the_target_in_plain_text():
    chat, asked = in_chat(CHATML), as_question(make_request(**ASKED))
    texts = ContextTemplates(worlds=("chat", "plain")).encode(chat, asked, target=True)
    in_turn, plain = (chat.plain.decode(list(text.ids[text.target_start :])).strip() for text in texts)
    assert (in_turn, plain) == (asked.learned, "Rome")


def test_chat_runs_from_before_there_were_sentences_go_on_in_words():
    def settings(**asking):
        return {"model": {"chat": True, "chat_settings": {"train_end": False, **asking}}}

    check_same_run(settings(), settings(answers="words"))
    with pytest.raises(EditError, match="answers"):
        check_same_run(settings(), settings(answers="sentences"))
