"""A user's own edits, in JSON, JSON lines or CSV."""

import logging
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from lightning_edit.datamodules.fields import required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule, looks_like
from lightning_edit.datamodules.subjects import cut_out
from lightning_edit.errors import EditError
from lightning_edit.requests import TEXT_LISTS, EditRequest

logger = logging.getLogger(__name__)

ACCEPTED = tuple(field.name for field in fields(EditRequest))
SEPARATOR = "|"


class OwnEdits(RecordDataModule):
    """Edits with the fields of `EditRequest`, of which ``subject``, ``prompt`` and ``target_new`` are needed.

    The prompt holds ``{}`` in the place of the subject, or the subject itself (see `cut_out`). The optional fields:
    ``target_true``, ``case_id``, ``paraphrase_prompts``, ``neighborhood_prompts``, ``attribute_prompts``,
    ``generation_prompts``, ``reference_texts`` and ``essence_texts``, each a list, or one text with ``|`` between
    entries, as in CSV; and ``locality``, a list of pairs of prompt and answer (not in CSV). An unknown field is refused
    where it looks like a slip of the pen, and else not read, with a warning.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("subject", "prompt", "target_new")

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(path, **kwargs)
        self._ignored: set[str] = set()

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest:
        """One record as an edit.

        Args:
            record: The record.
            position: Its position in the data set.

        Raises:
            EditError: If the record lacks what is needed, has an unknown field that looks like a known one, or its
                prompt does not hold the subject.
        """
        values = {name: record[name] for name in ACCEPTED if record.get(name) is not None}
        values |= {name: required_text(record, name) for name in self.required}
        values |= {name: texts(record, name, SEPARATOR) for name in TEXT_LISTS}
        values["locality"] = texts(record, "locality")
        place = cut_out(values["prompt"], values["subject"])
        if place is None:
            raise EditError(
                f"the prompt {values['prompt']!r} holds neither {{}} nor the subject {values['subject']!r}. "
                "Put {} where the subject goes."
            )
        values |= {"prompt": place[0], "subject": place[1], "case_id": str(values.get("case_id", ""))}
        return EditRequest(**values)

    def _check_format(self, record: Any) -> None:
        if isinstance(record, Mapping):
            self._check_fields(record)
        super()._check_format(record)

    def _check_fields(self, record: Mapping[str, Any]) -> None:
        for name in record:
            if name in ACCEPTED or name in self._ignored:
                continue
            if close := get_close_matches(str(name).lower(), ACCEPTED, n=1):
                raise EditError(
                    f"unknown field {name!r}: did you mean {close[0]!r}? Accepted: {', '.join(ACCEPTED)}."
                    f"{looks_like(record, type(self))}"
                )
            self._ignored.add(name)
            logger.warning("The field %r is not read. Accepted: %s.", name, ", ".join(ACCEPTED))
