"""The shipped lists of public subjects and of wordings to ask about them, both by kind of subject."""

from pathlib import Path

from lightning_edit.storage.user.yaml import read_yaml

FOLDER = Path(__file__).parent


def subjects() -> dict[str, list[str]]:
    """Public subjects of many kinds, such as cities, books and animals.

    Returns:
        For each kind its subjects; none stands under two kinds.
    """
    listed: dict[str, list[str]] = read_yaml(FOLDER / "subjects.yaml")
    return listed


def wordings() -> dict[str, list[str]]:
    """Questions, requests and beginnings of sentences about subjects.

    Returns:
        For each kind of `subjects` at least eight wordings, each with one ``{}`` for the subject; see `filled`.
    """
    listed: dict[str, list[str]] = read_yaml(FOLDER / "wordings.yaml")
    return listed
