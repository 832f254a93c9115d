"""Facts that a model may know, from a file of any of the formats in which edits and facts are published."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.asking.chat import COMPLETE
from lightning_edit.datamodules.records import read_records
from lightning_edit.datamodules.subjects import cut_out
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.tracing.facts import Fact

# By these names a record gives the answer that holds before any edit. The `answer` of an edit holds after it.
OF_EDITS = ("target_true", "attribute", "ground_truth")
ANSWERS = ("answer", *OF_EDITS)
PROMPTS = ("prompt", "template")


def read_facts(path: str, chat: bool = False) -> list[Fact]:
    """The facts in a file: records with subject, prompt and the true answer.

    CounterFact's records are read too, and those of the published list of known facts, whose ``attribute`` is the
    answer. The ``answer`` of a record with ``target_new`` is the new one, so there the true one is ``target_true``.

    Args:
        path: A CSV, JSON or JSONL file, or what else `read_records` reads.
        chat: Whether they are asked in a chat: by the record's ``question``, or else by its prompt to be completed.

    Raises:
        EditError: If a record is no fact; the message names its place.
    """
    facts = []
    for record, where in read_records(path):
        try:
            facts.append(_fact(record, chat))
        except EditError as error:
            raise EditError(f"{where}: {error}") from error
    if not facts:
        raise EditError(f"`--data`: {path} holds no record.")
    return list(dict.fromkeys(facts))


def _fact(record: Any, chat: bool) -> Fact:
    if isinstance(record, Mapping) and isinstance(record.get("requested_rewrite"), Mapping):
        record = record["requested_rewrite"]
    if not isinstance(record, Mapping):
        raise EditError(f"expected an object with the fields subject, prompt and answer, got {quoted(record)}.")
    question = record.get("question") if chat else None
    subject = record.get("subject")
    prompt = question or next((record[name] for name in PROMPTS if record.get(name)), None)
    names = OF_EDITS if record.get("target_new") else ANSWERS
    answer = next((record[name] for name in names if record.get(name)), None)
    if isinstance(answer, Mapping):
        answer = answer.get("str")
    if not all(isinstance(text, str) and text.strip() for text in (subject, prompt, answer)):
        raise EditError(
            f"a fact needs the texts subject, prompt, and {' or '.join(names)} (what the model answers before any "
            f"edit), got the fields {', '.join(map(str, record)) or 'none'}."
        )
    assert isinstance(subject, str) and isinstance(prompt, str) and isinstance(answer, str)
    place = cut_out(prompt, subject)
    if place is None:
        raise EditError(f"the prompt {quoted(prompt)} holds neither {{}} nor the subject {quoted(subject)}.")
    asked = COMPLETE.replace("{}", place[0]) if chat and not question else place[0]
    return Fact(place[1].strip(), asked, answer.strip())
