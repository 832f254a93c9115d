"""UnKE (Deng et al., 2024): questions with answers of a paragraph; EditEverything has the same fields."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.datamodules.fields import case_id, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.requests import EditRequest


class UnKE(RecordDataModule):
    """Long answers: records with ``question``, ``answer``, and, if they have them, ``id`` and ``para_question``.

    The prompt is the question, and the answer follows after a space. There is no subject, so values come from a
    source: `Windows`, which these records are for, or `Gradient`. Other fields (``sub_question``, ``sub_answer``,
    ``category``) are not read. A record without an id has its position.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("question", "answer")
    typical = ("question", "para_question", "answer")

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest:
        """One record as an edit; see `RecordDataModule.request`."""
        return EditRequest(
            subject="",
            prompt=required_text(record, "question").strip(),
            target_new=required_text(record, "answer"),
            case_id=case_id({"case_id": record.get("id")}, position),
            paraphrase_prompts=texts(record, "para_question"),
        )
