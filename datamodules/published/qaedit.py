"""QAEdit (Yang et al., 2025): questions of three question-answering data sets, in which WILD judges as people do."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.datamodules.fields import case_id, entries, first_text, required_first_text, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.requests import EditRequest


class QAEdit(RecordDataModule):
    """QAEdit's records: a question ``prompt`` that holds the ``subject``, its answer ``target``, and a ``rephrase``.

    ``locality`` is a list of ``{"loc", "loc_ans"}``; one without an answer is left out, with a warning that counts
    them. A record whose question does not hold the subject is left out, too.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("prompt", "target", "subject")
    typical = ("prompt", "target", "rephrase")

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit; see `RecordDataModule.request`."""
        name = case_id({"case_id": record.get("id")}, position)
        place = self.cut_out(required_text(record, "prompt"), required_text(record, "subject"))
        if place is None:
            return LeftOut("their question does not hold their subject", case_id=name)
        return EditRequest(
            subject=place[1],
            prompt=place[0],
            target_new=required_first_text(record, "target"),
            case_id=name,
            paraphrase_prompts=texts(record, "rephrase"),
            locality=tuple(self._pairs(record)),
        )

    def _pairs(self, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        pairs = []
        for entry in entries(record, "locality"):
            if not isinstance(entry, Mapping) or "loc" not in entry:
                raise EditError(f"`locality` must be a list of {{'loc', 'loc_ans'}}, got {quoted(entry)} in it.")
            prompt, answer = first_text(entry, "loc"), first_text(entry, "loc_ans")
            if prompt and answer:
                pairs.append((prompt, answer))
            else:
                what = "locality prompt without an answer is", "locality prompts without an answer are"
                self.note(f"{what[0]} left out", f"{what[1]} left out", str(prompt))
        return pairs
