"""What a fact of the training says of a model that was edited with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.asking.tokenization import check_lengths, encode_target, separator_before
from lightning_edit.errors import EditError
from lightning_edit.gradients.passes import Answered
from lightning_edit.requests import EditRequest


@dataclass(frozen=True)
class Lesson:
    """A fact, and the texts by which an edit of it is judged.

    Args:
        request: The edit.
        same: The new answer to its paraphrases, or where there are none to its own prompt.
        unrelated: Answers to other prompts, of which the model is to think as before.
    """

    request: EditRequest
    same: tuple[Answered, ...]
    unrelated: tuple[Answered, ...]


def lessons_of(requests: Sequence[EditRequest], tokenizer: Any, context: int | None, locality: bool) -> list[Lesson]:
    """The lessons of records: their paraphrases, and their neighborhood and locality prompts.

    Args:
        requests: The edits, as they are asked.
        tokenizer: A fast tokenizer, or a `ChatTokenizer`.
        context: How many tokens the model can read.
        locality: Whether unrelated prompts are needed.

    Raises:
        EditError: If a text is too long, or no record has unrelated prompts.
    """
    lessons = []
    for request in requests:
        prompts = request.paraphrase_prompts or (request.rewrite_prompt,)
        others = [
            *request.locality,
            *((p, request.target_true) for p in request.neighborhood_prompts if request.target_true),
        ]
        same = tuple(_encoded(tokenizer, request, prompt, request.target_new) for prompt in prompts)
        unrelated = tuple(_encoded(tokenizer, request, prompt, answer) for prompt, answer in others)
        lengths = [len(ids) - 1 for ids, _ in (*same, *unrelated)]
        check_lengths(lengths, [request.name] * len(lengths), context)
        lessons.append(Lesson(request, same, unrelated if locality else ()))
    if locality and not any(lesson.unrelated for lesson in lessons):
        raise EditError(
            "None of the facts has unrelated prompts, which a net learns to leave alone: give `neighborhood_prompts` "
            "with `target_true`, or `locality`, or train without them (--locality 0)."
        )
    return lessons


def _encoded(tokenizer: Any, request: EditRequest, prompt: str, answer: str) -> Answered:
    return encode_target(tokenizer, prompt, answer, separator_before(request, prompt, answer))
