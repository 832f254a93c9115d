"""One file for each update of a run: what was written, for which edits, and checksums that tell whether it still is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest
from lightning_edit.solvers.base import Factors
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.model_update import LayerUpdate, write_tensors

FORMAT = "lightning-edit history 1"
EDIT_FIELDS = ("case_id", "subject", "prompt", "target_new")


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
        edits: ``case_id``, ``subject``, ``prompt`` and ``target_new`` of each of the n edits.
        figures: Norms, errors and condition numbers, ``layer_L/NAME``.
        layers: For each layer the ``module``, the fingerprint ``base`` of its unedited weight and, where it is known,
            ``after``, the fingerprint of the weight with this update in it.
        info: What made it (base model, solver ...).
    """

    number: int
    when: str
    edits: list[dict[str, str]]
    figures: dict[str, float]
    layers: dict[int, dict[str, str]]
    info: dict[str, Any]


@dataclass(frozen=True)
class StoredUpdate:
    """One update with its tensors, all float64 on the CPU.

    Args:
        record: What is known of it.
        updates: For each layer Delta.
        keys: For each layer K ``(d_in, n)``, one column for each edit.
    """

    record: UpdateRecord
    updates: dict[int, LayerUpdate]
    keys: dict[int, Tensor] = field(repr=False)


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
            self.latest[edit["subject"].strip(), edit["prompt"].strip()] = (number, column, edit["target_new"])


def write_update(
    path: Path,
    number: int,
    updates: Mapping[int, LayerUpdate],
    keys: Mapping[int, Tensor],
    requests: Sequence[EditRequest],
    figures: Mapping[str, float],
    info: Mapping[str, Any],
    after: Mapping[int, str],
) -> None:
    """Writes one update, atomically; see `UpdateRecord` and `StoredUpdate` for the arguments.

    Args:
        path: The file.
        number: The number of the update.
        updates: For each layer its update.
        keys: For each layer K ``(d_in, n)``; none for what a run begins with, which has number 0.
        requests: The n edits.
        figures: Of the update.
        info: What made it.
        after: For each layer the fingerprint of the weight with the update in it; may be empty.
    """
    tensors: dict[str, Tensor] = {}
    layers: dict[str, dict[str, str]] = {}
    for layer, update in sorted(updates.items()):
        tensors[f"left.{layer}"] = update.factors.left
        if layer in keys:
            tensors[f"keys.{layer}"] = keys[layer]
        if update.factors.right is not None:
            tensors[f"right.{layer}"] = update.factors.right
        layers[str(layer)] = {"module": update.module, "base": update.base}
        if layer in after:
            layers[str(layer)]["after"] = after[layer]
    tensors = {name: tensor.detach().cpu().double() for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "number": str(number),
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
        "edits": json.dumps([{name: getattr(request, name) for name in EDIT_FIELDS} for request in requests]),
        "figures": json.dumps(dict(figures)),
        "layers": json.dumps(layers),
        "info": json.dumps(dict(info)),
        "tensors": _tensors_checksum(tensors),
    }
    write_tensors(path, tensors, metadata | {"checksum": _checksum(metadata)})


def read_record(path: Path, number: int) -> UpdateRecord:
    """What is known of an update, without reading its tensors.

    Args:
        path: The file.
        number: The number that the update should have.

    Raises:
        DamagedUpdateError: If the file is cut short or altered, or is another update's.
    """
    return _record(_metadata(path, number))


def read_update(path: Path, number: int) -> StoredUpdate:
    """One update with its tensors.

    Args:
        path: The file.
        number: The number that the update should have.

    Raises:
        DamagedUpdateError: If the file is cut short or altered, or is another update's.
    """
    metadata = _metadata(path, number)
    with safe_open(path, framework="pt") as file:
        # Clones, as a view of the mapped file is unaligned, which changes the last bits of products.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if metadata["tensors"] != _tensors_checksum(tensors):
        raise DamagedUpdateError(number, path, "holds other numbers than were written (their checksum differs)")
    record = _record(metadata)
    updates = {
        layer: LayerUpdate(
            entry["module"], entry["base"], Factors(tensors[f"left.{layer}"], tensors.get(f"right.{layer}"))
        )
        for layer, entry in record.layers.items()
    }
    keys = {layer: tensors[f"keys.{layer}"] for layer in record.layers if f"keys.{layer}" in tensors}
    return StoredUpdate(record, updates, keys)


def _metadata(path: Path, number: int) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DamagedUpdateError(number, path, f"cannot be read or is cut short ({error})") from error
    checksum = metadata.pop("checksum", None)
    if metadata.get("format") != FORMAT:
        raise DamagedUpdateError(number, path, f"is no stored update (expected format {FORMAT!r})")
    if checksum != _checksum(metadata):
        raise DamagedUpdateError(number, path, "says other things of itself than were written (the checksum differs)")
    if metadata["number"] != str(number):
        raise DamagedUpdateError(number, path, f"holds update {metadata['number']}")
    return metadata


def _record(metadata: Mapping[str, str]) -> UpdateRecord:
    return UpdateRecord(
        number=int(metadata["number"]),
        when=metadata["when"],
        edits=json.loads(metadata["edits"]),
        figures=json.loads(metadata["figures"]),
        layers={int(layer): entry for layer, entry in json.loads(metadata["layers"]).items()},
        info=json.loads(metadata["info"]),
    )


def _checksum(metadata: Mapping[str, str]) -> str:
    return fingerprint(*(part for name in sorted(metadata) for part in (name, metadata[name])))


def _tensors_checksum(tensors: Mapping[str, Tensor]) -> str:
    return fingerprint(*(part for name in sorted(tensors) for part in (name, tensors[name])))
