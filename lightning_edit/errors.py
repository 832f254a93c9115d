"""The one error a user is meant to read."""

from lightning_edit.messages import bounded, printable


class EditError(ValueError):
    """Something the user can mend: bad input, an impossible setting, a model or a file that does not fit.

    The message says what was expected, what was got and what to change. The command line shows the message alone,
    without a traceback.

    Args:
        message: The message. Whatever of the user's it quotes, it is kept short and without control characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(bounded(printable(message)))
