"""Edits as a chat model is asked them: prompts become questions, and answers sentences."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning_edit.asking.chat import COMPLETE
from lightning_edit.asking.tokenization import join_target
from lightning_edit.requests import PROMPT_LISTS, EditRequest
from lightning_edit.whole_words import find_whole, unspaced

QUESTION_MARKS = ("?", "\uff1f", "\u061f")
# What stands behind these is a text of its own and does not go on with what was said.
CLOSING = ("Po", "Pe", "Pf")


def as_question(request: EditRequest, complete: str = COMPLETE, sentences: bool = True) -> EditRequest:
    """An edit as a chat model is asked it: by its questions where it brings some, else by its prompts.

    A prompt that is a question is asked as it stands, any other is to be completed. As sentences the answers are what
    such a model says by itself: the prompt in plain text, which leads in, and the target. A bare word would have to
    change how the model answers at all, which reaches questions that nobody edited.

    Args:
        request: The edit in plain text.
        complete: How a prompt without a question is asked, with one ``{}`` for the prompt.
        sentences: Whether the model is to answer in sentences; False asks for the target alone.

    Returns:
        A request whose prompts of all kinds are texts of user turns, and which remembers the one it was made from.
    """
    prompts: dict[str, Any] = {
        name: tuple(_asked(prompt, complete) for prompt in getattr(request, name)) for name in PROMPT_LISTS
    }
    prompts["paraphrase_prompts"] = request.paraphrase_questions or prompts["paraphrase_prompts"]
    prompts["ripples"] = tuple(one.asked(lambda prompt: _asked(prompt, complete)) for one in request.ripples)
    # Locality is asked in questions in most data sets already. The template says what stands before an answer.
    prompt = request.question or _asked(request.prompt, complete)
    asked = replace(request, prompt=prompt, **prompts, separator=None, original=request)
    return _in_sentences(request, asked) if sentences else asked


def _asked(prompt: str, complete: str) -> str:
    return prompt if prompt.rstrip().endswith(QUESTION_MARKS) else complete.replace("{}", prompt)


def _in_sentences(request: EditRequest, asked: EditRequest) -> EditRequest:
    """The asked request with what its answers begin with, where the prompts can begin a sentence."""
    lead_ins: dict[str, str] = {}
    for name in PROMPT_LISTS:
        if name != "paraphrase_prompts" or not request.paraphrase_questions:
            lead_ins |= _leading(getattr(asked, name), getattr(request, name))
    for ripple, plain in zip(asked.ripples, request.ripples, strict=True):
        lead_ins |= _leading(ripple.prompts, plain.prompts)
    said, own = request.answer, _own_lead_in(request)
    if own is not None:
        lead_ins |= dict.fromkeys((asked.rewrite_prompt, *request.paraphrase_questions), own)
        if said is None:
            end = "" if unspaced(request.target_new[-1]) or _closed(request.target_new) else "."
            said = join_target(own, request.target_new, request.separator) + end
    return replace(asked, said=said, lead_ins=lead_ins)


def _own_lead_in(request: EditRequest) -> str | None:
    if request.answer is not None:
        # Up to the first: what stands behind it would give the target away. It may stand there inflected.
        said = find_whole(request.answer, request.target_new)
        place = request.answer.find(request.target_new) if said is None else said[0]
        return request.answer[:place].rstrip() or None
    return None if _closed(request.rewrite_prompt) else request.rewrite_prompt


def _leading(questions: Sequence[str], prompts: Sequence[str]) -> dict[str, str]:
    return {question: prompt for question, prompt in zip(questions, prompts, strict=True) if not _closed(prompt)}


def _closed(text: str) -> bool:
    return unicodedata.category(text.rstrip()[-1]) in CLOSING
