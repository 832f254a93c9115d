"""A small fictional world: its subjects, the facts about them, and the text that tells those facts."""

import random
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightning_edit.tiny import vocabulary

FAMILY = 4  # subjects that share all of their name but its last syllable
HOUSEHOLD = 20  # subjects that share a first name
HELD_OUT_WORDINGS = 2


@dataclass(frozen=True)
class Relation:
    """A kind of fact.

    Attributes:
        name: One word.
        templates: Wordings with exactly one ``{}`` for the subject, each ending right where the answer comes. The
            first is the one edits are made with.
        answers: All answers the relation can take in this world.
    """

    name: str
    templates: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """One subject's answer to one relation.

    Attributes:
        subject: Full name.
        relation: Name of the relation.
        answer: The true answer, without a leading space.
        held_out: Indices of the relation's templates that the world's text never uses with this subject.
    """

    subject: str
    relation: str
    answer: str
    held_out: tuple[int, ...]


@dataclass(frozen=True)
class Sentence:
    """A sentence of the world's text.

    Attributes:
        text: The sentence, full stop included.
        subject: The subject it is about, None for filler.
        answer: The answer it ends with, None unless it states a fact.
    """

    text: str
    subject: str | None = None
    answer: str | None = None


def _names(rng: random.Random, count: int) -> tuple[str, ...]:
    """Draw names of which every proper prefix, syllable by syllable, is shared with other names."""
    pairs = [(a, b) for a in vocabulary.FIRST_SYLLABLES for b in vocabulary.SECOND_SYLLABLES]
    rng.shuffle(pairs)
    # Sorting by how often a first syllable came before makes the first syllables take turns: none is used only once.
    turn: dict[str, int] = {}
    order = []
    for first, second in pairs:
        turn[first] = turn.get(first, 0) + 1
        order.append((turn[first] // 2, first, first + second))
    names: list[str] = []
    lasts: list[str] = []
    for _, _, first_name in sorted(order)[: count // HOUSEHOLD]:
        for third in rng.sample(vocabulary.THIRD_SYLLABLES, HOUSEHOLD // FAMILY):
            if not lasts:
                lasts = rng.sample(vocabulary.LAST_SYLLABLES, len(vocabulary.LAST_SYLLABLES))
            names += [f"{first_name} {third}{lasts.pop()}" for _ in range(FAMILY)]
    return tuple(names)


def _fill(rng: random.Random, pattern: str) -> str:
    return re.sub(r"\[(\w+)\]", lambda slot: rng.choice(vocabulary.SLOTS[slot[1]]), pattern)


@dataclass(frozen=True)
class World:
    """Subjects, relations and facts, all drawn from one seed.

    Attributes:
        subjects: Full names. Only a whole name, down to its last syllable, tells who is meant.
        relations: The relations every subject has an answer to.
        facts: One per subject and relation.
        kinds: What kind of being each subject is, in the order of ``subjects``. The text states it as
            ``"{subject} is a {kind}."``; it is no relation, so no edit is ever made of it.
        seed: The seed the world was drawn from.
    """

    subjects: tuple[str, ...]
    relations: tuple[Relation, ...]
    facts: tuple[Fact, ...]
    kinds: tuple[str, ...]
    seed: int

    @classmethod
    def generate(cls, seed: int = 0, subjects: int = 400) -> "World":
        """Draw a world.

        Args:
            seed: The same seed and number of subjects give the same world.
            subjects: Number of subjects, a multiple of 40 up to 4,000.

        Raises:
            ValueError: If ``subjects`` is not such a number.
        """
        limit = HOUSEHOLD * 200
        if subjects % (2 * HOUSEHOLD) or not 0 < subjects <= limit:
            raise ValueError(
                f"subjects must be a multiple of {2 * HOUSEHOLD} from {2 * HOUSEHOLD} to {limit}, got {subjects}"
            )
        rng = random.Random(seed)
        names = _names(rng, subjects)
        relations = tuple(Relation(*row) for row in vocabulary.RELATIONS)
        facts = []
        for relation in relations:
            # Dealt out like cards, each answer gets about the same number of subjects: none lacks neighbors.
            deck = [relation.answers[i % len(relation.answers)] for i in range(len(names))]
            rng.shuffle(deck)
            for name, answer in zip(names, deck, strict=True):
                held_out = tuple(sorted(rng.sample(range(1, len(relation.templates)), HELD_OUT_WORDINGS)))
                facts.append(Fact(name, relation.name, answer, held_out))
        kinds = tuple(rng.choice(vocabulary.KINDS) for _ in names)
        return cls(names, relations, tuple(facts), kinds, seed)

    @cached_property
    def _relation_by_name(self) -> dict[str, Relation]:
        return {relation.name: relation for relation in self.relations}

    def relation(self, name: str) -> Relation:
        """Return the relation called ``name``.

        Raises:
            KeyError: If the world has no such relation.
        """
        return self._relation_by_name[name]

    def prompts(self, fact: Fact, held_out: bool) -> list[str]:
        """Return the complete prompts of a fact whose wordings are held out of the text, or of those that are not.

        The first prompt of those that are not held out is the rewrite prompt.
        """
        templates = enumerate(self.relation(fact.relation).templates)
        return [template.format(fact.subject) for i, template in templates if (i in fact.held_out) == held_out]

    def fact_sentences(self) -> list[Sentence]:
        """Return every fact in every wording that is not held out."""
        return [
            Sentence(f"{prompt} {fact.answer}.", fact.subject, fact.answer)
            for fact in self.facts
            for prompt in self.prompts(fact, held_out=False)
        ]

    def subject_sentences(self, seed: int, each: int = 2) -> list[Sentence]:
        """Return what kind of being each subject is, and ``each`` passing remarks about every subject."""
        rng = random.Random(f"subjects {self.seed} {seed}")
        sentences = []
        for name, kind in zip(self.subjects, self.kinds, strict=True):
            sentences.append(Sentence(f"{name} is a {kind}.", name, kind))
            for pattern in rng.sample(vocabulary.SUBJECT_FILLER, each):
                sentences.append(Sentence(_fill(rng, pattern).format(name), name))
        return sentences

    def filler_sentences(self, seed: int, count: int) -> list[Sentence]:
        """Return ``count`` ordinary sentences that are about no subject."""
        rng = random.Random(f"filler {self.seed} {seed}")
        return [Sentence(_fill(rng, rng.choice(vocabulary.FILLER))) for _ in range(count)]

    def sentences(self, seed: int = 0, filler: int = 1000) -> list[str]:
        """Return the world's text in a random order: what the model is trained on and what edits should preserve.

        Args:
            seed: Draws the filler, the remarks about subjects, and the order.
            filler: Number of sentences about no subject.
        """
        everything = self.fact_sentences() + self.subject_sentences(seed) + self.filler_sentences(seed, filler)
        texts = [sentence.text for sentence in everything]
        random.Random(seed).shuffle(texts)
        return texts

    def records(self, n: int, seed: int = 0) -> list[dict[str, Any]]:
        """Draw counterfactual edit records, one a subject.

        Neighborhood and attribute prompts use the rewrite wording, and subjects that none of the records edits; only
        where all of an answer's subjects are edited do subjects edited in another relation take their place.

        Args:
            n: Number of records, at most one per subject.
            seed: Draws subjects, relations and new targets.

        Returns:
            Dicts with the keys ``case_id``, ``subject``, ``prompt`` (one ``{}``), ``target_new``, ``target_true``,
            ``paraphrase_prompts`` (wordings of the text, then held-out ones), ``neighborhood_prompts``,
            ``attribute_prompts`` and ``generation_prompts``. Targets have no leading space.

        Raises:
            ValueError: If ``n`` is negative or larger than the number of subjects.
        """
        if not 0 <= n <= len(self.subjects):
            raise ValueError(f"n must be from 0 to the {len(self.subjects)} subjects of this world, got {n}")
        rng = random.Random(f"records {self.seed} {seed}")
        chosen = rng.sample(range(len(self.subjects)), n)
        # Facts are laid out relation by relation, each in the order of the subjects.
        facts = [self.facts[rng.randrange(len(self.relations)) * len(self.subjects) + i] for i in chosen]
        edited = {fact.subject: fact.relation for fact in facts}
        return [self._record(case_id, fact, edited, rng) for case_id, fact in enumerate(facts)]

    def _record(self, case_id: int, fact: Fact, edited: dict[str, str], rng: random.Random) -> dict[str, Any]:
        relation = self.relation(fact.relation)
        target_new = rng.choice([answer for answer in relation.answers if answer != fact.answer])
        return {
            "case_id": case_id,
            "subject": fact.subject,
            "prompt": relation.templates[0],
            "target_new": target_new,
            "target_true": fact.answer,
            "paraphrase_prompts": self.prompts(fact, held_out=False)[1:] + self.prompts(fact, held_out=True),
            "neighborhood_prompts": self._prompts_with_answer(relation, fact.answer, edited, rng),
            "attribute_prompts": self._prompts_with_answer(relation, target_new, edited, rng),
            "generation_prompts": [pattern.format(fact.subject) for pattern in (*relation.templates[1:3], "{} is a")],
        }

    def _prompts_with_answer(
        self, relation: Relation, answer: str, edited: dict[str, str], rng: random.Random, limit: int = 10
    ) -> list[str]:
        same = [fact.subject for fact in self.facts if fact.relation == relation.name and fact.answer == answer]
        untouched = [subject for subject in same if subject not in edited]
        others = untouched or [subject for subject in same if edited[subject] != relation.name]
        return [relation.templates[0].format(subject) for subject in rng.sample(others, min(limit, len(others)))]
