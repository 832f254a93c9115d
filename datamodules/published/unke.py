"""UnKE (Deng et al., 2024): questions with answers of a paragraph."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.datamodules.fields import case_id, entries, first_text, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.ripple_fields import forms_of, simple_ripple
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest
from lightning_edit.ripples import Ripple


class UnKE(RecordDataModule):
    """Long answers: records with ``question``, ``answer``, and, if they have them, ``id`` and ``para_question``.

    The prompt is the question, and the answer follows after a space. There is no subject, so values come from a
    source: `Windows`, which these records are for, or `Gradient`. ``sub_question`` and ``sub_answer``, lists of one
    length about parts of the answer, are tests of the axis ``sub_questions``. A record without an id has its position.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("question", "answer")
    typical = ("question", "para_question", "answer")

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit; see `RecordDataModule.request`."""
        return EditRequest(
            subject="",
            prompt=required_text(record, "question").strip(),
            target_new=required_text(record, "answer"),
            case_id=case_id({"case_id": record.get("id")}, position),
            paraphrase_prompts=texts(record, "para_question"),
            ripples=_parts(record),
        )


def _parts(record: Mapping[str, Any]) -> tuple[Ripple, ...]:
    questions, answers = entries(record, "sub_question"), entries(record, "sub_answer")
    if len(questions) != len(answers):
        raise EditError(
            f"`sub_question` and `sub_answer` must be of one length, got {len(questions)} and {len(answers)}."
        )
    pairs = [
        (first_text({"sub_question": question}, "sub_question"), forms_of(answer, "sub_answer"))
        for question, answer in zip(questions, answers, strict=True)
    ]
    return tuple(simple_ripple("sub_questions", question, forms) for question, forms in pairs if question and forms)
