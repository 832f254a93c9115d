"""Files and folders that are either wholly there or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` which takes its place when all went well, and vanishes otherwise.

    What was made is on the disk before it takes the place of an older one.

    Args:
        path: The file or folder to make; an older one is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    made = scratch / path.name
    try:
        yield made
        _flush(made)
        if not made.is_dir() or not path.exists():
            made.replace(path)
            return
        # A folder cannot be replaced in one step; the old one waits beside the new one until that stands.
        old = path.replace(scratch / "old")
        try:
            made.replace(path)
        except OSError:
            old.replace(path)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _flush(made: Path) -> None:
    # Some disks say only here that they are full; without it an empty file could replace a good one, or be what is left
    # after a power cut. If the new name itself is lost then, the old file is still there.
    for file in made.rglob("*") if made.is_dir() else [made]:
        if file.is_file():
            with file.open("r+b") as opened:
                os.fsync(opened.fileno())
