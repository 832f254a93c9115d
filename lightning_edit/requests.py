"""One fact to write: what every data module yields and every other room reads."""

import unicodedata
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from lightning_edit.characters import fault_of, is_visible
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.ripples import Ripple

LONGEST_ID = 80
PROMPT_LISTS = ("paraphrase_prompts", "neighborhood_prompts", "attribute_prompts", "generation_prompts")
TEXT_LISTS = (*PROMPT_LISTS, "reference_texts", "essence_texts", "paraphrase_questions")
ABOUT_SUBJECT = ("paraphrase_prompts", "generation_prompts", "essence_texts", "paraphrase_questions")
ABOUT_OTHERS = ("neighborhood_prompts", "attribute_prompts")


@dataclass(frozen=True)
class EditRequest:
    """One edit: subject s, prompt p with one ``{}``, new target o* and, where known, the true target o.

    Targets are given without a leading space; the library writes the one that separates them from the prompt. The
    subject takes the place of every ``{}`` in prompts, questions and texts about it, and in `ripples`; in prompts about
    others a ``{}`` is refused. Without a subject, and in lists where the subject itself holds one, it is plain text.

    Args:
        subject: The text that takes the place of ``{}``; a search makes the edit at its last token. Values from
            gradients need none (empty, or None).
        prompt: The rewrite prompt, with exactly one ``{}``, e.g. ``"{} is located in the city of"``; without a subject
            the complete prompt.
        target_new: What the edited model should answer.
        target_true: What the model answers before, needed for scores that compare two answers.
        case_id: The name of the record in messages and result files.
        paraphrase_prompts: Complete prompts that say the same in other words.
        neighborhood_prompts: Complete prompts about other subjects whose answer is ``target_true``.
        attribute_prompts: Complete prompts about other subjects whose answer is ``target_new``.
        generation_prompts: Complete prompts for free generation about the subject.
        locality: Pairs of an unrelated complete prompt and the data set's own answer to it.
        reference_texts: Texts about other subjects of which ``target_new`` is true, to compare generations with.
        essence_texts: Texts about the subject, which the edited model should still find likely.
        ripples: Tests of what follows from the edit, and of what must not.
        question: The prompt as a question, with one ``{}``; a chat model is asked it instead of the prompt.
        paraphrase_questions: Complete questions that ask the same in other words, instead of `paraphrase_prompts`.
        answer: How a chat model should answer, a text with ``target_new`` in it, e.g. ``"It stands in Rome."``
        where: File and line it was read from, for messages.
        more: Whether more of the same record comes after it, where that is a case of several edits.
        separator: What stands between each prompt and its answer; None for what is usual there: a space, or nothing
            after an opening bracket or quote and in scripts without spaces, such as Chinese.
        original: The request in plain text that this one was made from, see `as_question`.
        said: The whole answer that values are found for in a chat; None for `target_new` alone.
        lead_ins: What the answer to a prompt begins with in a chat, before the target.

    Raises:
        EditError: If the record cannot be edited or measured; the message names it and says what to change.
    """

    subject: str
    prompt: str
    target_new: str
    target_true: str | None = None
    case_id: str = ""
    paraphrase_prompts: tuple[str, ...] = ()
    neighborhood_prompts: tuple[str, ...] = ()
    attribute_prompts: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    locality: tuple[tuple[str, str], ...] = ()
    reference_texts: tuple[str, ...] = ()
    essence_texts: tuple[str, ...] = ()
    ripples: tuple[Ripple, ...] = field(default=(), repr=False)
    question: str | None = field(default=None, repr=False)
    paraphrase_questions: tuple[str, ...] = field(default=(), repr=False)
    answer: str | None = field(default=None, repr=False)
    where: str = field(default="", compare=False, repr=False)
    more: bool = field(default=False, compare=False, repr=False)
    separator: str | None = field(default=None, repr=False)
    original: "EditRequest | None" = field(default=None, compare=False, repr=False)
    said: str | None = field(default=None, compare=False, repr=False)
    lead_ins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.case_id, int) and not isinstance(self.case_id, bool):
            object.__setattr__(self, "case_id", str(self.case_id))
        if not isinstance(self.case_id, str):
            raise EditError(f"An edit's `case_id` must be a text or a whole number, got {quoted(self.case_id)}.")
        alone = self.subject in (None, "")
        if alone:
            object.__setattr__(self, "subject", "")
        for name in ("subject", "prompt", "target_new")[alone:]:
            value = getattr(self, name)
            if not isinstance(value, str) or not is_visible(value):
                raise EditError(f"{self.name}: `{name}` must be a text that is not empty, got {quoted(value)}.")
        if not isinstance(self.separator, str | None):
            raise EditError(f"{self.name}: `separator` must be a text or be left out, got {quoted(self.separator)}.")
        self._check_locality()
        self._check_ripples()
        for name in TEXT_LISTS:
            prompts = getattr(self, name)
            if not isinstance(prompts, list | tuple) or not all(
                isinstance(entry, str) and entry.strip() for entry in prompts
            ):
                raise EditError(
                    f"{self.name}: `{name}` must be a list of texts that are not empty, got {quoted(prompts)}."
                )
            object.__setattr__(self, name, tuple(prompts))
        self._check_holes()
        if self.target_true is not None:
            if not isinstance(self.target_true, str) or not self.target_true.strip():
                raise EditError(
                    f"{self.name}: `target_true` must be a text or be left out, got {quoted(self.target_true)}."
                )
            if self.target_true.strip() == self.target_new.strip():
                raise EditError(
                    f"{self.name}: `target_new` equals `target_true` ({quoted(self.target_true.strip())}): there is "
                    "nothing to edit. Give another `target_new` or remove the record."
                )
            object.__setattr__(self, "target_true", self.target_true.strip())
        object.__setattr__(self, "subject", self.subject.strip())
        object.__setattr__(self, "target_new", self.target_new.strip())
        self._check_answer()
        self._check_characters()

    def _check_characters(self) -> None:
        texts = [self.case_id, self.subject, self.prompt, self.target_new, self.target_true, self.question, self.answer]
        texts += [self.separator, *chain.from_iterable(self.locality)]
        given = [text for text in texts if text] + [text for name in TEXT_LISTS for text in getattr(self, name)]
        # Looking at all at once takes a fraction of the time.
        if fault_of("".join(given)) and (fault := next(filter(None, map(fault_of, given)), None)):
            raise EditError(f"{self.name}: the text {fault}.")

    def _check_holes(self) -> None:
        if not isinstance(self.question, str | None) or (self.question is not None and not self.question.strip()):
            raise EditError(f"{self.name}: `question` must be a text or be left out, got {quoted(self.question)}.")
        if not self.subject:
            return
        for kind, prompt in (("prompt", self.prompt), ("question", self.question)):
            if prompt is not None and (holes := prompt.count("{}")) != 1:
                raise EditError(
                    f"{self.name}: the {kind} must hold exactly one {{}} where the subject goes, got {holes} in "
                    f"{quoted(prompt)}. Replace the subject in the {kind} by {{}}."
                )
        # Code has subjects that hold {} themselves; what stands in lists is then taken as it is.
        if "{}" not in self.subject:
            self._fill_holes()

    def _fill_holes(self) -> None:
        others = {name: getattr(self, name) for name in ABOUT_OTHERS}
        for name, prompts in (others | {"locality": [prompt for prompt, _ in self.locality]}).items():
            if wrong := next((prompt for prompt in prompts if "{}" in prompt), None):
                raise EditError(
                    f"{self.name}: `{name}` are about other subjects, so nothing takes the place of {{}} in "
                    f"{quoted(wrong)}. Write the other subject there."
                )
        subject = self.subject.strip()
        for name in ABOUT_SUBJECT:
            prompts = getattr(self, name)
            if any("{}" in prompt for prompt in prompts):
                object.__setattr__(self, name, tuple(complete(prompt, subject) for prompt in prompts))
        if any("{}" in prompt for ripple in self.ripples for prompt in ripple.prompts):
            ripples = tuple(ripple.asked(lambda prompt: complete(prompt, subject)) for ripple in self.ripples)
            object.__setattr__(self, "ripples", ripples)

    def _check_answer(self) -> None:
        if self.answer is not None and not (isinstance(self.answer, str) and self.target_new in self.answer):
            raise EditError(
                f"{self.name}: the answer must be a text that holds `target_new` ({quoted(self.target_new)}), got "
                f"{quoted(self.answer)}. Write it into the answer, or leave the answer out."
            )

    def _check_locality(self) -> None:
        if not isinstance(self.locality, list | tuple):
            raise EditError(f"{self.name}: `locality` must be a list of pairs, got {quoted(self.locality)}.")
        pairs = tuple(tuple(pair) if isinstance(pair, list | tuple) else pair for pair in self.locality)
        for pair in pairs:
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(t, str) and t.strip() for t in pair)):
                raise EditError(
                    f"{self.name}: `locality` must hold pairs of a prompt and its answer, got {quoted(pair)}."
                )
        object.__setattr__(self, "locality", tuple((prompt, answer.strip()) for prompt, answer in pairs))

    def _check_ripples(self) -> None:
        if not isinstance(self.ripples, list | tuple) or not all(isinstance(one, Ripple) for one in self.ripples):
            raise EditError(f"{self.name}: `ripples` must be a list of `Ripple`, got {quoted(self.ripples)}.")
        object.__setattr__(self, "ripples", tuple(self.ripples))

    @property
    def name(self) -> str:
        """How messages call this record."""
        if self.case_id != "":
            return f"record {self.case_id if len(self.case_id) <= LONGEST_ID else quoted(self.case_id)}"
        return f"the edit of {quoted(self.subject or self.prompt)}" + (f" ({self.where})" if self.where else "")

    @property
    def rewrite_prompt(self) -> str:
        """The prompt with the subject in its place."""
        return complete(self.prompt, self.subject)

    @property
    def learned(self) -> str:
        """The text that the model is to give as its answer."""
        return self.target_new if self.said is None else self.said


def complete(prompt: str, subject: str) -> str:
    """A prompt with the subject in its place.

    Args:
        prompt: The prompt.
        subject: What takes the place of ``{}``; without a subject that is plain text.
    """
    return prompt.replace("{}", subject) if subject else prompt


def fact_of(request: EditRequest) -> tuple[str, str]:
    """What an edit is about: requests with the same fact cannot both hold.

    Spaces around subject and prompt do not count. Case does: to a model "apple" and "Apple" are different tokens, and
    the one may well have another answer than the other. In a chat the record's own prompt counts, however it is asked
    there.

    Args:
        request: The edit.

    Returns:
        Subject and prompt.
    """
    plain = request.original or request
    return plain.subject.strip(), plain.prompt.strip()


def sentence_of(request: EditRequest) -> str:
    """What an edit asks, wherever its subject begins and ends: two answers to one sentence contradict each other.

    Args:
        request: The edit.

    Returns:
        The complete prompt of `fact_of`, in NFC.
    """
    subject, prompt = fact_of(request)
    return unicodedata.normalize("NFC", complete(prompt, subject))


def fact_code(request: EditRequest) -> int:
    """A number of 64 bits that tells nearly all sentences apart, and is the same for the same one in this process.

    Args:
        request: The edit, see `sentence_of`.
    """
    return hash(sentence_of(request))


def repeated(requests: Sequence[EditRequest]) -> list[int]:
    """The positions of all requests whose sentence another one has as well, and of hardly any others.

    Args:
        requests: Edits; those that know their own codes are not made into objects for it.
    """
    own = getattr(requests, "fact_codes", None)
    codes = array("q", own() if own is not None else map(fact_code, requests))
    seen: set[int] = set()
    again: set[int] = set()
    for code in codes:
        (again if code in seen else seen).add(code)
    return [place for place, code in enumerate(codes) if code in again] if again else []


def replaced_by(requests: Sequence[EditRequest]) -> dict[int, int]:
    """Which edits a later one replaces.

    Args:
        requests: Edits in the order in which they are made.

    Returns:
        For the position of each replaced one that of the next with the same subject and prompt, see `fact_of`.
    """
    latest: dict[tuple[str, str], int] = {}
    replaced = {}
    for position in repeated(requests):
        fact = fact_of(requests[position])
        earlier = latest.get(fact)
        if earlier is not None:
            replaced[earlier] = position
        latest[fact] = position
    return replaced


def still_valid(requests: Sequence[EditRequest]) -> list[EditRequest]:
    """The edits that no later one replaces: those that a model should know once all are made.

    Args:
        requests: Edits in the order in which they are made.

    Returns:
        The latest of each subject and prompt, in their order.
    """
    replaced = replaced_by(requests)
    return [request for position, request in enumerate(requests) if position not in replaced]


def batches_of(requests: Sequence[EditRequest], size: int | None) -> list[Sequence[EditRequest]]:
    """The requests in groups of at most ``size`` (all in one for None), in their order."""
    size = size or max(len(requests), 1)
    return [requests[i : i + size] for i in range(0, len(requests), size)]
