"""Files that a command writes by name: one that was there is replaced only where a command wrote that too."""

from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError

# How much of a file's beginning and of its end is looked at: a PDF says last what drew it.
LOOKED_AT = 2**16
NAME = "Lightning Edit"
FIGURE = NAME.encode()
# What `savefig` is to write into a figure: the name, and in no format when it was made, so that the same figure is the
# same file.
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"Subject": NAME, "CreationDate": None},
    "svg": {"Source": NAME, "Date": None},
    "png": {"Source": NAME},
}


def check_replaced(setting: str, path: Path, *signs: bytes) -> None:
    """Refuses to write over a file that none of the commands wrote.

    Args:
        setting: What names the file, such as ``--output``.
        path: The file that is going to be written; it need not be there.
        *signs: What a file of this kind holds, one of which is enough.

    Raises:
        EditError: If there is another file of this name.
    """
    if not path.is_file() or not (size := path.stat().st_size):
        return
    with path.open("rb") as file:
        looked_at = file.read(LOOKED_AT)
        if size > LOOKED_AT:
            file.seek(max(size - LOOKED_AT, LOOKED_AT))
            looked_at += file.read()
    if not any(sign in looked_at for sign in signs):
        raise EditError(
            f"`{setting}`: {path} is there already, and holds something else than what is written there. Give another "
            "name, or move the file away."
        )
