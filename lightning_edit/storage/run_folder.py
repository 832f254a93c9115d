"""Where a run leaves its files: a folder of its own, in which no other run has written."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_edit.errors import EditError
from lightning_edit.storage.run_files import CHECKPOINTS, FILES, check_own_files, is_own_log
from lightning_edit.storage.run_lock import FILE as LOCK
from lightning_edit.storage.run_lock import RunLock

WITHOUT_LOGGER = "lightning_edit_run"


@dataclass
class _Place:
    """The folder of a trainer's run.

    Args:
        folder: The folder.
        made: Whether this process made it, for this run.
        checked: Whether it is known to hold no other run's files.
        module: The module of the run, once it is known.
        lock: Held while a trainer works on the run.
    """

    folder: Path
    made: bool = False
    checked: bool = False
    module: Any = None
    lock: RunLock | None = None


def run_folder(trainer: Trainer) -> Path:
    """The folder of the trainer's run, the same from the first call on.

    It is where the first logger that keeps files of its own (TensorBoard, CSV) writes; with other loggers
    ``<save_dir>/<name>/<version>`` as for Lightning's own checkpoints; and without a logger
    ``lightning_edit_run/version_N`` under the trainer's root folder. A fit that goes on from a checkpoint stays in the
    folder of its run (`stay_in`). Only the first process writes there, and only it knows the folder before
    `shared_folder`.

    Args:
        trainer: The trainer of the run.

    Raises:
        EditError: If the folder holds files of another run, which are never replaced, or cannot be made.
    """
    place, module = _place(trainer), trainer.lightning_module
    if None is not module is not place.module:
        # Another module's fit or test by the same trainer is another run.
        place.checked = place.checked and place.module is None
        place.module = module
    if not place.checked and trainer.is_global_zero and not trainer.fast_dev_run:
        if not getattr(module, "resumed", False):
            _check_new(place.folder)
        place.checked = True
    return place.folder


def name_folder(trainer: Trainer, name: str) -> None:
    """Gives the folder of a new run a name in place of a number.

    Args:
        trainer: The trainer of the run, whose folder is not known yet.
        name: The name; other loggers than those that write there keep their own.

    Raises:
        EditError: If the folder has a name already.
    """
    loggers: list[Any] = [one for one in trainer.loggers if isinstance(one, TensorBoardLogger | CSVLogger)]
    for logger in loggers:
        if logger._version is not None:
            raise EditError(
                f"`name` gives the folder of the run its name ({name}), and the logger's `version` another one "
                f"({logger._version}). Leave out one of them."
            )
        logger._version = name
    if not trainer.loggers:
        trainer._edit_place = _Place(Path(trainer.default_root_dir) / WITHOUT_LOGGER / name)


def shared_folder(trainer: Trainer) -> Path:
    """The same in every process; all of them must ask at the same time.

    It may be asked for before it is known whether the fit goes on from a checkpoint, so it is not looked into.

    Args:
        trainer: The trainer of the run.
    """
    place = _place(trainer)
    place.folder = trainer.strategy.broadcast(place.folder)
    return place.folder


def stay_in(trainer: Trainer, checkpoint: str | Path | None) -> None:
    """Lets a fit go on in the folder of the run whose checkpoint it goes on from.

    Args:
        trainer: The trainer of the run.
        checkpoint: The checkpoint; one that is not in the ``checkpoints/`` of a run changes nothing.

    Raises:
        EditError: See `check_own_files`.
    """
    file = None if checkpoint is None else Path(checkpoint)
    if file is None or file.parent.name != CHECKPOINTS:
        return
    check_own_files(file.parent.parent)
    before: _Place | None = getattr(trainer, "_edit_place", None)
    if before is not None and before.folder.resolve() == file.parent.parent.resolve():
        before.checked = True
        return
    if before is not None and before.made:
        with suppress(OSError):  # not empty: something was kept there
            before.folder.rmdir()
    trainer._edit_place = _Place(file.parent.parent, checked=True)


def lock(trainer: Any) -> None:
    """Keeps other processes from working on the run until `unlock`, or until this process ends.

    Args:
        trainer: The trainer of the run.

    Raises:
        EditError: If another process works on it.
    """
    place = _place(trainer)
    if place.lock is None and trainer.is_global_zero and not trainer.fast_dev_run and place.folder.is_dir():
        place.lock = RunLock(place.folder)


def unlock(trainer: Any) -> None:
    """Lets others work on the run.

    Args:
        trainer: The trainer of the run.
    """
    place: _Place | None = getattr(trainer, "_edit_place", None)
    if place is not None and place.lock is not None:
        place.lock.release()
        place.lock = None


def clear_refused(trainer: Any) -> None:
    """Removes the folder of a run that was refused, if this process has made it and nothing was kept there.

    Logs and settings alone do not count as kept. A folder that holds anything else stays, and one that another process
    uses.

    Args:
        trainer: The trainer of the run, which does nothing any more.
    """
    place: _Place | None = getattr(trainer, "_edit_place", None)
    if place is None or not place.made or not place.folder.is_dir():
        return
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # Its file is open where it has begun to write.
            logger.finalize("failed")
    unlock(trainer)
    with suppress(EditError, OSError):
        with RunLock(place.folder):
            files = [path for path in place.folder.iterdir() if path.name != LOCK]
            if all(map(is_own_log, files)):
                for path in files:
                    path.unlink()
        # Whatever came in between keeps it.
        place.folder.rmdir()


def _place(trainer: Any) -> _Place:
    place: _Place | None = getattr(trainer, "_edit_place", None)
    if place is None:
        try:
            place = trainer._edit_place = _new_place(trainer, trainer.is_global_zero and not trainer.fast_dev_run)
        except OSError as error:
            raise EditError(
                f"The folder of the run cannot be made ({error}). Give another place as "
                "`trainer.logger.init_args.save_dir`."
            ) from error
    return place


def _check_new(folder: Path) -> None:
    # Before the folder is made, `..` in its name would lead nowhere.
    place = folder.resolve()
    there = [name for name in FILES if (place / name).exists() or (place / name).is_symlink()]
    if there:
        raise EditError(
            f"{folder} holds the files of another run ({', '.join(there)}), which are never replaced. Resume that "
            "run with --ckpt_path, move it, give this one another `--name`, or leave out the logger's `version`, so "
            "that each run has a folder of its own; in Python give each Trainer a logger of its own."
        )


def _new_place(trainer: Trainer, make: bool) -> _Place:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger | CSVLogger):
            return _logged(logger, make)
    first = trainer.loggers[0] if trainer.loggers else None
    root = Path((first and first.save_dir) or trainer.default_root_dir)
    if first is not None and make:
        # W&B and others know the version only once the run has begun there.
        _ = first.experiment
    if first is not None and first.version not in (None, ""):
        version = first.version if isinstance(first.version, str) else f"version_{first.version}"
        return _Place(root / str(first.name or "") / version)
    return _numbered(root / WITHOUT_LOGGER, make)


def _logged(logger: TensorBoardLogger | CSVLogger, make: bool) -> _Place:
    """Where a logger writes; a version that it counted itself belongs to this run alone from here on."""
    counted = getattr(logger, "_version", 0) is None
    folder = Path(logger.log_dir)
    if folder.resolve() in (Path(logger.save_dir).resolve(), Path.cwd()):
        # Without name and version all runs, and whatever else is there, would share the folder.
        return _numbered(folder, make)
    while counted and make:
        try:
            folder.mkdir(parents=True)
            return _Place(folder, made=True)
        except FileExistsError:
            # Another run that began at the same moment has counted to the same number.
            logger._version = None
            folder, before = Path(logger.log_dir), folder
            if folder == before:
                raise
    return _Place(folder, made=make and _is_made(folder))


def _is_made(folder: Path) -> bool:
    """Makes a folder, unless it is there."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _numbered(root: Path, make: bool) -> _Place:
    numbers = [int(path.name[8:]) for path in root.glob("version_*") if path.name[8:].isdecimal()]
    number = max(numbers, default=-1) + 1
    while make:
        try:
            (root / f"version_{number}").mkdir(parents=True)
            break
        except FileExistsError:
            if not root.is_dir():
                raise
            number += 1
    return _Place(root / f"version_{number}", made=make)
