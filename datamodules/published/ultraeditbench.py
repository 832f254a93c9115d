"""UltraEditBench (Gu et al., 2025): two million questions without subjects."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.datamodules.fields import case_id, first_text, required_first_text, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.requests import EditRequest


class UltraEditBench(RecordDataModule):
    """UltraEditBench's records: ``prompt``, ``rephrase_prompt``, ``ans``, and an unrelated ``loc`` with ``loc_ans``.

    The other data sets in the form that UltraEdit and MALMEN read are read too, whose prompt is ``src`` and whose other
    wording is ``rephrase``. There is no subject, so values come from gradients: `Gradient`.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("ans",)
    typical = ("prompt", "rephrase_prompt", "ans")

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest:
        """One record as an edit; see `RecordDataModule.request`."""
        prompt, answer = first_text(record, "loc"), first_text(record, "loc_ans")
        field = "src" if record.get("prompt") is None and "src" in record else "prompt"
        return EditRequest(
            subject="",
            prompt=required_text({"prompt": None, **record}, field).strip(),
            target_new=required_first_text(record, "ans"),
            case_id=case_id(record, position),
            paraphrase_prompts=texts(record, "rephrase_prompt") or texts(record, "rephrase"),
            locality=((prompt, answer),) if prompt and answer else (),
        )
