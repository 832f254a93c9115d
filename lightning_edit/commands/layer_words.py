"""Layers as people write them on a command line."""

import json
import re

from lightning_edit.errors import EditError

# Lists in brackets are read as YAML.
SPANS = re.compile(r"\s*\d[\d\s,-]*")


def layer_list(text: str, setting: str = "--layers") -> list[int]:
    """Layers as people write them: ``5``, ``3-8``, ``3,4,5`` or ``[3, 4, 5]``.

    Args:
        text: What was given.
        setting: What it was given for.

    Raises:
        EditError: If it is something else.
    """
    layers: list[int] = []
    for part in text.strip().strip("[]").split(","):
        first, dash, last = (end.strip() for end in part.partition("-"))
        ends = [first, last] if dash else [first]
        if not all(end.isdecimal() for end in ends) or int(ends[-1]) < int(ends[0]):
            raise EditError(f"`{setting}` must be numbers of blocks such as 5, 3-8 or 3,4,5, got {text}.")
        layers += range(int(ends[0]), int(ends[-1]) + 1)
    return layers


def layers_as_list(text: str) -> str:
    """The value of ``--model.layers`` as the parser reads it: ``5-8`` becomes a list, all else is left as it is.

    Args:
        text: What was given.

    Raises:
        EditError: If it looks like numbers of blocks and is none.
    """
    return json.dumps(layer_list(text, "--model.layers")) if SPANS.fullmatch(text) else text
