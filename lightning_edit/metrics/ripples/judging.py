"""Whether a reply is right: says the answers, chooses the right one, or is the answer and nothing else."""

import re
from collections.abc import Sequence

from lightning_edit.metrics.choices import find_answer
from lightning_edit.metrics.generated_text import generated_match
from lightning_edit.metrics.wild.exact_match import exact_match
from lightning_edit.sentences import beginnings

# A model that was shown questions and answers goes on with questions of its own.
_NEXT = re.compile(r"\n\s*(?:Q|Question):")
# Signs and articles make a sentence longer than the answer that it is, but not by so many times and characters.
_LONGER = (4, 64)


def reply_of(continuation: str, lead_in: str = "") -> str:
    """What a model replied: its continuation up to a question of its own, and without what leads in to the answer.

    Args:
        continuation: What it wrote after the prompt.
        lead_in: What an answer in a chat begins with, if anything.
    """
    text = _NEXT.split(continuation, maxsplit=1)[0].strip()
    return text.removeprefix(lead_in).strip() if lead_in else text


def says_all(reply: str, answers: Sequence[Sequence[str]]) -> bool:
    """Whether a reply says every answer in one of its forms.

    RippleEdits' rule (Cohen et al., 2023), but for two things: forms are looked for as whole words, and in the reply
    alone. The published code takes parts of words too, and reads the prompt along. As there, forms of one character
    that is no digit do not count, unless there are no others.

    Args:
        reply: What the model says.
        answers: Of each answer its accepted forms.

    Example:
        >>> says_all("the Swiss franc.", [["franc", "CHF"]]), says_all("Anna and Bo", [["Anna"], ["Carl", "Karl"]])
        (True, False)
    """
    return all(any(generated_match(reply, form) for form in _telling(forms)) for forms in answers)


def chooses(reply: str, answers: Sequence[Sequence[str]], choices: Sequence[str]) -> bool:
    """Whether the first choice that a reply names is the answer; others behind it do not count.

    So a reply that repeats all choices is right no more often than it would be by chance.

    Args:
        reply: What the model says.
        answers: The accepted forms of the only answer, one of which is a choice.
        choices: All choices.

    Example:
        >>> chooses("No. The answer is not Yes.", [["Yes"]], ["Yes", "No"]), chooses("(B)", [["B"]], ["A", "B"])
        (False, True)
    """
    chosen = find_answer(reply, choices)
    return chosen is not None and choices[chosen] in answers[0]


def is_exactly(reply: str, answers: Sequence[Sequence[str]]) -> bool:
    """Whether the first line or sentence of a reply is the answer in one of its forms, and nothing else.

    Case, punctuation, articles and spaces do not count (as in SQuAD; Rajpurkar et al., 2016). MQuAKE's rule. A sentence
    may end at any stop here: whether that behind ``St.`` is one, the answer itself tells. But behind ``Inc.`` and
    initials the next one has to begin, see `beginnings`.

    Args:
        reply: What the model says.
        answers: The accepted forms of the only answer; several answers are never one text exactly.

    Example:
        >>> is_exactly("The  Netherlands. It", [["Netherlands"]]), is_exactly("in Rome", [["Rome"]])
        (True, False)
        >>> is_exactly("J. K. Rowling", [["J. K. Rowling"]]), is_exactly("St. Louis. It", [["St. Louis"]])
        (True, True)
    """
    if len(answers) != 1:
        return False
    longest = max(map(len, answers[0]), default=0) * _LONGER[0] + _LONGER[1]
    return any(exact_match(said, form) for said in beginnings(reply, longest) for form in answers[0])


def _telling(forms: Sequence[str]) -> list[str]:
    return [form for form in forms if len(form) > 1 or form.isdigit()] or list(forms)
