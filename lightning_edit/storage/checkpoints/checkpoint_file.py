"""Checkpoint files of a run: which there are, and whether they are as they were written."""

import re
import shlex
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lightning_edit.errors import EditError
from lightning_edit.messages import listed
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.checkpoints.checkpoint_form import check_checkpoint
from lightning_edit.storage.form import WrongFormError
from lightning_edit.storage.run_files import CHECKPOINTS, check_no_link
from lightning_edit.storage.user.json import read_json

FOLDER = CHECKPOINTS
EDITED = "edited.ckpt"
SHOWN = 5
# Given for the newest run of all.
LAST = "last"
NAME = "update-{:06d}.ckpt"
OWN = re.compile(r"update-[0-9]{6,}\.ckpt")
# What another file looks like to the reader depends on its first bytes.
UNREADABLE = (
    *(UnpicklingError, RuntimeError, KeyError, IndexError, ValueError, EOFError, AttributeError, OSError),
    *(TypeError, AssertionError, OverflowError, MemoryError),
)
READING = "Give a run's edited.ckpt, or a file of its checkpoints/."


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, the newest first; a copy under another name is not one of them.

    Args:
        run: The run's folder.
    """
    files = [path for path in (run / FOLDER).glob("update-*.ckpt") if OWN.fullmatch(path.name)]
    return sorted(files, key=number_of, reverse=True)


def run_beside(file: Path) -> Path:
    """The folder of the run that a file lies in, if a run wrote it: ``checkpoints/`` is a part of it.

    Args:
        file: A checkpoint, or another file of a run.
    """
    return file.parent.parent if file.parent.name == FOLDER else file.parent


def number_of(path: Path) -> int:
    """How many updates had been written when a checkpoint of a run was.

    Args:
        path: One of `checkpoints`.
    """
    return int(path.stem.removeprefix("update-"))


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, None if it is whole: all parts are read and their checksums compared.

    Args:
        path: The file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError) as error:
        return f"it is cut short or is no checkpoint ({error})"
    if bad is not None:
        return f"the checksum of its part {bad} does not agree"
    try:
        # What lies between the parts has no checksum, but then it cannot be read.
        content = torch.load(path, weights_only=True, map_location="meta")
    except UNREADABLE as error:
        return f"it cannot be read safely ({(str(error) or type(error).__name__).splitlines()[0]})"
    try:
        check_checkpoint(content)
    except WrongFormError as error:
        return f"it is not of the form that a run writes ({error})"
    except RecursionError:
        return "it is nested too deep"
    return None


def save(trainer: Any, path: Path) -> None:
    """Writes a checkpoint, atomically; all processes must call it.

    Args:
        trainer: The trainer of the run.
        path: The file.

    Raises:
        OSError: In the first process, if there is no room or no permission; the others have been met then.
    """
    if not trainer.is_global_zero:
        trainer.save_checkpoint(path, weights_only=False)
        return
    met = False
    try:
        with atomic_path(path) as scratch:
            trainer.save_checkpoint(scratch, weights_only=False)
            met = True
    except OSError:
        if not met:
            # The other processes wait where a checkpoint that was written would have met them.
            trainer.strategy.barrier("Trainer.save_checkpoint")
        raise


def edited_of(path: str | Path, setting: str = "ckpt_path") -> Path:
    """The checkpoint that is meant: of a finished run's folder its ``edited.ckpt``, else the file itself.

    Args:
        path: What was given.
        setting: Which setting names it.

    Raises:
        EditError: If it is a folder that holds none; names its newest checkpoint.
    """
    given = Path(path).expanduser()
    if not given.is_dir() or (given / EDITED).is_file():
        return given / EDITED if given.is_dir() else given
    kept = checkpoints(given)
    remedy = f"Its newest checkpoint can be given: {kept[0]}." if kept else READING
    raise EditError(f"`{setting}`: the folder {given} holds no {EDITED}, as that of a finished run does. {remedy}")


def check_sound(path: Path, setting: str = "ckpt_path") -> None:
    """Refuses a checkpoint that is not whole, and offers the one before.

    Args:
        path: The file.
        setting: Which setting names it.

    Raises:
        EditError: If there is no such file, it is damaged, or it is a link where a run wrote a file.
    """
    if not path.is_file():
        raise EditError(f"`{setting}`: there is no file {path}. {READING}")
    if path.name == EDITED or path.parent.name == FOLDER:
        check_no_link(path, *([path.parent] if path.parent.name == FOLDER else []))
    wrong = damage(path)
    if wrong is None:
        return
    others = [other for other in checkpoints(path.parent.parent) if other.name < path.name] + [
        other for other in checkpoints(path.parent) if other.name < path.name or path.name == "edited.ckpt"
    ]
    offered = next((other for other in others if damage(other) is None), None)
    remedy = READING if offered is None else f"The one before is intact: --{setting} {offered}"
    raise EditError(f"`{setting}`: {path} cannot be used: {wrong}. {remedy}")


def read(path: Path, setting: str = "ckpt_path") -> dict[str, Any]:
    """What a checkpoint holds, read without running any code.

    Args:
        path: The file.
        setting: Which setting names it.

    Raises:
        EditError: If there is no such file, it is damaged, or it holds what is not safe to read.
    """
    check_sound(path, setting)
    return torch.load(path, weights_only=True, map_location="cpu")


def newest(folder: Path, given: str = LAST) -> tuple[Path, list[str]]:
    """The newest checkpoint of the last run under a folder, if it is whole and the run has not ended.

    Args:
        folder: Where runs are kept, e.g. ``runs``, or that of a run.
        given: What was given for it.

    Returns:
        The file, and what is wrong with newer ones of the same run.

    Raises:
        EditError: If there is none; if the last run is finished, with the names of those that are not.
    """
    runs = runs_under(folder)
    if not runs:
        raise EditError(_without(folder, given))
    run, *earlier = runs
    check_unfinished(run, earlier)
    passed_over: list[str] = []
    for file in checkpoints(run):
        wrong = damage(file)
        if wrong is None:
            return file, passed_over
        passed_over.append(f"{file}: {wrong}")
    raise EditError(f"`ckpt_path: {given}`: no checkpoint of {run} is intact: {'; '.join(passed_over)}.")


def _without(folder: Path, given: str) -> str:
    """What to do where there is no checkpoint."""
    config = folder / "config.yaml"
    if given == LAST or not config.is_file():
        return (
            f"`ckpt_path: {given}`: no run under {folder} has a checkpoint. A run has one as soon as its fit begins; "
            "give the file itself if the runs are kept elsewhere."
        )
    if (folder / EDITED).is_file():
        return f"`ckpt_path: {given}`: the run is over ({folder / EDITED} is there), and it has left no checkpoints."
    again = shlex.join(["lightning-edit", "fit", "--config", str(config), "--name", f"{folder.resolve().name}-again"])
    return (
        f"`ckpt_path: {given}`: the run in {folder} was stopped before its first checkpoint, so nothing is lost that "
        f"could be resumed. To start it over: {again}"
    )


def check_unfinished(run: Path, earlier: Sequence[Path]) -> None:
    """Refuses to go on with the last checkpoint of a finished run, which would write the same results again.

    Args:
        run: Its folder.
        earlier: Other runs, one of which may be meant.

    Raises:
        EditError: Names those that are not finished.
    """
    if not is_finished(run):
        return
    others = [str(other) for other in earlier if not is_finished(other)]
    named = f"Not finished: {listed(others, SHOWN)}. Give one of these as --ckpt_path. " if others else ""
    raise EditError(
        f"`ckpt_path`: the run {run} is finished, so there is nothing to resume. {named}To repeat its last edits, "
        f"give an earlier checkpoint of {run / FOLDER}."
    )


def runs_under(folder: Path) -> list[Path]:
    """The runs under a folder that have a checkpoint, the one that wrote the newest first.

    Args:
        folder: Where runs are kept.
    """
    files = folder.rglob(f"{FOLDER}/update-*.ckpt") if folder.is_dir() else ()
    runs = {file.parent.parent for file in files if OWN.fullmatch(file.name)}
    return sorted(runs, key=lambda run: max(file.stat().st_mtime for file in checkpoints(run)), reverse=True)


def is_finished(run: Path) -> bool:
    """Whether a run has written and measured all its edits, as far as can be told.

    Args:
        run: Its folder.
    """
    try:
        last = torch.load(checkpoints(run)[0], weights_only=True, map_location="meta")["run"]["finished"]
    except (*UNREADABLE, TypeError):
        return False
    if not (run / "metrics.json").exists():
        # Without a report there is nothing to measure for.
        return bool(last) and (run / EDITED).is_file()
    try:
        report = read_json(run / "metrics.json")
    except EditError:
        return False
    return bool(last) and isinstance(report, dict) and bool(report.get("after"))
