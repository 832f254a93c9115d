"""What probes are made from beside the edits: general prompts, public facts and public subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from lightning_edit.probes import GeneralPrompt, PublicFact, facts, folded, judges, judging, judging_prompts, subjects

T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
    """What a model may be judged by. Nothing of it may be among what it was preserved with.

    Args:
        general: Prompts of all kinds, those first that should be asked where not all are.
        facts: Facts that the model may know.
        subjects: For each kind of subject some.
    """

    general: Sequence[GeneralPrompt]
    facts: Sequence[PublicFact]
    subjects: Mapping[str, Sequence[str]]

    @staticmethod
    def shipped() -> "Sources":
        """The half of the shipped lists that judges."""
        kinds: dict[str, list[GeneralPrompt]] = {}
        for prompt in judging_prompts():
            kinds.setdefault(prompt.kind, []).append(prompt)
        return Sources(
            in_turn(list(kinds.values())),
            [fact for fact in facts() if judges(fact.subject)],
            {kind: judging(those) for kind, those in subjects().items()},
        )

    def kind_of(self, subject: str) -> str | None:
        """The kind of a public subject, None if it is not listed.

        Args:
            subject: Any subject.
        """
        return self._kinds.get(folded(subject))

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {folded(subject): kind for kind, those in self.subjects.items() for subject in those}


def in_turn(groups: Sequence[Sequence[T]]) -> list[T]:
    """The first of each group, then the second of each, and so on.

    Args:
        groups: Of any lengths.
    """
    longest = max(map(len, groups), default=0)
    return [group[place] for place in range(longest) for group in groups if place < len(group)]
