"""WikiBigEdit (Thede et al., 2025): half a million changes of Wikidata, as questions."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.datamodules.fields import case_id, first_text, required_first_text, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.ripple_fields import forms_of, simple_ripple
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.requests import EditRequest
from lightning_edit.ripples import Ripple


class WikiBigEdit(RecordDataModule):
    """WikiBigEdit's records: a question ``update`` that holds the ``subject``, its answer ``ans``, and tests.

    ``rephrase`` is another wording, ``loc`` and ``loc_ans`` an unrelated question. The same question as somebody else
    puts it (``personas``) is a test of the axis ``personas``, and ``mhop`` with ``mhop_ans``, which some records have,
    one of ``multi_hop``. A record whose question does not hold the subject is left out, with a warning that counts
    them.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("subject", "update", "ans")

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit; see `RecordDataModule.request`."""
        name, answer = case_id(record, position), required_first_text(record, "ans")
        place = self.cut_out(required_text(record, "update"), required_text(record, "subject"))
        if place is None:
            return LeftOut("their question does not hold their subject", case_id=name)
        prompt, unrelated = first_text(record, "loc"), first_text(record, "loc_ans")
        return EditRequest(
            subject=place[1],
            prompt=place[0],
            target_new=answer,
            case_id=name,
            paraphrase_prompts=texts(record, "rephrase"),
            locality=((prompt, unrelated),) if prompt and unrelated else (),
            ripples=tuple(_tests(record)),
        )


def _tests(record: Mapping[str, Any]) -> list[Ripple]:
    answer, hop = forms_of(record.get("ans"), "ans"), forms_of(record.get("mhop_ans"), "mhop_ans")
    tests = [simple_ripple("personas", prompt, answer) for prompt in texts(record, "personas")]
    return tests + [simple_ripple("multi_hop", prompt, hop) for prompt in texts(record, "mhop") if hop]
