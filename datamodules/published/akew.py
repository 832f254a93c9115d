"""AKEW (Wu et al., 2024): facts as statements or as texts of a paragraph: CounterFact, MQuAKE-CF and WikiUpdate."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from lightning_edit.datamodules.fields import case_id, entries, first_text, required_text, texts
from lightning_edit.datamodules.published.cases import instance_wise, multi_hop, new_target_of, rewrites_of, target_of
from lightning_edit.datamodules.published.mquake import optional_question
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.ripple_fields import forms_of, simple_ripple
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.datamodules.whole_cases import WholeCases, refuse_torn_cases, tested
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.requests import EditRequest
from lightning_edit.ripples import Ripple
from lightning_edit.settings import SOURCE

Form = Literal["structured", "unstructured"]
TRIPLETS = "unsfact_triplets_GPT"


class AKEW(WholeCases, RecordDataModule):
    """AKEW's records: ``requested_rewrite`` with a short new answer and a text that tells the same.

    ``structured`` edits are those of CounterFact, MQuAKE and WikiUpdate: subject, prompt with ``{}``, and
    ``target_new`` (``answer_new`` in WikiUpdate). ``unstructured`` ones have no subject: the prompt is the
    ``question``, or else the complete prompt, and the answer is the text ``fact_new_uns``; the facts in it
    (``unsfact_triplets_GPT``) are tests of the axis ``sub_questions``. Of MQuAKE-CF each entry of
    ``requested_rewrite`` is an edit, the last one brings the tests of the case, and cases are edited as a whole, see
    `MQuAKE`.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        form: What is edited.
        kwargs: See `RecordDataModule` and `EditDataModule`.

    Raises:
        EditError: See `MQuAKE`.
    """

    required = ("requested_rewrite",)
    typical = ("requested_rewrite", "loc", "loc_ans")

    def __init__(self, path: Annotated[str, SOURCE], form: Form = "structured", **kwargs: Any) -> None:
        super().__init__(path, **kwargs)
        refuse_torn_cases(self.shuffle, self.limit, self.unique_subjects)
        self.form = form

    def requests_of(self, record: Mapping[str, Any], position: int) -> Sequence[EditRequest | LeftOut]:
        """The edits of a record; see `RecordDataModule.requests_of`."""
        rewrites, name = rewrites_of(record), case_id(record, position)
        make = self._statement if self.form == "structured" else self._text
        edits = [make(record, rewrite, name) for rewrite in rewrites]
        return tested(edits, (*multi_hop(record), *instance_wise(record)))

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """The last edit of a record, which brings its tests."""
        return self.requests_of(record, position)[-1]

    def _statement(self, record: Mapping[str, Any], rewrite: Mapping[str, Any], name: str) -> EditRequest:
        subject, prompt = _needed(rewrite, "subject"), _needed(rewrite, "prompt")
        if (place := self.cut_out(prompt, subject)) is None:
            raise EditError(f"the prompt {quoted(prompt)} holds neither {{}} nor its subject {quoted(subject)}.")
        return EditRequest(
            subject=place[1],
            prompt=place[0],
            target_new=new_target_of(rewrite, "answer_new"),
            target_true=target_of(rewrite, "target_true", "answer_true"),
            case_id=name,
            question=optional_question(self, rewrite.get("question"), place[1]),
            paraphrase_prompts=texts(record, "paraphrase_prompts"),
            neighborhood_prompts=texts(record, "neighborhood_prompts"),
            locality=_unrelated(record),
        )

    def _text(self, record: Mapping[str, Any], rewrite: Mapping[str, Any], name: str) -> EditRequest:
        subject, prompt = _needed(rewrite, "subject"), _needed(rewrite, "prompt")
        complete = first_text(rewrite, "prompt_full") or prompt.replace("{}", subject)
        question = first_text(rewrite, "question")
        # In WikiUpdate and MQuAKE-CF the prompt, without its question, is the other wording.
        others = texts(record, "paraphrase_prompts") or ((complete,) if question else ())
        return EditRequest(
            subject="",
            prompt=(question or complete).strip(),
            target_new=_needed(rewrite, "fact_new_uns"),
            case_id=name,
            paraphrase_prompts=others,
            locality=_unrelated(record),
            ripples=tuple(_facts_of(rewrite)),
        )


def _needed(rewrite: Mapping[str, Any], field: str) -> str:
    if field not in rewrite:
        raise EditError(f"the field {field!r} is missing in `requested_rewrite`.")
    return required_text(rewrite, field)


def _unrelated(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    prompt, answer = first_text(record, "loc"), first_text(record, "loc_ans")
    return () if prompt is None or answer is None else ((prompt, answer),)


def _facts_of(rewrite: Mapping[str, Any]) -> list[Ripple]:
    tests = []
    for triplet in entries(rewrite, TRIPLETS):
        if not isinstance(triplet, Mapping):
            raise EditError(f"`{TRIPLETS}` must be a list of {{'subject', 'prompt', 'target'}}, got {quoted(triplet)}.")
        prompt, forms = first_text(triplet, "prompt"), forms_of(triplet.get("target"), "target")
        if prompt is not None and forms:
            subject = first_text(triplet, "subject") or ""
            tests.append(simple_ripple("sub_questions", prompt.replace("{}", subject), forms))
    return tests
