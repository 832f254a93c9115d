"""A user's own edits, in JSON, JSON lines or CSV."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Annotated, Any

from lightning_edit.datamodules.fields import case_id, required_text, split_texts, with_escapes
from lightning_edit.datamodules.record_module import RecordDataModule, looks_like
from lightning_edit.datamodules.ripple_fields import own_ripples
from lightning_edit.datamodules.subjects import refuse_hole
from lightning_edit.datamodules.text_ends import without_spaces
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, listed, quoted
from lightning_edit.requests import TEXT_LISTS, EditRequest
from lightning_edit.settings import SOURCE
from lightning_edit.storage.user.json import parse_json

logger = logging.getLogger(__name__)

ACCEPTED = tuple(field.name for field in fields(EditRequest) if field.compare)
CLOSE = 6
TRIED = 200


class OwnEdits(RecordDataModule):
    r"""Edits with the fields of `EditRequest`, of which ``prompt`` and ``target_new`` are needed.

    A search for values needs the ``subject`` as well, values from gradients do without. The prompt holds ``{}`` in the
    place of the subject, or the subject itself (see `cut_out`), and so does ``question``, which a chat model is asked
    instead; ``answer`` is how it should answer, with ``target_new`` in it. The other optional fields: ``target_true``,
    ``case_id``; ``paraphrase_prompts``, ``paraphrase_questions``, ``neighborhood_prompts``, ``attribute_prompts``,
    ``generation_prompts``, ``reference_texts`` and ``essence_texts``, each a list, or one text: a JSON list, or with
    ``|`` between entries, as in CSV (the bars of chat markup such as ``<|im_start|>`` separate nothing; other entries
    that hold a bar need a JSON list); ``separator``, in which ``\n`` and ``\t`` are a line break and a tab; and
    ``locality``, a list of pairs of prompt and answer, and ``ripples``, tests of what follows (see `own_ripples`), both
    in CSV as JSON. Spaces at the ends of prompts and questions are left out, with a warning; those before an answer
    stay where the ``separator`` is empty. An unknown field is refused where it looks like a slip of the pen, and else
    not read, with a warning.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("prompt", "target_new")
    typical = ("subject", "prompt", "target_new")
    one_each = True

    def __init__(self, path: Annotated[str, SOURCE], **kwargs: Any) -> None:
        super().__init__(path, **kwargs)
        self._ignored: set[str] = set()

    def begin(self) -> None:
        """Forgets the fields of earlier records; see `RecordDataModule.begin`."""
        super().begin()
        self._ignored.clear()

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest:
        """One record as an edit; see `RecordDataModule.request`."""
        values = {name: record[name] for name in ACCEPTED if record.get(name) is not None}
        values |= {name: required_text(record, name) for name in self.required}
        values |= {name: split_texts(record, name) for name in (*TEXT_LISTS, "locality")}
        if isinstance(values.get("separator"), str):
            # A cell of CSV that holds white space alone is an empty one.
            values["separator"] = with_escapes(values["separator"])
        given = record.get("ripples")
        values["ripples"] = parse_json(given, "`ripples`") if isinstance(given, str) else given
        values = self._without_spaces(values)
        values["ripples"] = own_ripples(values["ripples"])
        if record.get("subject") in (None, ""):
            refuse_hole(values["prompt"])
            return EditRequest(**{**values, "subject": "", "case_id": case_id(record)})
        values["subject"] = required_text(record, "subject")
        place = self.cut_out(values["prompt"], values["subject"])
        if place is None:
            raise EditError(
                f"the prompt {quoted(values['prompt'])} holds neither {{}} nor the subject "
                f"{quoted(values['subject'])}. Put {{}} where the subject goes."
            )
        values |= {"prompt": place[0], "subject": place[1], "case_id": case_id(record)}
        values["question"] = self.question_of(values.get("question"), place[1])
        return EditRequest(**values)

    def _without_spaces(self, values: Mapping[str, Any]) -> dict[str, Any]:
        what = "space at an end, which is left out"
        separator = values.get("separator", self.separator)
        return without_spaces(
            values, separator != "", lambda text: self.note(f"prompt has a {what}", f"prompts have a {what}", text)
        )

    def check(self, requests: Sequence[EditRequest]) -> None:
        """Warns of what was noted, and of names that several edits share."""
        super().check(requests)
        counts = Counter(request.case_id for request in requests if request.case_id)
        shared = [name for name, count in counts.items() if count > 1]
        if shared:
            what = counted(len(shared), "`case_id` is", "`case_id`s are")
            logger.warning("%s that of several edits (%s): results cannot be told apart by it.", what, listed(shared))

    def _check_format(self, record: Any) -> None:
        if isinstance(record, Mapping):
            self._check_fields(record)
        super()._check_format(record)

    def _check_fields(self, record: Mapping[str, Any]) -> None:
        for name in record:
            if name in ACCEPTED or name in self._ignored:
                continue
            if close := _close(str(name)) if len(self._ignored) < TRIED else "":
                raise EditError(
                    f"unknown field {quoted(name)}: did you mean {close!r}? Accepted: {', '.join(ACCEPTED)}."
                    f"{looks_like(record, type(self))}"
                )
            self._ignored.add(name)
            what = f"not read, being none of {', '.join(ACCEPTED)}"
            self.note(f"field is {what}", f"fields are {what}", str(name))


def _close(name: str) -> str:
    """The accepted field that a name is a slip of, if any."""
    longest = max(map(len, ACCEPTED)) + CLOSE
    close = get_close_matches(name.lower(), ACCEPTED, n=1) if len(name) <= longest else []
    return close[0] if close else ""
