"""What a run's ``records.jsonl`` says of each edit, and of the other facts that were asked with it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import exp, isnan, nan
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.requests import complete
from lightning_edit.storage.user.json import json_lines

FILE = "records.jsonl"
# Of each kind of prompts about others, the answer that is right there.
RIGHT = {"neighborhood": "target_true", "attribute": "target_new"}
WRONG_FORM = (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True)
class Edit:
    """One edit, before and after.

    Args:
        question: The edited prompt with its subject.
        new: The answer that was to be given.
        old: The one in whose place, None if unknown.
        before: What the unedited model wrote; None if it was not asked to write.
        after: What the edited one writes.
        said: Whether the new answer is there: in what was written, or else as the likeliest one token for token.
        reworded: In how many other wordings the new answer is said, and in how many it was asked for.
        words: Of a long answer the share of its words that were written, None for others.
        sure: The probability of the new answer before and after, as the geometric mean over its tokens; NaN where the
            model's numbers were no finite ones.
    """

    question: str
    new: str
    old: str | None
    before: str | None
    after: str | None
    said: bool
    reworded: tuple[int, int] | None
    words: float | None
    sure: tuple[float | None, float]


@dataclass(frozen=True)
class Loss:
    """A fact about something else that the edited model no longer knows.

    Args:
        question: The prompt.
        answer: The right answer.
        edits: The subjects of the edits beside which it was asked.
        before: What was there before: a text, or the answer's probability.
        after: What is there now; a probability is NaN where the model's numbers are no finite ones.
    """

    question: str
    answer: str
    edits: tuple[str, ...]
    before: str | float
    after: str | float

    @property
    def fall(self) -> float:
        """How far the right answer fell; where another text is said, or nothing can be, all the way."""
        if not isinstance(self.before, float) or not isinstance(self.after, float):
            return 1.0
        fall = self.before - self.after
        return 1.0 if isnan(fall) else fall


@dataclass(frozen=True)
class Records:
    """All edits of a run, and what was lost beside them.

    Args:
        edits: Of each edit what became of it.
        losses: The facts about others that were lost, the worst first.
        others: How many different facts about others were known before.
    """

    edits: tuple[Edit, ...] = ()
    losses: tuple[Loss, ...] = ()
    others: int = 0


def read_records(folder: Path) -> Records:
    """Reads what a run measured of each edit; nothing where it kept no such file.

    Args:
        folder: The run's.

    Raises:
        EditError: If the file is not what a run writes.
    """
    path = folder / FILE
    if not path.is_file() or not path.stat().st_size:
        return Records()
    before: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    edits: list[Edit] = []
    losses: dict[tuple[str, str], Loss] = {}
    others: set[tuple[str, str]] = set()
    for line, where in json_lines(path, on_unfinished=lambda _: None):
        try:
            key = tuple(str(line[name]) for name in ("case_id", "subject", "prompt", "target_new"))
            if line["stage"] == "before":
                before.setdefault(key, []).append(_needed(line))
                continue
            # A fact may be edited twice in a run; its records come in the same order before and after.
            earlier = before.get(key) or [{}]
            first = earlier.pop(0) if len(earlier) > 1 else earlier[0]
            edits.append(_edit(line, first))
            for place, loss in _compared(line, first):
                others.add(place)
                if loss is not None:
                    # The same fact may be asked beside several edits.
                    same = losses.get(place)
                    losses[place] = loss if same is None else replace(same, edits=(*same.edits, *loss.edits))
        except WRONG_FORM as error:
            raise EditError(
                f"{where}: not a record as a run writes it ({type(error).__name__}: {error}). Put the file back as it "
                "was, or move it away to report without examples."
            ) from error
    return Records(tuple(edits), tuple(sorted(losses.values(), key=lambda loss: -loss.fall)), len(others))


def _needed(line: Mapping[str, Any]) -> dict[str, Any]:
    """What of the unedited model's record is compared; all of it for thousands of edits would be much."""
    kept = {kind: [_slim(entry) for entry in line.get(kind) or ()] for kind in (*RIGHT, "locality")}
    return {"continuation": line.get("continuation"), "efficacy": [_slim(line["efficacy"][0])], **kept}


def _slim(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = ("prompt", "log_prob_new", "log_prob_true", "correct", "tokens", "tokens_correct")
    return {name: entry[name] for name in names if name in entry}


def _known(entry: Mapping[str, Any]) -> bool:
    """Whether an answer was the likeliest one, token for token."""
    return bool(entry["tokens_correct"] == entry["tokens"])


def _edit(line: Mapping[str, Any], first: Mapping[str, Any]) -> Edit:
    asked, words = line["efficacy"][0], line.get("generated_rouge_l")
    written = line.get("paraphrase_continuations") or ()
    match = line.get("generated_match")
    before = first.get("efficacy")
    return Edit(
        question=complete(str(line["prompt"]), str(line["subject"])),
        new=str(line["target_new"]),
        old=None if line.get("target_true") is None else str(line["target_true"]),
        before=_text(first.get("continuation")),
        after=_text(line.get("continuation")),
        said=bool(asked["correct"] if match is None else match),
        reworded=(sum(bool(one["match"]) for one in written), len(written)) if written else None,
        words=None if words is None else float(words),
        sure=(_probability(before[0]["log_prob_new"]) if before else None, _probability(asked["log_prob_new"])),
    )


def _probability(log_prob: float | None) -> float:
    """Of a log-probability; what was no finite number is a null in the file."""
    return nan if log_prob is None else exp(log_prob)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _compared(line: Mapping[str, Any], first: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Loss | None]]:
    """Each fact about others that was known before, by question and answer, and its loss where it is lost."""
    subject = (str(line["subject"]),)
    for kind, target in RIGHT.items():
        for was, now in zip(first.get(kind) or (), line.get(kind) or (), strict=False):
            if _known(was):
                name = "log_prob_true" if kind == "neighborhood" else "log_prob_new"
                question, answer = str(now["prompt"]), str(line[target])
                sure = _probability(was[name]), _probability(now[name])
                yield (question, answer), None if _known(now) else Loss(question, answer, subject, *sure)
    for was, now in zip(first.get("locality") or (), line.get("locality") or (), strict=False):
        if _known(was):
            question, answer = str(now["prompt"]), str(now["answer"])
            said = str(now.get("predicted_before") or answer), str(now.get("predicted") or "")
            yield (question, answer), None if _known(now) else Loss(question, answer, subject, *said)
