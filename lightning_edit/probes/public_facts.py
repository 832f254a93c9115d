"""Timeless public facts by relation: what a model probably knows, to try edits on and to judge edited models by."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.probes.questions import filled
from lightning_edit.probes.split import folded
from lightning_edit.probes.subjects import FOLDER
from lightning_edit.storage.user.json import json_lines


@dataclass(frozen=True)
class PublicFact:
    """One fact, and several ways to ask for it.

    Args:
        relation: What the answer is to the subject, such as "capital"; all its facts are asked in the same words.
        subject: What the fact is about.
        prompt: The beginning of a sentence with one ``{}`` for the subject, which ends where the answer follows.
        question: A question with one ``{}``.
        answer: The right answer, without a space before it.
        rewordings: Other questions and requests for the same, each with one ``{}``. Each of the halves of `split` holds
            at least one of these or the question.
    """

    relation: str
    subject: str
    prompt: str
    question: str
    answer: str
    rewordings: tuple[str, ...]

    @property
    def filled_prompt(self) -> str:
        """The beginning of a sentence, with the subject."""
        return filled(self.prompt, self.subject)

    @property
    def filled_questions(self) -> tuple[str, ...]:
        """The question and the rewordings, with the subject."""
        return tuple(filled(wording, self.subject) for wording in (self.question, *self.rewordings))


def facts() -> list[PublicFact]:
    """All shipped facts, of both halves: `split.judges` says of a fact's subject, and of each wording, in which."""
    return [
        PublicFact(**{**record, "rewordings": tuple(record["rewordings"])})
        for record, _ in json_lines(FOLDER / "facts.jsonl")
    ]


def other_answer(fact: PublicFact, seed: int = 0, among: Sequence[PublicFact] | None = None) -> str:
    """A wrong answer of the right kind: the answer to another subject of the same relation.

    Args:
        fact: The fact.
        seed: Which one: the same seed gives the same answer.
        among: The facts to take it from; None for the shipped ones.

    Raises:
        EditError: If all facts of the relation have this answer.
    """
    known = [other for other in (facts() if among is None else among) if other.relation == fact.relation]
    right = {folded(other.answer) for other in known if folded(other.subject) == folded(fact.subject)}
    right.add(folded(fact.answer))
    # Each answer counts once, so that frequent ones are not preferred.
    wrong = sorted({other.answer for other in known if folded(other.answer) not in right})
    if not wrong:
        raise EditError(
            f"No other answer than {quoted(fact.answer)} is known for the relation {quoted(fact.relation)}."
        )
    digest = hashlib.sha256(f"{seed}\n{fact.relation}\n{fact.subject}".encode()).digest()
    return wrong[int.from_bytes(digest[:8]) % len(wrong)]
