"""GRACE: a codebook beside a layer, whose values take the place of its output close to their keys."""

from typing import Any

import torch
from torch import Tensor

from lightning_edit.memories.memory import Entry, Memory

# By how much less than half of their distance the older of two keys reaches, so that no token belongs to both.
GAP = 1e-5


class Grace(Memory):
    """The codebook of GRACE (Hartvigsen et al., 2023, arXiv 2211.11031).

    A token whose key lies within the radius of the nearest stored key gets the value that is stored with it. An edit
    whose key is close to a stored one, closer than both radii together, either widens that one's radius to its own
    key, where both have the same label, or else becomes a key of its own and both radii become half of the distance.
    One whose key is the same takes the place of the stored one.

    Args:
        radius: The radius of a new key.
    """

    kind = "grace"
    form = {"key": ("d_in",), "value": ("d_out",)}  # noqa: RUF012

    def __init__(self, radius: float = 1.0) -> None:
        super().__init__()
        self.radius = radius
        self._clear()

    def settings(self) -> dict[str, Any]:
        """The radius of a new key."""
        return {"radius": self.radius}

    def _clear(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._radii: list[float] = []
        self._labels: list[str] = []

    def _take(self, entry: Entry) -> None:
        key, value = entry.tensors["key"], entry.tensors["value"]
        radius = self.radius
        if self._keys:
            distances = torch.stack([(key - other).norm() for other in self._keys])
            nearest = int(distances.argmin())
            distance = float(distances[nearest])
            if distance <= self.radius + self._radii[nearest]:
                if entry.label == self._labels[nearest]:
                    self._radii[nearest] = max(self._radii[nearest], distance)
                    return
                if distance <= 2 * GAP:
                    # Half of it leaves no room for two, so the later edit takes the place of the earlier.
                    self._values[nearest], self._labels[nearest] = value, entry.label
                    return
                radius, self._radii[nearest] = distance / 2, distance / 2 - GAP
        self._keys.append(key)
        self._values.append(value)
        self._radii.append(radius)
        self._labels.append(entry.label)

    def _tables(self) -> tuple[Tensor, ...]:
        keys = torch.stack(self._keys)
        return keys, torch.stack(self._values), torch.tensor(self._radii, dtype=keys.dtype)

    def _change(self, keys: Tensor, output: Tensor, *tables: Tensor) -> Tensor:
        stored, values, radii = tables
        # By matrix products, small distances between large keys would be lost in rounding.
        distances = torch.cdist(keys.to(stored), stored, compute_mode="donot_use_mm_for_euclid_dist")
        distance, nearest = distances.min(1)
        inside = distance <= radii[nearest]
        return torch.where(inside[:, None], values[nearest].to(output.dtype), output)
