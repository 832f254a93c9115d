"""Subject, prompt and target of RippleEdits' sentences, which are worded by relation."""

import re
from dataclasses import dataclass
from typing import Any

# By relation, what stands before and after the subject; of all others "The [name of the] RELATION of SUBJECT is".
WORDINGS = {
    "NUMBER_OF_CHILDREN": ("The number of children", "has is"),
    "SEX_OR_GENDER": ("The gender of", "is"),
    "COUNTRY": ("The name of the country which", "is associated with is"),
    "POSITION_HELD": ("The name of the position held by", "is"),
    "MEMBER_OF_SPORTS_TEAM": ("The name of the sports team which", "is a member of is"),
    "LEAGUE": ("The name of the league which", "plays in is"),
    "NATIVE_LANGUAGE": ("The mother tongue of", "is"),
    "AWARD_RECEIVED": ("The name of the award", "won is"),
    "FOLLOWS": ("", "follows"),
    "FOLLOWED_BY": ("", "is followed by"),
    "ETHNIC_GROUP": ("The name of the ethnic group which", "is associated with is"),
    "RELIGION": ("The name of the religion which", "is associated with is"),
    "CONTINENT": ("The name of the continent which", "is part of is"),
    "CAPITAL": ("The name of the capital city of", "is"),
    "CURRENCY": ("The name of the currency in", "is"),
    "CAPITAL_OF": ("The name of the country which", "is the capital of is"),
    "LIKELY_ANTHEM": ("The name of the anthem that is most likely to be performed in", "is"),
}


@dataclass(frozen=True)
class Sentence:
    """A fact as its sentence states it.

    Args:
        subject: What it is about.
        prompt: The sentence up to the target, with ``{}`` in the place of the subject.
        target: The last words, without a full stop.
    """

    subject: str
    prompt: str
    target: str

    @property
    def complete(self) -> str:
        """The prompt with the subject in its place."""
        return self.prompt.replace("{}", self.subject)


def sentence_of(text: str, relation: Any) -> Sentence | None:
    """Takes a sentence apart, such as "The name of the mother of Anna is Berta.".

    The subject ends at the first word that can end it: a name with " is " in it would be cut.

    Args:
        text: The sentence.
        relation: The relation's name, such as ``MOTHER``.

    Returns:
        None where the sentence is not worded as those of its relation are.
    """
    match = re.fullmatch(_pattern(relation), " ".join(text.split())) if isinstance(relation, str) else None
    if match is None or "{}" in text:
        return None
    before, subject, after, target = match.groups()
    return Sentence(subject, f"{before}{{}}{after}", target)


def _pattern(relation: str) -> str:
    end = r"(.+?)\.?"
    if relation in WORDINGS:
        before, after = WORDINGS[relation]
        return rf"({re.escape(before)}{' ' if before else ''})(.+?)( {re.escape(after)}) {end}"
    words = re.escape(relation.casefold().replace("_", " "))
    return rf"((?i:The (?:names? of the )?{words}(?:s|ren)? of ))(.+?)( (?:is|are)) {end}"
