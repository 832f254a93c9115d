"""The one error a user is meant to read."""


class EditError(ValueError):
    """Something the user can mend: bad input, an impossible setting, a model or a file that does not fit.

    The message says what was expected, what was got and what to change. The command line shows the message alone,
    without a traceback.
    """
