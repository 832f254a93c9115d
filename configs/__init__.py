"""The configuration files that ship with the package."""

from pathlib import Path

CONFIGS = Path(__file__).parent


def shipped(word: str) -> str:
    """Finds ``configs/...`` from any folder, as long as there is no such file of the user's own.

    Args:
        word: An argument: a path, or an option with ``=`` and a path; any other is returned as it is.
    """
    option, equals, path = word.rpartition("=")
    file = CONFIGS.parent / path
    if path.startswith("configs/") and path.endswith(".yaml") and not Path(path).exists() and file.is_file():
        return f"{option}{equals}{file}"
    return word
