"""One process at a time works on a run, or on a file of results: a lock on its folder, or beside the file."""

import json
import logging
import os
import socket
import uuid
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


class RunLock:
    """Held from its creation until `release`, or until the process ends in whatever way.

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
        self._file = self._taken(what)

    def _taken(self, what: Path) -> TextIOWrapper | None:
        while True:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            except OSError as error:
                raise EditError(f"{self.path}, the lock of {what}, cannot be written ({error}).") from error
            file = os.fdopen(handle, "r+", encoding="utf-8")
            holder = _holder(file)
            if holder.get("token") == TOKEN:
                # This process has not let go of it yet, as after an error.
                file.close()
                return None
            locked = _lock(file)
            if locked is False or (locked is None and _is_alive(holder)):
                file.close()
                raise EditError(
                    f"{what} is in use: process {holder.get('pid', '(unknown)')} on "
                    f"{holder.get('host', 'an unknown machine')} has been working on it since "
                    f"{holder.get('since', 'an unknown time')}. Wait until it ends, or stop it; nothing was changed."
                )
            if self._is_current(file):
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

    def _is_current(self, file: TextIOWrapper) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets others work on the run."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


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


def _is_alive(holder: dict[str, str | int]) -> bool:
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
