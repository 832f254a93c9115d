"""What files of updates say of themselves, name by name."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest
from lightning_edit.storage.form import (
    Form,
    WrongFormError,
    anything,
    count,
    digits,
    each,
    fields,
    maybe,
    number,
    table,
    text,
)
from lightning_edit.storage.user.json import parse_json

EDIT_FIELDS = ("case_id", "subject", "prompt", "target_new")
# The record's own prompt, where it was asked as a question; earlier versions wrote the question alone.
PLAIN = "plain_prompt"
LAYERS: Form = table(digits, fields({"module": text, "base": text}, {"after": text, "name": text}))
INFO: Form = fields(
    {}, {"model": text, "model_sample": text, "dtype": text, "removed_updates": each(count)}, others=True
)
EDITS: Form = each(fields(dict.fromkeys(EDIT_FIELDS, text), {PLAIN: text}))
# What was not a finite number is null.
FIGURES: Form = table(text, maybe(number))
FORMS = {"layers": LAYERS, "info": INFO, "edits": EDITS, "figures": FIGURES, "owners": each(count)}


def kept_of(request: EditRequest) -> dict[str, str]:
    """What is kept of an edit.

    Args:
        request: The edit, as it was asked.
    """
    kept = {name: str(getattr(request, name)) for name in EDIT_FIELDS}
    return kept if request.original is None else {**kept, PLAIN: request.original.prompt}


def kept_fact(edit: Mapping[str, str]) -> tuple[str, str]:
    """What a kept edit is about, as `fact_of` says it; its question, where an earlier version kept no more of it.

    Args:
        edit: See `kept_of`.
    """
    return edit["subject"].strip(), edit.get(PLAIN, edit["prompt"]).strip()


def possible_facts(edit: Mapping[str, str]) -> set[tuple[str, str]]:
    """What an edit may be called where it was kept: as it is now, or in a chat of an earlier version by its question.

    Args:
        edit: See `kept_of`.
    """
    return {kept_fact(edit), (edit["subject"].strip(), edit["prompt"].strip())}


def described(metadata: Mapping[str, str], name: str) -> Any:
    """One of the JSON texts that a file says of itself.

    Args:
        metadata: What it says.
        name: Which: ``layers``, ``info``, ``edits``, ``figures`` or ``owners``.

    Raises:
        WrongFormError: If it is not there, no JSON, or of another form.
    """
    fields({name: text}, others=True)(metadata, "")
    try:
        content = parse_json(metadata[name], name)
    except EditError as error:
        raise WrongFormError(name, "JSON", metadata[name]) from error
    FORMS.get(name, anything)(content, name)
    return content
