"""What is known of one update of a run without its tensors, read without torch, which takes seconds to import."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lightning_edit.errors import EditError
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.form import WrongFormError, fields, text
from lightning_edit.updates.files.update_form import described, kept_fact

FORMAT = "lightning-edit history 1"


class DamagedUpdateError(EditError):
    """The file of one update is not what was written.

    Args:
        number: Which update.
        path: Its file.
        what: What is wrong with it.
    """

    def __init__(self, number: int, path: Path, what: str) -> None:
        self.number = number
        independent = f"{path} {what}. The run's model, update.safetensors and checkpoints do not depend on this file"
        super().__init__(
            f"Update {number} is damaged: {independent}. Update {number} can still be removed, for the others are "
            f"added up without it; a fit that goes on from a checkpoint before update {number} writes it anew."
            if number
            else f"What the run began with is damaged: {independent}, but updates can no longer be removed or put back."
        )


@dataclass(frozen=True)
class UpdateRecord:
    """What is known of one update without its tensors.

    Args:
        number: Its place in the run, from 1; 0 for what the run began with.
        when: When it was written, ISO 8601 with the time zone.
        edits: ``case_id``, ``subject``, ``prompt`` and ``target_new`` of each of the n edits; in a chat the prompt is
            the question, and ``plain_prompt`` the record's own.
        figures: Norms, errors and condition numbers, ``layer_L/NAME``.
        layers: For each layer the ``module``, the fingerprint ``base`` of its unedited weight and, where it is known,
            ``after``, the fingerprint of the weight with this update in it.
        info: What made it (base model, solver ...).
        owners: To which of the edits each key belongs; None where each edit has one.
    """

    number: int
    when: str
    edits: list[dict[str, str]]
    figures: dict[str, float]
    layers: dict[int, dict[str, str]]
    info: dict[str, Any]
    owners: list[int] | None = None

    @property
    def keys(self) -> int:
        """How many keys were written."""
        return len(self.edits if self.owners is None else self.owners)

    def columns_of(self, edits: Sequence[int]) -> list[int]:
        """The columns of the keys that belong to some of the edits.

        Args:
            edits: Their positions, ascending.
        """
        return columns_of(self.owners, edits)


def columns_of(owners: Sequence[int] | None, edits: Sequence[int]) -> list[int]:
    """The columns of the keys that belong to some edits, ascending.

    Args:
        owners: To which edit each key belongs; None where each edit has one.
        edits: The positions of the edits, ascending.
    """
    if owners is None:
        return list(edits)
    chosen = set(edits)
    return [column for column, owner in enumerate(owners) if owner in chosen]


@dataclass
class EditIndex:
    """Where each fact was last edited.

    Args:
        updates: How many updates are in it.
        latest: For subject and prompt the number of the update, the column of its keys and the new target.
    """

    updates: int = 0
    latest: dict[tuple[str, str], tuple[int, int, str]] = field(default_factory=dict)

    def add(self, number: int, edits: Sequence[Mapping[str, str]]) -> None:
        """Takes in the next update.

        Args:
            number: Its number.
            edits: Its edits, see `UpdateRecord`.
        """
        self.updates = number
        for column, edit in enumerate(edits):
            self.latest[kept_fact(edit)] = (number, column, edit["target_new"])


def read_record(path: Path, number: int) -> UpdateRecord:
    """What is known of an update, without reading its tensors.

    Args:
        path: The file.
        number: The number that the update should have.

    Raises:
        DamagedUpdateError: If the file is cut short or altered, or is another update's.
    """
    return record_of(read_metadata(path, number), path)


def read_metadata(path: Path, number: int) -> dict[str, str]:
    """What a file says of itself, checked.

    Args:
        path: The file.
        number: The number that the update should have.

    Raises:
        DamagedUpdateError: If the file is cut short or altered, or is another update's.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DamagedUpdateError(number, path, f"cannot be read or is cut short ({error})") from error
    written = metadata.pop("checksum", None)
    if metadata.get("format") != FORMAT:
        raise DamagedUpdateError(number, path, f"is no stored update (expected format {FORMAT!r})")
    if written != checksum(metadata):
        raise DamagedUpdateError(number, path, "says other things of itself than were written (the checksum differs)")
    if metadata.get("number") != str(number):
        raise DamagedUpdateError(number, path, f"holds update {metadata.get('number')}")
    return metadata


def record_of(metadata: Mapping[str, str], path: Path) -> UpdateRecord:
    """The record that a file holds.

    Args:
        metadata: See `read_metadata`.
        path: The file.

    Raises:
        DamagedUpdateError: If the file is not of the form that a run writes.
    """
    number = int(metadata["number"])
    try:
        fields({"when": text, "tensors": text}, others=True)(metadata, "")
        datetime.fromisoformat(metadata["when"])
        return UpdateRecord(
            number=number,
            when=metadata["when"],
            edits=described(metadata, "edits"),
            figures={name: value for name, value in described(metadata, "figures").items() if value is not None},
            layers={int(layer): entry for layer, entry in described(metadata, "layers").items()},
            info=described(metadata, "info"),
            owners=described(metadata, "owners") if "owners" in metadata else None,
        )
    except (WrongFormError, ValueError) as error:
        raise DamagedUpdateError(number, path, f"is not of the form that was written ({error})") from error


def checksum(metadata: Mapping[str, str]) -> str:
    """The checksum over what a file says of itself.

    Args:
        metadata: All but the checksum.
    """
    return fingerprint(*(part for name in sorted(metadata) for part in (name, metadata[name])))
