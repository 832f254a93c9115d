"""The files of a run that grow while it goes: a resumed run cuts them back to where its checkpoint was written.

They are known by their names: the run's own logs, and TensorBoard's files, whose names are noted as they are opened.
Nothing else in the folder is ever touched.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_edit.errors import EditError
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.run_files import CHECKPOINTS, LOGS
from lightning_edit.storage.user.json import read_json

# Beside the checkpoints: the names of TensorBoard's files, one for each process that worked on the run.
OPENED = "opened.json"
EVENTS = "events.out.tfevents."


def open_events(folder: Path, loggers: Sequence[Any]) -> set[str]:
    """The names of the files that TensorBoard writes into the folder from now on; what was logged is on the disk.

    Args:
        folder: The run's.
        loggers: Those of the trainer.
    """
    names = set()
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.flush()
            # After each stage of the trainer the file is closed, and another one is opened here.
            path = Path(logger.experiment._get_file_writer().event_writer._file_name)
            names |= {path.name} if path.parent.resolve() == folder.resolve() else set()
    return names


def noted_events(folder: Path, noted: Mapping[str, int] | None = None) -> set[str]:
    """The names of the files that TensorBoard wrote for this run, also in processes that were killed.

    Args:
        folder: The run's.
        noted: What `sizes` returned for a checkpoint; older runs noted names there alone.
    """
    try:
        names = read_json(folder / CHECKPOINTS / OPENED)
    except EditError:
        names = []
    written = [name for name in (*(names if isinstance(names, list) else []), *(noted or {})) if isinstance(name, str)]
    return {name for name in written if name.startswith(EVENTS) and Path(name).name == name}


def note_events(folder: Path, names: Collection[str]) -> None:
    """Notes what TensorBoard writes for this run.

    Args:
        folder: The run's.
        names: The names of files in it.
    """
    if set(names) - noted_events(folder):
        with atomic_path(folder / CHECKPOINTS / OPENED) as scratch:
            scratch.write_text(json.dumps(sorted({*names, *noted_events(folder)})), encoding="utf-8")


def keep_csv(loggers: Sequence[Any]) -> None:
    """Puts aside what CSV loggers wrote before a run goes on, as ``metrics.1.csv``: they begin their file anew.

    Args:
        loggers: Those of the trainer, which have not logged anything yet.
    """
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            file = Path(logger.log_dir) / "metrics.csv"
            number = 1
            while (aside := file.with_name(f"metrics.{number}.csv")).exists():
                number += 1
            if file.is_file():
                file.rename(aside)


def sizes(folder: Path, events: Collection[str]) -> dict[str, int]:
    """How large each growing file is, in bytes.

    Args:
        folder: The run's.
        events: The names of TensorBoard's files, see `noted_events` and `open_events`.
    """
    paths = [folder / name for name in (*LOGS, *sorted(events))]
    return {path.name: path.stat().st_size for path in paths if path.is_file()}


def cut_back(folder: Path, noted: Mapping[str, int], names: Collection[str]) -> None:
    """Drops what was logged after a checkpoint.

    Args:
        folder: The run's.
        noted: What `sizes` returned when the checkpoint was written.
        names: The files to look at, none of which this process has open.
    """
    for path in (folder / name for name in names):
        if not path.is_file():
            continue
        if path.name not in noted:
            path.unlink()
        elif path.stat().st_nlink > 1:
            # Another name for the same file, as in a snapshot of hard links: that one keeps its content.
            with atomic_path(path) as scratch:
                scratch.write_bytes(path.read_bytes()[: noted[path.name]])
        elif path.stat().st_size > noted[path.name]:
            os.truncate(path, noted[path.name])
