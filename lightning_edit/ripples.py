"""What should follow from an edit, or stay as it was: tests that a record brings beside its prompts."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from lightning_edit.characters import fault_of
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted

Passes = Literal["all", "any"]
# What an axis may be called, as it is a part of the names of figures.
_AXIS = re.compile(r"[a-z][a-z0-9_]*")
# The mean over axes has this name.
PORTABILITY = "portability"
# How the names of figures begin, and the figures of each axis.
PREFIX = "ripple"
OF_AN_AXIS = ("said", "exact", "token_accuracy", "score", "unchanged", "rouge_l")
AXES = {
    "reasoning": "tests that reason from the edited fact",
    "subject_aliasing": "tests that ask an edited fact by another name of its subject",
    "logical_generalization": "tests of what the edited fact implies",
    "relation_specificity": "tests of other facts about the subject, which should stay",
    "forgetfulness": "tests of other objects of the same relation, which should stay",
    "compositionality_i": "tests of a second hop that starts at the new object",
    "compositionality_ii": "tests of a second hop that leads to the edited subject",
    "multi_hop": "tests of several hops",
    "instance_wise": "tests of all single hops of a case at once",
    "personas": "tests that ask as somebody else would",
    "sub_questions": "tests of parts of a long answer",
    "yes_no": "tests that ask whether the new or another answer is right",
    "multiple_choice": "tests with answers to choose from",
    "reversed_relation": "tests that ask for the edited subject",
    "unrelated": "tests of other facts, which should stay",
}


@dataclass(frozen=True)
class Query:
    """A question, and what counts as its answer.

    Args:
        prompt: The complete prompt.
        answers: What a right reply says, all of it: of each answer its accepted forms (the answer and its aliases), the
            usual one first. Without any, right is what the unedited model replies.
        choices: Of a closed question all that can be answered, such as ``Yes`` and ``No`` or the letters of options,
            the answer among them: the first one that a reply names is its answer, see `find_answer`.
        implied: Whether the choices follow from the rest of the test, as in a data set in which all such questions
            have the same: then they make no other record of it.

    Raises:
        EditError: If the prompt, a form or a choice is empty, or there are choices and not one answer, which is one of
            them.
    """

    prompt: str
    answers: tuple[tuple[str, ...], ...] = ()
    # Not shown where there are none, so that questions without any are described as before there were choices.
    choices: tuple[str, ...] = field(default=(), repr=False)
    implied: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise EditError(f"the prompt of a test must be a text that is not empty, got {quoted(self.prompt)}.")
        wrong = f"the answers to {quoted(self.prompt)} must be lists of texts that are not empty, got "
        if not isinstance(self.answers, list | tuple):
            raise EditError(f"{wrong}{quoted(self.answers)}.")
        for forms in self.answers:
            listed = isinstance(forms, list | tuple) and forms
            if not listed or not all(isinstance(form, str) and form.strip() for form in forms):
                raise EditError(f"{wrong}{quoted(forms)}.")
        if not isinstance(self.choices, list | tuple) or not all(
            isinstance(choice, str) and choice.strip() for choice in self.choices
        ):
            raise EditError(
                f"the choices of {quoted(self.prompt)} must be a list of texts that are not empty, got "
                f"{quoted(self.choices)}."
            )
        for text in (self.prompt, *(form for forms in self.answers for form in forms), *self.choices):
            if fault := fault_of(text):
                raise EditError(f"a test: the text {fault}.")
        answers = tuple(tuple(dict.fromkeys(form.strip() for form in forms)) for forms in self.answers)
        object.__setattr__(self, "answers", answers)
        object.__setattr__(self, "choices", tuple(dict.fromkeys(choice.strip() for choice in self.choices)))
        if self.choices and not (len(answers) == 1 and set(answers[0]) & set(self.choices)):
            raise EditError(
                f"{quoted(self.prompt)} has the choices {quoted(self.choices)}, so it needs one answer, which is one "
                f"of them; its answers are {quoted(answers)}."
            )


@dataclass(frozen=True)
class Ripple:
    """A test of what follows from an edit, or of what must not (Cohen et al., 2023, call both its ripple effects).

    Args:
        axis: The kind of test, such as ``reasoning``; figures are means over all tests of an axis.
        queries: What the edited model is asked.
        passes: Whether ``all`` queries must be answered rightly, or ``any`` of them.
        conditions: What the model must have known before the edit; otherwise the test says nothing of the edit.
        unknown: What it must not have known before.
        kept: Whether the edit should leave the answers as they were.
        edits: Subject and prompt of each edit that the test needs, where it is of several; it counts only if all of
            them succeeded. They are measured before it, or with it.

    Raises:
        EditError: If a name or value is none of the allowed ones, there is no query, or answers are missing that only
            a test of what is kept can do without.
    """

    axis: str
    queries: tuple[Query, ...]
    passes: Passes = "all"
    conditions: tuple[Query, ...] = ()
    unknown: tuple[Query, ...] = ()
    kept: bool = False
    # By the other edits of a run, which are compared themselves when it resumes.
    edits: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.axis, str) or not _AXIS.fullmatch(self.axis) or self.axis == PORTABILITY:
            raise EditError(
                f"the axis of a test must be a name of small letters, digits and _ such as 'reasoning', but not "
                f"{PORTABILITY!r}, which is the mean of them; got {quoted(self.axis)}."
            )
        for name in ("queries", "conditions", "unknown"):
            queries = getattr(self, name)
            if not isinstance(queries, list | tuple) or not all(isinstance(query, Query) for query in queries):
                raise EditError(f"a test of {self.axis}: `{name}` must be a list of `Query`, got {quoted(queries)}.")
            object.__setattr__(self, name, tuple(queries))
        if not self.queries:
            raise EditError(f"a test of {self.axis} asks nothing. Give it at least one query, or remove it.")
        if self.passes not in get_args(Passes):
            raise EditError(f"a test of {self.axis}: `passes` must be all or any, got {quoted(self.passes)}.")
        object.__setattr__(self, "edits", self._checked_edits())
        for query in (*(() if self.kept else self.queries), *self.conditions, *self.unknown):
            if not query.answers:
                raise EditError(
                    f"a test of {self.axis}: {quoted(query.prompt)} has no answer, so nothing says what is right. Give "
                    "its `answers`; only in a test of what is kept the unedited model's take their place."
                )

    def _checked_edits(self) -> tuple[tuple[str, str], ...]:
        wrong = f"a test of {self.axis}: `edits` must be a list of pairs of subject and prompt, got "
        if not isinstance(self.edits, list | tuple):
            raise EditError(f"{wrong}{quoted(self.edits)}.")
        for pair in self.edits:
            if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
                raise EditError(f"{wrong}{quoted(pair)}.")
        return tuple((subject.strip(), prompt.strip()) for subject, prompt in self.edits)

    @property
    def all_queries(self) -> tuple[Query, ...]:
        """The queries, and after them those of its conditions."""
        return (*self.queries, *self.conditions, *self.unknown)

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, those of the queries first."""
        return tuple(query.prompt for query in self.all_queries)

    def asked(self, change: Callable[[str], str]) -> "Ripple":
        """The same test with other prompts.

        Args:
            change: Makes a prompt of one.
        """

        def changed(queries: tuple[Query, ...]) -> tuple[Query, ...]:
            return tuple(replace(query, prompt=change(query.prompt)) for query in queries)

        return replace(
            self,
            queries=changed(self.queries),
            conditions=changed(self.conditions),
            unknown=changed(self.unknown),
        )


def name_of(axis: str, figure: str) -> str:
    """What a figure of an axis is called.

    Args:
        axis: The axis.
        figure: One of `OF_AN_AXIS`.
    """
    return f"{PREFIX}_{axis}_{figure}"


def axis_of(name: str) -> tuple[str, str] | None:
    """The axis and the figure of a name, None where it is no figure of tests.

    Args:
        name: A name in ``metrics.json``.

    Example:
        >>> axis_of("ripple_multi_hop_token_accuracy"), axis_of("S")
        (('multi_hop', 'token_accuracy'), None)
    """
    if not name.startswith(f"{PREFIX}_"):
        return None
    figure = next((figure for figure in OF_AN_AXIS if name.endswith(f"_{figure}")), None)
    return None if figure is None else (name[len(PREFIX) + 1 : -len(figure) - 1], figure)


def tests_of(axis: str) -> str:
    """The tests of an axis in words.

    Args:
        axis: The axis.
    """
    return AXES.get(axis, f"tests of {axis.replace('_', ' ')}")
