"""What texts are made of."""


def is_visible(text: str) -> bool:
    """Whether there is anything to see, and not only spaces, or characters without width.

    Args:
        text: The text.
    """
    return any(letter.isprintable() and not letter.isspace() for letter in text)


def fault_of(text: str) -> str | None:
    """What is wrong with a text that no tokenizer takes and no file holds, to follow its name; None where nothing is.

    Args:
        text: The text.
    """
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return f"{text[:120]!r} holds half of a surrogate pair, which is no character; remove it"
    return None
