"""The names of the files that a run leaves in its folder, none of which is ever a link."""

import os
import re
from pathlib import Path

from lightning_edit.errors import EditError
from lightning_edit.storage.atomic import clear_leftovers

# The sum of all updates, and the edited model.
UPDATE, MODEL = "update.safetensors", "model"
UPDATES = "updates"
CHECKPOINTS = "checkpoints"
MEMORIES = "memories"
# Under which names loggers with stores of their own know the run, so that it goes on there.
LOGGERS = "loggers.json"
# Each measurement writes it anew.
COLLATERAL = "collateral.jsonl"
# All that a run writes by itself, beside what its loggers write.
LOGS = ("records.jsonl", "curves.jsonl", "downstream.jsonl", "updates.csv")
FILES = (
    *LOGS,
    COLLATERAL,
    "metrics.json",
    "config.yaml",
    LOGGERS,
    UPDATE,
    "edited.ckpt",
    MODEL,
    MEMORIES,
    UPDATES,
    CHECKPOINTS,
)
# Ends of the names of a model's files that are written anew with its weights.
WEIGHTS = (".safetensors", ".bin", ".index.json")
# The names of files in its folders.
INNER = re.compile(r"update-\d{5,}\.(safetensors|ckpt)|(start|values-[0-9a-f]{32})\.safetensors|(removed|opened)\.json")
# What Lightning's loggers write beside it.
LOGGED = ("hparams.yaml", "metrics.csv", "events.out.tfevents.*")


def check_own_files(folder: Path) -> None:
    """Refuses a run whose own files or folders are links: what they point to would be cut, deleted or written to.

    The run's folder may itself be reached through a link, and what others put beside the run's files is not looked at.

    Args:
        folder: The run's.

    Raises:
        EditError: Names the link.
    """
    logged = (path for name in LOGGED for path in folder.glob(name))
    for path in (*(folder / name for name in FILES), *logged):
        for inner in (path, *(path.rglob("*") if path.is_dir() else ())):
            check_no_link(inner)
            # To read a pipe is to wait for whoever may write into it.
            if inner.exists() and not (inner.is_file() or inner.is_dir()):
                raise EditError(f"{inner} is neither a file nor a folder, so it was not written by the run. Delete it.")


def is_own_log(path: Path) -> bool:
    """Whether a file holds no more than a run's settings, or what a logger of this very process wrote before any edit.

    Args:
        path: A file of a run's folder.
    """
    if path.is_symlink() or not path.is_file():
        return False
    if path.match("events.out.tfevents.*"):
        # TensorBoard puts the number of the process before a last number.
        return path.name.split(".")[-2] == str(os.getpid())
    return path.name == "config.yaml" or any(path.match(name) for name in LOGGED)


def check_no_link(*paths: Path) -> None:
    """Refuses links.

    Args:
        paths: A run's own files and folders.

    Raises:
        EditError: Names the first link among them.
    """
    for path in paths:
        if path.is_symlink():
            raise EditError(
                f"{path} is a link (to {path.readlink()}). A run's own files and folders are never links, as what "
                "they point to would be changed or deleted with the run. Put the file or folder itself in its place, "
                "or delete the link."
            )


def clear_killed_writers(folder: Path) -> None:
    """Deletes what writers that were killed have left among a run's files; nobody else may be working on the run.

    Args:
        folder: The run's.
    """
    for place in (folder, folder / UPDATES, folder / CHECKPOINTS, folder / CHECKPOINTS / "values"):
        # A file has its own name in the name of what was left of it.
        names = [path.name.rpartition(".")[0][1:] for path in place.glob(".*.*")]
        clear_leftovers(place, FILES if place == folder else [name for name in names if INNER.fullmatch(name)])
