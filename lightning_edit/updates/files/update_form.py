"""What files of updates say of themselves, name by name."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.errors import EditError
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
LAYERS: Form = table(digits, fields({"module": text, "base": text}, {"after": text, "name": text}))
INFO: Form = fields(
    {}, {"model": text, "model_sample": text, "dtype": text, "removed_updates": each(count)}, others=True
)
EDITS: Form = each(fields(dict.fromkeys(EDIT_FIELDS, text)))
# What was not a finite number is null.
FIGURES: Form = table(text, maybe(number))
FORMS = {"layers": LAYERS, "info": INFO, "edits": EDITS, "figures": FIGURES, "owners": each(count)}


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
