"""The relative paths among a run's settings, where the run is resumed or measured from another folder."""

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_edit.commands.run_config import FOLDERS
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted

# Settings that may name a folder to read; of all others only files are looked for, as their values may be any words.
READ_FOLDERS = ("net", "on_top_of", "data_dir", "include_path")
# What does not name files to read.
OTHERS = ("name", "ckpt_path", "trainer")


def check_relative(settings: Mapping[str, Any], given: Path, run: Path) -> None:
    """Refuses settings of a run whose relative paths lead nowhere from here, but do from a folder above the run.

    They are kept as they were typed, and a run lies below the folder where it was started, as a rule.

    Args:
        settings: All settings, nested mappings.
        given: What is resumed or measured, the run or a checkpoint of it.
        run: The folder of its run.

    Raises:
        EditError: Says from where the paths lead to something.
    """
    above = run.resolve().parents
    for name, value in _texts({key: entry for key, entry in settings.items() if key not in OTHERS}):
        # A bare name in `model` is a hub's as well as a folder's.
        folder = name.rpartition(".")[2] in READ_FOLDERS or value.startswith(("./", "../"))
        path_like = value and (folder or "." in value or "/" in value)
        if not path_like or value.startswith("~") or Path(value).is_absolute() or _is_read(Path(value), folder=True):
            continue
        start = next((one for one in above if _is_read(one / value, folder)), None)
        if start is not None:
            there = shlex.quote(os.path.relpath(given.resolve(), start))
            raise EditError(
                f"`{name}`: there is no {quoted(value)} in this folder, but in {start}, where the run seems to have "
                "been started: a run's relative paths are meant from there. Go there, and give the same command with "
                f"{there} in place of {given}: cd {shlex.quote(str(start))}"
            )


def _is_read(path: Path, folder: bool) -> bool:
    try:
        return path.is_file() or (folder and path.is_dir())
    except (OSError, ValueError):
        # Any text is among the settings, also such as no path can be.
        return False


def _texts(settings: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(settings, str):
        yield name, settings
    elif isinstance(settings, list | tuple):
        for entry in settings:
            yield from _texts(entry, name)
    elif isinstance(settings, Mapping):
        for key, entry in settings.items():
            if key not in (*FOLDERS, "class_path"):
                inner = name if key == "init_args" else f"{name}.{key}".lstrip(".")
                yield from _texts(entry, inner)
