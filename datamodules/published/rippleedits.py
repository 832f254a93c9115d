"""RippleEdits (Cohen et al., 2023): edits with tests of all that ripples out from them, and conditions of the tests."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from lightning_edit.datamodules.fields import case_id, entries, required_text
from lightning_edit.datamodules.published.ripple_sentences import Sentence, sentence_of
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.ripple_fields import axis_name, forms_of
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.requests import EditRequest
from lightning_edit.ripples import Query, Ripple
from lightning_edit.settings import SOURCE

AXES = (
    "relation_specificity",
    "logical_generalization",
    "subject_aliasing",
    "compositionality_i",
    "compositionality_ii",
    "forgetfulness",
)
KEPT = ("relation_specificity", "forgetfulness")
BEFORE = ("original_fact", "previous_fact")
FORMAT = "{'test_queries': [{'prompt', 'answers': [{'value', 'aliases'}]}], 'test_condition', 'condition_queries'}"


class RippleEdits(RecordDataModule):
    """RippleEdits' records: ``edit`` with a sentence that states the new fact, and six lists of tests.

    Subject and target are taken from the sentence (see `sentence_of`), as the files name entities by their ids alone;
    a record whose sentence is worded in no known way is left out, with a warning that counts them. The sentence of
    ``original_fact`` (or ``previous_fact``) gives the true target.

    A test passes if ``OR`` or ``AND`` (``test_condition``) of its queries are answered rightly, which is saying every
    answer by its ``value`` or one of its ``aliases``. A query without answers asks for nothing and is left out, with a
    test that has no other; both with a warning that counts them.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        known: Whether tests of an edit count only if the model knew the original fact before, or where there is none
            did not know the new one, as in the published benchmark.
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("edit",)
    typical = ("edit", "example_type")

    def __init__(self, path: Annotated[str, SOURCE], known: bool = True, **kwargs: Any) -> None:
        super().__init__(path, **kwargs)
        self.known = known

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit; see `RecordDataModule.request`."""
        edit, name = record["edit"], case_id(record, position)
        if not isinstance(edit, Mapping) or "prompt" not in edit:
            raise EditError(f"`edit` must be {{'prompt', 'relation', ...}}, got {quoted(edit)}.")
        earlier = next((edit[field] for field in BEFORE if edit.get(field) is not None), None)
        fact = sentence_of(required_text(edit, "prompt"), edit.get("relation"))
        if fact is None:
            return LeftOut("their sentence is worded in none of the known ways", case_id=name)
        true = None if earlier is None else self._true(earlier, edit.get("relation"), fact)
        return EditRequest(
            subject=fact.subject,
            prompt=fact.prompt,
            target_new=fact.target,
            target_true=true,
            case_id=name,
            ripples=self._ripples(record, fact, true),
        )

    def _true(self, earlier: Any, relation: Any, fact: Sentence) -> str:
        if not isinstance(earlier, Mapping) or "prompt" not in earlier:
            raise EditError(f"the original fact must be {{'prompt', ...}}, got {quoted(earlier)}.")
        found = sentence_of(required_text(earlier, "prompt"), relation)
        if found is None or (found.subject, found.prompt) != (fact.subject, fact.prompt):
            raise EditError(f"the original fact {quoted(earlier['prompt'])} is not about what the edit is about.")
        return found.target

    def _ripples(self, record: Mapping[str, Any], fact: Sentence, true: str | None) -> tuple[Ripple, ...]:
        conditions: tuple[Query, ...] = ()
        unknown: tuple[Query, ...] = ()
        if self.known and true is not None:
            conditions = (Query(fact.complete, ((true,),)),)
        elif self.known:
            unknown = (Query(fact.complete, ((fact.target,),)),)
        tests = []
        for field, listed in record.items():
            if (axis := axis_name(str(field))) not in AXES or listed is None:
                continue
            if not isinstance(listed, list | tuple):
                raise EditError(f"`{field}` must be a list of {FORMAT}, got {quoted(listed)}.")
            tests += [self._ripple(axis, entry, conditions, unknown) for entry in listed]
        return tuple(test for test in tests if test is not None)

    def _ripple(
        self, axis: str, entry: Any, conditions: tuple[Query, ...], unknown: tuple[Query, ...]
    ) -> Ripple | None:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("test_queries"), list | tuple):
            raise EditError(f"a test of {axis} must be {FORMAT}, got {quoted(entry)}.")
        how = str(entry.get("test_condition") or "OR").upper()
        if how not in ("OR", "AND"):
            raise EditError(f"`test_condition` must be OR or AND, got {quoted(entry['test_condition'])}.")
        queries = self._queries(entry["test_queries"])
        if not queries:
            what = "without an answer to any query"
            self.note(f"test {what} is left out", f"tests {what} are left out", str(entry["test_queries"])[:80])
            return None
        passes: Any = "any" if how == "OR" else "all"
        own = (*conditions, *self._queries(entries(entry, "condition_queries")))
        return Ripple(axis, queries, passes, own, unknown, kept=axis in KEPT)

    def _queries(self, listed: Sequence[Any]) -> tuple[Query, ...]:
        queries = []
        for entry in listed:
            if not isinstance(entry, Mapping) or "prompt" not in entry:
                raise EditError(
                    f"a query must be {{'prompt', 'answers': [{{'value', 'aliases'}}]}}, got {quoted(entry)}."
                )
            answers = tuple(forms for answer in entries(entry, "answers") if (forms := _forms(answer)))
            if answers:
                queries.append(Query(required_text(entry, "prompt"), answers))
            else:
                self.note("query without answers is left out", "queries without answers are left out", entry["prompt"])
        return tuple(queries)


def _forms(answer: Any) -> tuple[str, ...]:
    if not isinstance(answer, Mapping):
        return forms_of(answer, "answers")
    return forms_of([answer.get("value"), answer.get("aliases")], "answers")
