"""Finished work on disk, named after the fingerprint of everything it depends on and checked at each reading."""

import json
import logging
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, deserialize

from lightning_edit.errors import EditError
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.fingerprint import RawTensor, fingerprint
from lightning_edit.storage.form import anything, table, text
from lightning_edit.storage.user.json import parse_json

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

FORMAT = "lightning-edit cache 1"
OLD_FORMAT = "it is of an older format, without a checksum"
NAME = re.compile(r"(?P<kind>[a-z-]+)-(?P<fingerprint>[0-9a-f]{32})\.safetensors")
LEFTOVER = re.compile(rf"\.(?:{NAME.pattern})\..+")
LEFTOVER_SECONDS = 3600.0
LONGEST_HEADER = 100_000_000
# For what a safetensors file calls its numbers, what torch calls them.
DTYPES = {"BOOL": "bool", "U8": "uint8", "BF16": "bfloat16"}
DTYPES |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)} | {f"F{bits}": f"float{bits}" for bits in (16, 32, 64)}


class DamagedError(Exception):
    """A file of a cache cannot be used; the message says why."""


@dataclass(frozen=True)
class Entry:
    """One file of a cache, as far as its name and its first bytes tell.

    Args:
        path: The file.
        kind: What it holds, e.g. ``second-moment``.
        size: In bytes.
        made: When, in seconds since 1970.
        described: What it was made from.
        problem: Why it cannot be used, as far as its first bytes tell.
    """

    path: Path
    kind: str
    size: int
    made: float
    described: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


class Cache:
    """A folder of safetensors files ``KIND-FINGERPRINT.safetensors``, each with a checksum over all it says.

    Several processes may read, write and clear it at once: a file appears whole, and one that vanishes is computed
    again. A file that is cut short, altered, renamed or a link is never used.

    Args:
        folder: Made when the first file is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self._warned = False

    def path(self, kind: str, name: str) -> Path:
        """The file of a kind and a fingerprint."""
        return self.folder / f"{kind}-{name}.safetensors"

    def read(self, kind: str, name: str) -> "dict[str, Tensor] | None":
        """Reads what `write` wrote; a damaged file gives a warning and counts as absent.

        Args:
            kind: What is wanted, e.g. ``second-moment``.
            name: Fingerprint of everything it depends on.

        Returns:
            The tensors on the CPU, or None if there is no sound file.
        """
        path = self.path(kind, name)
        try:
            return read_tensors(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (DamagedError, OSError) as error:
            logger.warning("%s cannot be used (%s) and is recomputed.", path, error)
            return None

    def write(self, kind: str, name: str, tensors: "Mapping[str, Tensor]", described: Mapping[str, Any]) -> None:
        """Keeps a result; a disk that does not take it gives one warning for the whole cache and no error.

        Args:
            kind: Small letters and hyphens.
            name: Fingerprint of everything the tensors depend on.
            tensors: What to keep.
            described: What they were made from, for people; everything in it must be JSON.
        """
        from safetensors.torch import save_file

        path = self.path(kind, name)
        metadata = {
            "format": FORMAT,
            "name": path.name,
            "when": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "described": json.dumps(described),
        }
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        metadata["checksum"] = _checksum(plain, metadata)
        try:
            with atomic_path(path) as scratch:
                save_file(plain, scratch, metadata)
        except OSError as error:
            if not self._warned:
                logger.warning(
                    "%s cannot be stored, so it would have to be recomputed next time: %s. The same may hold for later "
                    "results in this folder; the run continues.",
                    path,
                    error,
                )
            self._warned = True

    def entries(self) -> list[Entry]:
        """The files of the cache, the newest first; their tensors are not looked at."""
        entries = [entry for path in self._children() if (entry := _entry(path)) is not None]
        return sorted(entries, key=lambda entry: -entry.made)

    def leftovers(self) -> list[Path]:
        """Temporary folders of writers that were killed: those that nothing was written to for an hour."""
        now = time.time()
        return [path for path in self._children() if _is_leftover(path) and _idle(path, now)]

    def foreign(self) -> list[Path]:
        """What lies in the folder and is not of the cache."""
        # Listed once: what another process makes meanwhile is not foreign.
        children = self._children()
        return [
            path
            for path in children
            if not (NAME.fullmatch(path.name) or LEFTOVER.fullmatch(path.name))
            or (_is_other(path) and not _is_leftover(path))
        ]

    def _children(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Reads a file of a cache and checks everything it says.

    Args:
        path: The file.

    Raises:
        DamagedError: If it is cut short, altered, renamed, of another format or no such file at all.
        OSError: If it cannot be opened.
    """
    from safetensors.torch import load

    return load(check(path))


def check(path: Path) -> bytes:
    """Checks everything that a file of a cache says, without torch, which takes seconds to import.

    Args:
        path: The file.

    Returns:
        What is in it.

    Raises:
        DamagedError: See `read_tensors`.
        OSError: If it cannot be opened.
    """
    if path.is_symlink():
        raise DamagedError(f"it is a link, to {path.readlink()}")
    if _is_other(path):
        raise DamagedError("it is no file")
    # In one piece: a file that is replaced or deleted meanwhile cannot give half of each.
    data = path.read_bytes()
    try:
        metadata = _metadata(data[8 : 8 + _header_length(data[:8])])
        tensors = {
            name: RawTensor(DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data"])
            for name, entry in deserialize(data)
        }
    except (EditError, SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"it is cut short or no safetensors file: {error}") from error
    _check_metadata(metadata, path)
    if metadata.pop("checksum", None) != _checksum(tensors, metadata):
        raise DamagedError("its content is not what was written: the checksum differs")
    return data


def _check_metadata(metadata: dict[str, str], path: Path) -> None:
    if "format" not in metadata:
        raise DamagedError(OLD_FORMAT)
    if metadata["format"] != FORMAT:
        raise DamagedError(f"it is of the format {metadata['format']!r}, expected {FORMAT!r}")
    if metadata.get("name") != path.name:
        raise DamagedError(f"it was written as {metadata.get('name')}")


def _checksum(tensors: "Mapping[str, Tensor | RawTensor]", metadata: Mapping[str, str]) -> str:
    texts = [text for pair in sorted(metadata.items()) for text in pair]
    return fingerprint(fingerprint(*texts), *(part for pair in sorted(tensors.items()) for part in pair))


def _header_length(start: bytes) -> int:
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > LONGEST_HEADER:
        raise ValueError("its first bytes are not those of a header")
    return length


def _metadata(header: bytes) -> dict[str, str]:
    metadata = _table(header.decode(), "its header").get("__metadata__", {})
    table(text, text)(metadata, "its metadata")
    return dict(metadata)


def _table(content: str, name: str) -> dict[str, Any]:
    value = parse_json(content, name)
    table(text, anything)(value, name)
    return dict(value)


def _entry(path: Path) -> Entry | None:
    name = NAME.fullmatch(path.name)
    if name is None or _is_other(path):
        return None
    try:
        status = path.stat()
        entry = Entry(path, name["kind"], status.st_size, status.st_mtime)
        with path.open("rb") as file:
            metadata = _metadata(file.read(_header_length(file.read(8))))
        _check_metadata(metadata, path)
        made = datetime.fromisoformat(metadata["when"]).timestamp()
        return Entry(path, entry.kind, entry.size, made, _table(metadata["described"], "described"))
    except FileNotFoundError:
        return None
    except DamagedError as error:
        return Entry(path, entry.kind, entry.size, entry.made, problem=str(error))
    except (EditError, OSError, ValueError, KeyError, OverflowError):
        return Entry(path, entry.kind, entry.size, entry.made, problem="its header is damaged")


def _is_other(path: Path) -> bool:
    """Whether this is no file: a link, a folder, or a pipe, which nobody may write into."""
    try:
        # Asked once: another process may delete the file between two questions.
        return not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _is_leftover(path: Path) -> bool:
    return LEFTOVER.fullmatch(path.name) is not None and not path.is_symlink()


def _idle(folder: Path, now: float) -> bool:
    try:
        return all(now - path.stat().st_mtime > LEFTOVER_SECONDS for path in _tree(folder))
    except FileNotFoundError:
        # Its writer has just finished.
        return False


def _tree(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")


def delete(path: Path) -> None:
    """Deletes a file or a leftover folder of a cache, or leaves it to whoever deletes it at the same time.

    Args:
        path: See `Cache.entries` and `Cache.leftovers`.

    Raises:
        OSError: If it may not be deleted.
    """
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
