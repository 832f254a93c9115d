"""Answers in the model's own words: what it says to an edit's question by itself, with the new target in it."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lightning_edit.asking.generation import generate
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.sentences import first_sentence
from lightning_edit.whole_words import find_whole, unspaced

logger = logging.getLogger(__name__)

NEW_TOKENS = 32


def own_answer(request: EditRequest, text: str) -> str | None:
    """What a model said to an edit's question, up to the old answer, and the new one in its place.

    Args:
        request: The edit as it is asked, see `as_question`.
        text: What the unedited model said to it.

    Returns:
        The sentence, e.g. ``"Darmstadt is a city in Peru."``. None where the first sentence does not name the subject
        and after it the old answer: what is said there is about something else.
    """
    new, old, subject = request.target_new, request.target_true, request.subject
    if old is None or not subject:
        return None
    # However short: what stands after an "Italy." may contradict it.
    sentence = first_sentence(text, words=1)
    named = sentence.find(subject)
    after = -1 if named < 0 else named + len(subject)
    found = None if after < 0 else find_whole(sentence, old, after)
    if found is None or new in sentence[: found[0]]:
        return None
    end = "" if unspaced(new[-1]) or new[-1] in ".!?" else "."
    return sentence[: found[0]] + new.strip() + end


def own_answers(
    decoder: Decoder, tokenizer: Any, requests: Sequence[EditRequest], report: Report = silent
) -> list[str | None]:
    """What the model is to say of each edit, in its own words: it is asked each question once, greedily.

    Of all that makes an answer new, only the target then is: the rest is what the model says anyway, so less of it has
    to be changed than for a sentence of somebody else's.

    Args:
        decoder: The unedited model.
        tokenizer: Its tokenizer, in a chat.
        requests: The edits as they are asked.
        report: Called with the number of questions done.

    Returns:
        For each edit the text, or None where it is to be learned as it stands: the record brings its own ``answer``, or
        see `own_answer`.
    """
    asked = [i for i, request in enumerate(requests) if request.answer is None and request.target_true is not None]
    answers: list[str | None] = [None] * len(requests)
    prompts = [requests[i].rewrite_prompt for i in asked]
    for i, text in zip(asked, generate(decoder, tokenizer, prompts, NEW_TOKENS, report=report), strict=True):
        answers[i] = own_answer(requests[i], text)
    found = sum(answer is not None for answer in answers)
    logger.warning(
        "answers: %d of %d edits are learned in the model's own sentence, the others as their prompt and target.",
        found,
        len(requests),
    )
    return answers


def answering(requests: Iterable[EditRequest], answers: Sequence[str | None]) -> Iterator[EditRequest]:
    """Edits that are to learn other answers; what is measured of them stays as it is.

    Args:
        requests: The edits as they are asked.
        answers: One for each; None leaves it as it stands.
    """
    pairs = zip(requests, answers, strict=True)
    return (request if said is None else replace(request, said=said) for request, said in pairs)
