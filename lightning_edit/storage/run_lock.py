"""One process at a time works on a run, or on a file of results: a lock on its folder, or beside the file."""

import json
import logging
import os
import socket
import uuid
import weakref
from contextlib import suppress
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path

from lightning_edit.errors import EditError
from lightning_edit.storage.user.json import parse_json

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

FILE = ".lock"
# Tells this process from others of the same number, as in containers.
TOKEN = uuid.uuid4().hex


class _Held:
    """The lock of this process on one file, let go of when no `RunLock` refers to it any more.

    Args:
        path: The file, which says that this process holds the lock.
        file: The same, open and locked.
    """

    def __init__(self, path: Path, file: TextIOWrapper) -> None:
        self.pid, self.path, self.file = os.getpid(), path, file
        self._end = weakref.finalize(self, _let_go, path, file, self.pid)

    @property
    def is_ours(self) -> bool:
        """Whether this very process holds it, and not the one it was forked from, and the file is still there."""
        return self.pid == os.getpid() and _is_current(self.path, self.file)


# What this process holds, by the file: who works on a run twice, as after an error, has one lock.
_held: weakref.WeakValueDictionary[str, _Held] = weakref.WeakValueDictionary()


class RunLock:
    """Held from its creation until `release`, or until the process ends in whatever way.

    A process may take it more than once, as after an error; it is held until all of these are released or gone.

    The operating system keeps the lock, on shared disks (NFS, Lustre, GPFS) for all machines, and lets go of it when
    its process dies. The file says who holds it. Where a disk keeps no locks, or may keep them for one machine only,
    this is said.

    Args:
        folder: The run's.

    Raises:
        EditError: If another process works on the run; says which, and where.
    """

    def __init__(self, folder: Path) -> None:
        self._take(folder / FILE, folder)

    @classmethod
    def of_file(cls, file: Path) -> "RunLock":
        """A lock on a file of results alone, which need not be there yet; its folder is made.

        Args:
            file: The file; the lock lies beside it.

        Raises:
            EditError: If another process works on the file, or nothing can be written there.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EditError(f"{file.parent}, the folder of the results, cannot be made ({error}).") from error
        lock = cls.__new__(cls)
        lock._take(file.parent / f".{file.name}{FILE}", file)
        return lock

    def _take(self, path: Path, what: Path) -> None:
        self.path = path
        name = os.path.realpath(path)
        held = _held.get(name)
        if held is None or not held.is_ours:
            held = _held[name] = _Held(path, self._taken(what))
        self._held: _Held | None = held

    def _taken(self, what: Path) -> TextIOWrapper:
        while True:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            except OSError as error:
                raise EditError(f"{self.path}, the lock of {what}, cannot be written ({error}).") from error
            file = os.fdopen(handle, "r+", encoding="utf-8")
            holder = _holder(file)
            locked = _lock(file)
            if locked is False or (locked is None and _is_another(holder)):
                file.close()
                raise EditError(
                    f"{what} is in use: process {holder.get('pid', '(unknown)')} on "
                    f"{holder.get('host', 'an unknown machine')} has been working on it since "
                    f"{holder.get('since', 'an unknown time')}. Wait until it ends, or stop it; nothing was changed."
                )
            if _is_current(self.path, file):
                break
            # Whoever held it has deleted the file between the two steps.
            file.close()
        _warn(what, holder, locked is None)
        file.seek(0)
        file.truncate()
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since, "token": TOKEN}, file)
        file.flush()
        return file

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets others work on the run, unless this process holds it by another `RunLock` too."""
        self._held = None


def _let_go(path: Path, file: TextIOWrapper, pid: int) -> None:
    # A forked process has the same open file: closing it there leaves the lock to the one who took it.
    if pid == os.getpid():
        with suppress(OSError):
            if _is_current(path, file):
                path.unlink()
    file.close()


def _is_current(path: Path, file: TextIOWrapper) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(file: TextIOWrapper) -> dict[str, str | int]:
    try:
        content = parse_json(file.read(10_000), FILE)
    except (EditError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _lock(file: TextIOWrapper) -> bool | None:
    """Whether the lock was free and is held now; None where the disk keeps no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_another(holder: dict[str, str | int]) -> bool:
    """Whether a note is of a process of this machine that goes on, and is not this one."""
    if holder.get("token") == TOKEN and holder.get("pid") == os.getpid():
        return False
    if holder.get("host") != socket.gethostname() or not isinstance(pid := holder.get("pid"), int):
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _warn(what: Path, holder: dict[str, str | int], unsupported: bool) -> None:
    elsewhere = holder.get("host") not in (None, socket.gethostname())
    if unsupported:
        logger.warning(
            "The file system of %s has no locks, so another process working there cannot be detected. Make sure that "
            "there is none.",
            what,
        )
    elif elsewhere:
        logger.warning(
            "Process %s on %s did not release its lock on %s and seems to have ended. Some file systems have locks for "
            "one machine only: on such a one, make sure that it has.",
            holder.get("pid"),
            holder.get("host"),
            what,
        )
