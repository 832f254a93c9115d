"""General prompts: what a model is asked that has nothing to do with an edit, and what a right answer holds."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from lightning_edit.probes.split import judges
from lightning_edit.probes.subjects import FOLDER, subjects
from lightning_edit.storage.user.json import json_lines
from lightning_edit.whole_words import says_one_of


@dataclass(frozen=True)
class GeneralPrompt:
    """A prompt, and what is accepted as an answer.

    Args:
        prompt: The complete prompt.
        answers: Any one of them makes an answer right; empty where the prompt is open.
        kind: "fact", "arithmetic", "instruction", "code", "language" (in other languages), "talk" or "reasoning".
    """

    prompt: str
    answers: tuple[str, ...]
    kind: str

    def answered_by(self, text: str) -> bool | None:
        """Whether a text holds an accepted answer as words of its own, whatever their case; None for an open prompt.

        Args:
            text: What a model said.
        """
        return says_one_of(text, self.answers) if self.answers else None


def general_prompts() -> list[GeneralPrompt]:
    """All shipped general prompts, of both halves."""
    return [
        GeneralPrompt(record["prompt"], tuple(record["answers"]), record["kind"])
        for record, _ in json_lines(FOLDER / "general.jsonl")
    ]


def judging_prompts() -> list[GeneralPrompt]:
    """General prompts to judge a model by.

    The half of a prompt is that of the public subjects it names, so that the other half says nothing about them; if it
    names subjects of both halves, it judges. The half of one that names none is its own, see `split.judges`.
    """
    named = _named_halves()
    return [prompt for prompt in general_prompts() if _prompt_judges(prompt.prompt, named)]


def preserving_prompts() -> list[GeneralPrompt]:
    """General prompts that a model may be preserved with: all but `judging_prompts`."""
    named = _named_halves()
    return [prompt for prompt in general_prompts() if not _prompt_judges(prompt.prompt, named)]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+[+#]*", unicodedata.normalize("NFKC", text).casefold())


def _named_halves() -> dict[tuple[str, ...], bool]:
    """For each subject, as its words, whether it judges."""
    listed = [subject for of_kind in subjects().values() for subject in of_kind]
    # The article of "The Who" is part of the name and tells it from other words; that of "the Netherlands" is not.
    return {tuple(_words(subject.removeprefix("the "))): judges(subject) for subject in listed}


def named_subjects(prompt: str, known: Collection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The subjects that a prompt names; of one inside another, such as Brandenburg in Brandenburg Gate, the longer.

    Args:
        prompt: A complete prompt.
        known: Subjects, as their words.

    Returns:
        Those of `known` that stand in the prompt, in their order.
    """
    words, found, start = _words(prompt), [], 0
    longest = max(map(len, known), default=0)
    while start < len(words):
        runs = (tuple(words[start : start + length]) for length in range(longest, 0, -1))
        run = next((run for run in runs if run in known), None)
        found += [] if run is None else [run]
        start += len(run or "-")
    return found


def _prompt_judges(prompt: str, named: dict[tuple[str, ...], bool]) -> bool:
    halves = [named[subject] for subject in named_subjects(prompt, named)]
    return any(halves) if halves else judges(prompt)
