"""The list of a run's updates: which there are, what is known of each, and which are removed; no tensor is read."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open

from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.form import WrongFormError
from lightning_edit.storage.run_files import MEMORIES, UPDATE, UPDATES, check_own_files
from lightning_edit.storage.user.json import read_json
from lightning_edit.updates.files.update_form import described, kept_of, possible_facts
from lightning_edit.updates.files.update_record import EditIndex, UpdateRecord, read_record

REMOVED = "removed.json"
IN_MEMORIES = (
    "RUN: the edits of {} are in memories/, beside the weights (MemoryEditing), and no matrix was changed. "
    "`lightning_edit.load_memories` puts them on a model, where `remove` takes single ones out."
)
NAME = re.compile(r"update-(\d{5,})\.safetensors")


class UpdateList:
    """The updates of one run, numbered from 1, in a folder.

    Several objects, also in several processes, may read one folder; only one writes at a time.

    Args:
        folder: Where the files are; ``updates`` in the run's folder, as a rule.
        until: `find` looks no further than this update; None looks at all.
    """

    def __init__(self, folder: str | Path, until: int | None = None) -> None:
        self.folder, self.until = Path(folder), until
        self._index = EditIndex()

    def path(self, number: int) -> Path:
        """The file of an update."""
        return self.folder / f"update-{number:05}.safetensors"

    def numbers(self) -> list[int]:
        """The numbers of all updates, ascending, those that are removed included.

        Raises:
            EditError: If one is missing.
        """
        numbers = self._files()
        for expected, number in enumerate(numbers, start=1):
            if number != expected:
                raise EditError(
                    f"Update {expected} is missing: there is no {self.path(expected)}, but update {numbers[-1]} is "
                    f"there. Put the file back, or resume the run from a checkpoint before update {expected}."
                )
        return numbers

    def record(self, number: int) -> UpdateRecord:
        """What is known of one update, without its tensors.

        Args:
            number: Which.

        Raises:
            EditError: If there is no such update; `DamagedUpdateError` if its file is cut short or altered.
        """
        return read_record(self._existing(number), number)

    def find(self, request: EditRequest) -> tuple[int, int, str] | None:
        """Where the fact of an edit was last edited, removed updates apart.

        Args:
            request: The edit, as it is asked.

        Returns:
            The number of the update, the column of its keys and the new target; None if it was never edited.
        """
        if not self._index.updates:
            self.numbers()
        removed = self.removed()
        last = float("inf") if self.until is None else self.until
        while (number := self._index.updates + 1) <= last and (edits := self._edits(number)) is not None:
            self._index.add(number, [] if number in removed else edits)
        latest = self._index.latest
        return max((latest[fact] for fact in possible_facts(kept_of(request)) if fact in latest), default=None)

    def _edits(self, number: int) -> Sequence[Mapping[str, str]] | None:
        """The edits of an update, None after the last one."""
        return read_record(self.path(number), number).edits if self.path(number).exists() else None

    def removed(self) -> set[int]:
        """The numbers of the updates that the run's weights do not hold.

        Raises:
            EditError: If the note of them cannot be read.
        """
        path = self.folder / REMOVED
        if not path.exists():
            return set()
        try:
            content = read_json(path)
            numbers = content["removed"]
            # None where the note was written by hand, or by an earlier version.
            if content.get("checksum") not in (None, fingerprint(numbers)):
                raise ValueError("its checksum differs; leave the checksum out if you have mended it")
            return set(map(int, numbers))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise EditError(
                f'{path} should read {{"removed": [numbers of updates]}}, but does not ({error}). Fix it; '
                "`info` in the run's update.safetensors lists the removed updates."
            ) from error

    def set_removed(self, numbers: Collection[int], path: Path | None = None) -> None:
        """Notes which updates the run's weights do not hold, atomically.

        Args:
            numbers: Their numbers.
            path: Where to write the note, if not at its place.
        """
        self._check_known(numbers)
        with atomic_path(path or self.folder / REMOVED) as scratch:
            note = {"removed": sorted(numbers), "checksum": fingerprint(sorted(numbers))}
            scratch.write_text(json.dumps(note) + "\n", encoding="utf-8")
        self._index = EditIndex()

    def _files(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(match[1]) for path in self.folder.iterdir() if (match := NAME.fullmatch(path.name)))

    def _existing(self, number: int) -> Path:
        """The file of an update that must be there."""
        # The folder is listed for the message alone: with thousands of updates that takes longer than reading one.
        if number < 1 or not self.path(number).is_file():
            self._check_known([number])
        return self.path(number)

    def _check_known(self, numbers: Collection[int]) -> None:
        existing = set(self.numbers())
        unknown = sorted(set(numbers) - existing)
        if unknown:
            held = f"holds updates 1 to {len(existing)}" if existing else "holds no updates"
            raise EditError(f"There is no update {', '.join(map(str, unknown))}: {self.folder} {held}.")


def left_out(run: Path, updates: UpdateList) -> set[int]:
    """The numbers of the updates that a run's weights lack, as their own file says where there is one.

    It differs from the note beside the updates after a crash between the two, and is the one that describes weights.

    Args:
        run: The run's folder.
        updates: Its updates.

    Raises:
        EditError: If neither can be read.
    """
    try:
        with safe_open(run / UPDATE, framework="np") as file:
            noted = described(dict(file.metadata() or {}), "info").get("removed_updates", [])
    except (SafetensorError, OSError, WrongFormError):
        return updates.removed()
    return set(noted) & set(updates.numbers()) if noted else set()


Updates = TypeVar("Updates", bound=UpdateList)


def open_updates(run: str | Path, kind: type[Updates]) -> Updates:
    """The updates of a run.

    Args:
        run: The run's folder.
        kind: `UpdateList`, or `History` where the tensors are wanted.

    Raises:
        EditError: If there is no such folder, it holds no updates, or files in it are links.
    """
    folder = Path(run).expanduser()
    if not folder.is_dir():
        raise EditError(f"There is no folder {run}. Give the folder of a run, e.g. runs/version_0.")
    check_own_files(folder)
    updates = kind(folder / UPDATES)
    if not updates.numbers() and (folder / MEMORIES).is_dir():
        raise EditError(IN_MEMORIES.format(run))
    if not updates.numbers():
        raise EditError(
            f"{run} holds no updates: expected {updates.path(1)}. Give the folder of a run that has written an update."
        )
    return updates
