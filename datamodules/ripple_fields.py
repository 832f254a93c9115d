"""Tests of what follows from an edit, from the fields of records, which are written in more than one way."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_edit.datamodules.fields import first_text
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.ripples import Query, Ripple

# The README of RippleEdits misspells one.
SPELLINGS = {"relation_specifity": "relation_specificity"}


def axis_name(name: str) -> str:
    """The name of an axis, from how a data set spells it.

    Args:
        name: Such as "Logical_Generalization".
    """
    plain = re.sub(r"\W+", "_", name.strip().casefold())
    return SPELLINGS.get(plain, plain)


def forms_of(value: Any, name: str) -> tuple[str, ...]:
    """The accepted forms of one answer: a text, a number, or lists of them in lists, all of which count.

    Args:
        value: What the record holds.
        name: Its field, for messages.

    Returns:
        The forms in their order, without empty ones.

    Raises:
        EditError: If it holds something else.
    """
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(form for entry in value for form in forms_of(entry, name)))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise EditError(f"`{name}` must be a text or a list of texts, got {quoted(value)}.")
    text = str(value).strip()
    return (text,) if text else ()


def simple_ripple(
    axis: str, prompt: str, forms: tuple[str, ...], kept: bool = False, choices: tuple[str, ...] = ()
) -> Ripple:
    """A test of one question with one answer.

    Args:
        axis: Its axis.
        prompt: The complete prompt.
        forms: The answer's accepted forms; none takes the unedited model's answer.
        kept: Whether the answer should stay.
        choices: Of a closed question all that can be answered, which must follow from the axis and the answer.
    """
    return Ripple(axis, (Query(prompt, (forms,) if forms else (), choices, implied=bool(choices)),), kept=kept)


def grouped(record: Mapping[str, Any], field: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The entries of a field of KnowEdit's form, ``{axis: [{"prompt", "ground_truth"}, ...]}``.

    Args:
        record: A record.
        field: The field, which may be absent; so may each list.

    Yields:
        Axis, prompt, and the answer's accepted forms, of which there may be none.

    Raises:
        EditError: If the field has another form, or a prompt is empty.
    """
    wanted = f"`{field}` must be {{axis: [{{'prompt', 'ground_truth'}}, ...]}}"
    groups = record.get(field)
    if groups is None:
        return
    if not isinstance(groups, Mapping):
        raise EditError(f"{wanted}, got {quoted(groups)}.")
    for axis, entries in groups.items():
        if not isinstance(entries, list | tuple | None):
            raise EditError(f"{wanted}, got {quoted(entries)} under {quoted(axis)}.")
        for entry in entries or ():
            prompt = first_text(entry, "prompt") if isinstance(entry, Mapping) else None
            if prompt is None:
                raise EditError(f"{wanted}, got {quoted(entry)} under {quoted(axis)}.")
            yield axis_name(str(axis)), prompt, forms_of(entry.get("ground_truth"), "ground_truth")


def own_ripples(value: Any) -> tuple[Ripple, ...]:
    """Tests in the form of a user's own records.

    Args:
        value: ``{axis: [{"prompt", "answers", "choices", "conditions", "unknown", "kept"}, ...]}``; an entry with
            ``queries`` (and ``passes``), a list of ``{"prompt", "answers", "choices"}``, is a test of several
            questions.

    Raises:
        EditError: If it has another form.
    """
    wanted = "`ripples` must be {axis: [{'prompt', 'answers'}, ...]}"
    if value is None:
        return ()
    if not isinstance(value, Mapping) or not all(isinstance(entries, list) for entries in value.values()):
        raise EditError(f"{wanted}, got {quoted(value)}.")
    return tuple(_own(axis_name(str(axis)), entry, wanted) for axis, entries in value.items() for entry in entries)


def _own(axis: str, entry: Any, wanted: str) -> Ripple:
    # Parquet has all columns in every row, empty where a record has no such field.
    given = {name: value for name, value in entry.items() if value is not None} if isinstance(entry, Mapping) else {}
    asked = {"queries"} if "queries" in given else {"prompt", "answers", "choices"}
    needed, others = asked - {"answers", "choices"}, {"passes", "conditions", "unknown", "kept"}
    if not needed <= set(given) or set(given) - asked - others:
        raise EditError(f"{wanted}, or with `queries` in place of both; got {quoted(entry)}.")
    parts = {name: given.get(name, []) for name in ("conditions", "unknown")}
    parts["queries"] = given["queries"] if "queries" in given else [{name: given[name] for name in asked & set(given)}]
    for name, part in parts.items():
        if not isinstance(part, list):
            raise EditError(f"{wanted}, and `{name}` a list of {{'prompt', 'answers'}}, got {quoted(part)}.")
    kept = given.get("kept", False)
    if not isinstance(kept, bool):
        raise EditError(f"{wanted}, and `kept` true or false, got {quoted(kept)}.")
    made = {name: tuple(own_query(query) for query in part) for name, part in parts.items()}
    queries, conditions, unknown = made["queries"], made["conditions"], made["unknown"]
    return Ripple(axis, queries, given.get("passes", "all"), conditions, unknown, kept)


def own_query(entry: Any) -> Query:
    """A question in a user's own form: ``answers`` is a text, a list of its accepted forms, or a list of such lists.

    Args:
        entry: With ``prompt`` and, if it has any, ``answers`` and ``choices``, a list of texts.

    Raises:
        EditError: If they are something else, or there is another field.
    """
    if not isinstance(entry, Mapping) or "prompt" not in entry or set(entry) - {"prompt", "answers", "choices"}:
        raise EditError(f"a question of `ripples` must be {{'prompt', 'answers', 'choices'}}, got {quoted(entry)}.")
    answers, choices = entry.get("answers"), forms_of(entry.get("choices"), "choices")
    if isinstance(answers, list) and any(isinstance(forms, list) for forms in answers):
        several = tuple(forms_of(forms, "answers") for forms in answers)
        return Query(entry["prompt"], tuple(forms for forms in several if forms), choices)
    forms = forms_of(answers, "answers")
    return Query(entry["prompt"], (forms,) if forms else (), choices)
