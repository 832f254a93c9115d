"""Which file of ``configs/solvers/`` a run was given: some methods have the same settings as others."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_edit.configs import CONFIGS

# Its key in ``metrics.json`` and in checkpoints.
METHOD_FILE = "method_file"
FOLDER = "solvers"


def method_file(files: Iterable[Any]) -> str | None:
    """The name of the method's file, None where none was given.

    Args:
        files: The files of settings, in the order in which they were given; the last one of a method counts.
    """
    given = [Path(str(file)) for file in files]
    named = [file.stem for file in given if file.parent.name == FOLDER and (CONFIGS / FOLDER / file.name).is_file()]
    return named[-1] if named else None
