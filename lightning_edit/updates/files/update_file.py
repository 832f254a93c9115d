"""One file for each update of a run: what was written, for which edits, and checksums that tell whether it still is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from lightning_edit.requests import EditRequest
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.form import WrongFormError
from lightning_edit.storage.numbers import to_json
from lightning_edit.storage.tensor_form import read_tensors, write_tensors
from lightning_edit.updates.files.update_form import kept_of
from lightning_edit.updates.files.update_record import (
    FORMAT,
    DamagedUpdateError,
    UpdateRecord,
    checksum,
    read_metadata,
    record_of,
)
from lightning_edit.updates.files.update_tensors import check_keys, factors_of
from lightning_edit.updates.layer_update import LayerUpdate, layer_update


@dataclass(frozen=True)
class StoredUpdate:
    """One update with its tensors, all float64 on the CPU.

    Args:
        record: What is known of it.
        updates: For each layer Delta.
        keys: For each layer K ``(d_in, n)``, one column for each edit, or several, see `UpdateRecord.owners`.
    """

    record: UpdateRecord
    updates: dict[int, LayerUpdate]
    keys: dict[int, Tensor] = field(repr=False)


def write_update(
    path: Path,
    number: int,
    updates: Mapping[int, LayerUpdate],
    keys: Mapping[int, Tensor],
    requests: Sequence[EditRequest],
    figures: Mapping[str, float],
    info: Mapping[str, Any],
    after: Mapping[int, str],
    owners: Sequence[int] | None = None,
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
        owners: To which of the edits each key belongs; None where each edit has one.
    """
    tensors: dict[str, Tensor] = {}
    layers: dict[str, dict[str, str]] = {}
    for layer, update in sorted(updates.items()):
        tensors[f"left.{layer}"] = update.factors.left
        if layer in keys:
            tensors[f"keys.{layer}"] = keys[layer]
        if update.factors.right is not None:
            tensors[f"right.{layer}"] = update.factors.right
        layers[str(layer)] = update.described
        if layer in after:
            layers[str(layer)]["after"] = after[layer]
    tensors = {name: tensor.detach().cpu().double() for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "number": str(number),
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
        "edits": json.dumps([kept_of(request) for request in requests]),
        "figures": to_json(dict(figures)),
        "layers": json.dumps(layers),
        "info": to_json(dict(info)),
        "tensors": _tensors_checksum(tensors),
        **({} if owners is None else {"owners": json.dumps(owners)}),
    }
    write_tensors(path, tensors, metadata | {"checksum": checksum(metadata)})


def read_update(path: Path, number: int) -> StoredUpdate:
    """One update with its tensors.

    Args:
        path: The file.
        number: The number that the update should have.

    Raises:
        DamagedUpdateError: If the file is cut short or altered, or is another update's.
    """
    metadata = read_metadata(path, number)
    try:
        tensors, _ = read_tensors(path)
    except SafetensorError as error:
        raise DamagedUpdateError(number, path, f"cannot be read ({error})") from error
    if metadata.get("tensors") != _tensors_checksum(tensors):
        raise DamagedUpdateError(number, path, "holds other numbers than were written (their checksum differs)")
    record = record_of(metadata, path)
    try:
        updates = {layer: layer_update(entry, factors_of(tensors, layer)) for layer, entry in record.layers.items()}
        keys = {layer: tensors[f"keys.{layer}"] for layer in record.layers if f"keys.{layer}" in tensors}
        if number and keys.keys() != updates.keys():
            raise WrongFormError("keys", f"those of the layers {sorted(updates)}", sorted(keys))
        for layer, matrix in keys.items():
            check_keys(matrix, layer, updates[layer].factors, record.keys)
    except WrongFormError as error:
        raise DamagedUpdateError(number, path, f"is not of the form that was written ({error})") from error
    return StoredUpdate(record, updates, keys)


def _tensors_checksum(tensors: Mapping[str, Tensor]) -> str:
    return fingerprint(*(part for name in sorted(tensors) for part in (name, tensors[name])))
