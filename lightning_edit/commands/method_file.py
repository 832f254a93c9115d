"""Which file of ``configs/solvers/`` a run was given: some methods have the same settings as others."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_edit.configs import CONFIGS
from lightning_edit.storage.user.json import read_json

# Its key in ``metrics.json``.
METHOD_FILE = "method_file"
FOLDER = "solvers"


def method_file(files: Iterable[Any], earlier: Path | None = None) -> str | None:
    """The name of the method's file, None where none was given.

    Args:
        files: The files of settings, in the order in which they were given; the last one of a method counts.
        earlier: The folder of a run that goes on, which may have noted it.
    """
    given = [Path(str(file)) for file in files]
    named = [file.stem for file in given if file.parent.name == FOLDER and (CONFIGS / FOLDER / file.name).is_file()]
    if named or earlier is None or not (earlier / "metrics.json").is_file():
        return named[-1] if named else None
    content = read_json(earlier / "metrics.json")
    noted = content.get(METHOD_FILE) if isinstance(content, dict) else None
    return noted if isinstance(noted, str) else None
