"""The name that a user gives a run: of its folder, and in tables and figures."""

import re
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted

LONGEST = 80
NAME = re.compile(rf"[^\W_](?:[\w .,+=()-]{{0,{LONGEST - 2}}}[\w+)=-])?")
# How folders of runs without a name are called.
NUMBERED = re.compile(r"version_\d+")


def is_name(name: Any) -> bool:
    """Whether a text can be the name of a run.

    Args:
        name: The text.
    """
    return isinstance(name, str) and NAME.fullmatch(name) is not None and NUMBERED.fullmatch(name) is None


def check_name(name: str | None) -> None:
    """Refuses a name that no folder can have on all systems, or that others have.

    Args:
        name: As the user gave it, None for none.

    Raises:
        EditError: Says what a name is made of.
    """
    if name is not None and not is_name(name):
        raise EditError(
            f"`name` is the name of the run's folder: up to {LONGEST} letters, digits, spaces and any of _ . , + = ( ) "
            "-, with a letter or a digit at the beginning and no space or dot at the end, and not version_N, as runs "
            f"without a name are called. Got {quoted(name)}."
        )
