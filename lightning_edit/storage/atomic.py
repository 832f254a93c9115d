"""Files and folders that are either wholly there or not at all."""

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lightning_edit.errors import EditError

# What follows the name of a file in that of the temporary folder it is made in.
SCRATCH = r"[a-z0-9_]{8}"


def check_outputs(out: Path, beside: Iterable[str], *inputs: str | None) -> None:
    """Refuses to write over what is read.

    Args:
        out: A file that is going to be written.
        beside: Suffixes of further ones, in place of its own.
        *inputs: Files that are read, None for none.

    Raises:
        EditError: If one is among the others.
    """
    read = {Path(name).expanduser().resolve() for name in inputs if name is not None}
    for path in (out, *(out.with_suffix(suffix) for suffix in beside)):
        if path.resolve() in read:
            raise EditError(f"`--out`: {path} would be written over, and is read. Give another name.")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` which takes its place when all went well, and vanishes otherwise.

    What was made is on the disk before it takes the place of an older one, with the permissions of any other new file.

    Args:
        path: The file or folder to make; an older one is replaced.

    Raises:
        OSError: If there is no room or no permission, whichever library wrote; what was there before is as it was.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        made = scratch / path.name
        try:
            yield made
            _share(made)
            _flush(made)
            _take_place(made, path, scratch / "old")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Lets every failure to write be an `OSError` that names the file."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error
    except RuntimeError as error:
        # torch.save has no type of its own for a disk that is full.
        if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
            raise OSError(f"{path} could not be written: {str(error).splitlines()[0]}") from error
        raise
    except OSError as error:
        if error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _share(made: Path) -> None:
    """Gives safetensors' files, which are made for nobody but their owner, the permissions of any other new file."""
    files = [file for file in _files(made) if file.suffix == ".safetensors"]
    if files:
        probe = made.parent / ".permissions"
        probe.touch()
        for file in files:
            file.chmod(probe.stat().st_mode)
        probe.unlink()


def _files(made: Path) -> Iterator[Path]:
    return (file for file in (made.rglob("*") if made.is_dir() else [made]) if file.is_file())


def _flush(made: Path) -> None:
    # Some disks say only here that they are full; without it an empty file could replace a good one, or be what is left
    # after a power cut. If the new name itself is lost then, the old file is still there.
    for file in _files(made):
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())


def _take_place(made: Path, path: Path, aside: Path) -> None:
    if not made.is_dir() or not path.exists():
        made.replace(path)
        return
    # A folder cannot be replaced in one step; the old one waits beside the new one until that stands.
    old = path.replace(aside)
    try:
        made.replace(path)
    except OSError:
        old.replace(path)
        raise


def copy_others(old: Path, new: Path, without: tuple[str, ...]) -> None:
    """Copies what others have put into a folder into the one that is to replace it.

    Args:
        old: The folder; it need not exist.
        new: The one that takes its place, which has its own files already.
        without: Ends of names that are not copied.
    """
    for file in old.iterdir() if old.is_dir() else ():
        if not (new / file.name).exists() and not file.name.endswith(without):
            (shutil.copytree if file.is_dir() else shutil.copy2)(file, new / file.name)


def clear_leftovers(folder: Path, names: Collection[str]) -> None:
    """Deletes what writers that were killed have left of some files; nobody may be writing them now.

    A folder whose old version had been put aside, and whose new one did not stand yet, is put in its place again.

    Args:
        folder: Where the files are.
        names: The names of files and folders that are written with `atomic_path`.
    """
    for scratch in folder.iterdir() if folder.is_dir() else ():
        name = _left_of(scratch, names)
        if name is None:
            continue
        # What was whole took the old one's place next.
        standing = next((scratch / part for part in (name, "old") if (scratch / "old").exists()), None)
        if standing is not None and not (folder / name).exists():
            (standing if standing.exists() else scratch / "old").replace(folder / name)
        shutil.rmtree(scratch, ignore_errors=True)


def _left_of(scratch: Path, names: Collection[str]) -> str | None:
    for name in names:
        # What was made in a temporary folder may itself have been written atomically.
        made = re.compile(rf"\.{re.escape(name)}\.{SCRATCH}")
        if made.fullmatch(scratch.name):
            own = not scratch.is_symlink() and scratch.is_dir()
            inside = {path.name for path in scratch.iterdir() if not made.fullmatch(path.name)} if own else set()
            return name if own and inside <= {name, "old", ".permissions"} else None
    return None
