"""Runs that several test files only read: whichever worker needs one first makes it, and the others wait for it."""

import os
import shutil
from pathlib import Path

from filelock import FileLock

from lightning_edit.cli import main as cli

# A sequential run of three updates, none of them watched.
SMALL = {
    "model.values.steps": 3,
    "model.second_moment.tokens": 2000,
    "model.solver.ridge": 0.01,
    "model.edits_per_update": 2,
    "data.edits": 6,
    "watch.every_n_updates": "null",
    "collateral.prompts": 0,
}


def command(folder, *args, **changes):
    """The command line in this process; the run's folder."""
    settings = SMALL | {"trainer.logger.save_dir": folder, "model.second_moment.cache_dir": folder / "cache"} | changes
    cli.main(["fit", *(f"--{name}={value}" for name, value in settings.items()), *args])
    return folder / "version_0"


def once(tmp_path_factory, name, make):
    """A folder that is filled by the first of all workers that asks for it.

    Args:
        tmp_path_factory: pytest's.
        name: The folder's.
        make: Fills a folder that it is given.
    """
    base = Path(tmp_path_factory.getbasetemp())
    # Workers have folders beside each other.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / ".whole").exists():
            # What is left of an attempt that failed.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / ".whole").touch()
    return folder
