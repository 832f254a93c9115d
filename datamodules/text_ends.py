"""Spaces at the ends of texts that a user wrote: between a prompt and its answer there would be one too many."""

from collections.abc import Callable, Mapping
from typing import Any

# A line break at the end of a prompt is meant.
SPACES = " \t\xa0\u3000"
PROMPTS = ("prompt", "question", "answer")
LISTS = (
    "paraphrase_prompts",
    "paraphrase_questions",
    "neighborhood_prompts",
    "attribute_prompts",
    "generation_prompts",
)


def without_spaces(values: Mapping[str, Any], before_answer: bool, changed: Callable[[str], None]) -> dict[str, Any]:
    """The texts of an edit without the spaces at their ends.

    Args:
        values: The fields of an `EditRequest`, unchecked.
        before_answer: Whether spaces before an answer are taken away too: not where nothing separates the two.
        changed: Called with each prompt or question that had spaces at its ends.
    """

    def stripped(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(stripped(part) for part in value)
        if isinstance(value, Mapping):
            # Answers to tests are compared without spaces anyway.
            return {
                name: value[name] if name in ("answers", "kept", "passes") else stripped(value[name]) for name in value
            }
        if not isinstance(value, str):
            return value
        short = value.strip(SPACES) if before_answer else value.lstrip(SPACES)
        if short != value:
            changed(value)
        return short

    names = (*PROMPTS, *LISTS, "locality", "ripples")
    return {name: stripped(value) if name in names else value for name, value in values.items()}
