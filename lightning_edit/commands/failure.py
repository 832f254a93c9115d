"""How a command ends that cannot do what it was asked for: one message and status 2."""

import sys
from collections.abc import Iterator
from typing import NoReturn

from rich.text import Text

from lightning_edit.messages import bounded, terminal


def fail(message: str) -> NoReturn:
    """Shows a mistake of the user's and leaves with status 2.

    Args:
        message: What was expected, what was got, what to change.
    """
    # In one piece, as other processes may have something to say too.
    terminal(stderr=True).print(Text.assemble(("error:", "bold red"), " ", bounded(message, 6000)), soft_wrap=True)
    sys.exit(2)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it.

    Args:
        error: The error.
    """
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
