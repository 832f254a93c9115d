"""Cases of MQuAKE's form: several edits that a question over several hops goes through."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_edit.datamodules.fields import entries, required_text
from lightning_edit.datamodules.ripple_fields import forms_of
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.ripples import Query, Ripple

MULTI_HOP, INSTANCE_WISE = "multi_hop", "instance_wise"


def rewrites_of(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The edits of a record: one, or a list of them.

    Args:
        record: A record with ``requested_rewrite``.

    Raises:
        EditError: If there is none, or one is no object.
    """
    rewrites = record["requested_rewrite"]
    listed = [rewrites] if isinstance(rewrites, Mapping) else rewrites
    if not isinstance(listed, list | tuple) or not listed or not all(isinstance(one, Mapping) for one in listed):
        raise EditError(
            "`requested_rewrite` must be {'subject', 'prompt', 'target_new': {'str'}, ...} or a list of them, got "
            f"{quoted(rewrites)}."
        )
    return listed


def target_of(rewrite: Mapping[str, Any], name: str, flat: str) -> str | None:
    """A target, which is ``{"str"}`` in most records.

    Args:
        rewrite: One edit.
        name: The field, ``target_new`` or ``target_true``.
        flat: The field that holds it as a text in other records.

    Raises:
        EditError: If it is something else.
    """
    value = rewrite.get(name)
    if isinstance(value, Mapping):
        value = value.get("str")
    value = rewrite.get(flat) if value is None else value
    forms = forms_of(value, name)
    return forms[0] if forms else None


def new_target_of(rewrite: Mapping[str, Any], flat: str = "target_new") -> str:
    """The new target, which an edit must have.

    Args:
        rewrite: One edit.
        flat: See `target_of`.

    Raises:
        EditError: If there is none.
    """
    if "target_new" not in rewrite and flat not in rewrite:
        raise EditError("the field 'target_new' is missing in `requested_rewrite`.")
    return target_of(rewrite, "target_new", flat) or ""


def multi_hop(record: Mapping[str, Any], ask: str = "{}") -> list[Ripple]:
    """The test of a case's questions, any of which may be answered with the new answer or an alias (MQuAKE's rule).

    Args:
        record: With ``questions``, ``new_answer`` and ``new_answer_alias``, which may all be absent.
        ask: How a question is put, with ``{}`` in its place.

    Raises:
        EditError: If a field holds something else.
    """
    questions = forms_of(record.get("questions"), "questions")
    forms = forms_of([record.get("new_answer"), record.get("new_answer_alias")], "new_answer")
    if not questions or not forms:
        return []
    queries = tuple(Query(ask.replace("{}", question), (forms,)) for question in questions)
    return [Ripple(MULTI_HOP, queries, passes="any")]


def instance_wise(record: Mapping[str, Any]) -> list[Ripple]:
    """The test of all single hops of a case at once, by their cloze prompts.

    Args:
        record: With ``new_single_hops``, a list of ``{"cloze", "question", "answer", "answer_alias"}``, or without.

    Raises:
        EditError: If a hop is something else.
    """
    queries = []
    for hop in entries(record, "new_single_hops"):
        if not isinstance(hop, Mapping) or not (hop.get("cloze") or hop.get("question")):
            raise EditError(f"a hop of `new_single_hops` must be {{'cloze', 'answer', ...}}, got {quoted(hop)}.")
        forms = forms_of([hop.get("answer"), hop.get("answer_alias")], "answer")
        if not forms:
            return []
        queries.append(Query(required_text(hop, "cloze" if hop.get("cloze") else "question").strip(), (forms,)))
    return [Ripple(INSTANCE_WISE, tuple(queries))] if queries else []
