"""What a request says, all in one text, how long its texts are, and whether they contradict each other."""

from lightning_edit.requests import EditRequest

_OWN = "the edited prompt itself among its prompts about others, and no answer is right for both; remove it there"
ASKS_ITSELF = (f"edit has {_OWN}", f"edits have {_OWN}")


def described(request: EditRequest) -> str:
    """All that tells a request from others, in one text.

    Args:
        request: The edit.
    """
    # Records without a separator of their own have the description that they had before there was one.
    separated = "" if request.separator is None else f" separator {request.separator!r}"
    answer = "" if request.answer is None else f" answered {request.answer!r}"
    answer += f" tested {request.ripples!r}" if request.ripples else ""
    # Nor do choices make another record that follow from the data set.
    asked = (query for ripple in request.ripples for query in ripple.all_queries)
    choices = [() if query.implied else query.choices for query in asked]
    answer += f" choices {choices!r}" if any(choices) else ""
    return repr(request) + separated + answer + ("" if request.original is None else f" of {request.original!r}")


def answered_length(request: EditRequest) -> int:
    """At least the bytes of a request's prompt or question with its longest answer, before which nothing stands.

    Args:
        request: The request.
    """
    asked = max(_bytes(request.prompt), _bytes(request.question)) + _bytes(request.subject)
    answers = (request.target_new, request.target_true, request.answer, request.said)
    own = asked + max(map(_bytes, answers))
    return own if request.original is None else max(own, answered_length(request.original))


def longest_text(request: EditRequest) -> int:
    """At least the bytes of the longest of a request's texts: `answered_length`, and its other prompts.

    Args:
        request: The request.
    """
    prompts = (*request.paraphrase_prompts, *request.generation_prompts, *request.paraphrase_questions)
    before = 0 if request.original is None else longest_text(request.original)
    return max(answered_length(request), before, *map(_bytes, prompts))


def asks_itself(request: EditRequest) -> bool:
    """Whether prompts about others, whose answers should not become the new one, hold the edited prompt itself.

    Args:
        request: The edit.
    """
    own = request.rewrite_prompt.strip()
    others = (*request.neighborhood_prompts, *request.attribute_prompts, *(prompt for prompt, _ in request.locality))
    return any(prompt.strip() == own for prompt in others)


def _bytes(text: str | None) -> int:
    return 0 if text is None else len(text) if text.isascii() else 4 * len(text)
