"""Where an editing run is: all that a run which was killed needs to go on as if nothing had happened."""

import dataclasses
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.solvers import Factors, PreviousKeys
from lightning_edit.solvers.anchors import Memory
from lightning_edit.storage.numbers import refuse_not_finite
from lightning_edit.values.vectors import Values

Pending = tuple[list[int], Values]


@dataclass(frozen=True)
class RunState:
    """A run between two updates; it is replaced as a whole when an update is kept, so it is never half way.

    Args:
        offered: How many edits, in the order of the data, have values or were left out, up to a whole part.
        taken: How many more were taken from the part that was found together and is not used up.
        micro_batches: How many micro-batches are done.
        passes: How many passes of the value optimization were logged.
        edits_written: How many edits are in the weights.
        updates_written: In how many updates.
        finished: Whether the last update was written and post-processed.
        stopped: Why no more edits are made, if one update was refused.
        left_out: For each edit (by position) that is not written although it was its turn, why.
        added: For each edited layer the sum of all updates, an earlier run's included.
        previous_keys: For each edited layer the keys of earlier edits, empty where they are not used.
        statistics: What a source has seen of keys and gradients, by the shape of weights; empty without one.
        anchored: For each edited layer what the anchor remembers of it, empty where there is none.
        pending: Positions and values of edits that wait for their update.
        seconds: Time spent on each stage.
        curves: What callbacks measured on the way.
        value_losses: For the position of each edit whose value was found the loss that was left, in nats a token.
    """

    offered: int = 0
    taken: int = 0
    micro_batches: int = 0
    passes: int = 0
    edits_written: int = 0
    updates_written: int = 0
    finished: bool = False
    stopped: str | None = None
    left_out: dict[int, str] = field(default_factory=dict)
    added: dict[int, Factors] = field(default_factory=dict)
    previous_keys: dict[int, PreviousKeys] = field(default_factory=dict)
    statistics: dict[str, Statistics] = field(default_factory=dict)
    anchored: dict[int, Memory] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    value_losses: dict[int, float] = field(default_factory=dict)

    def packed(self) -> dict[str, Any]:
        """Tensors, numbers, texts, lists and dictionaries only, which `torch.load` reads with ``weights_only``."""
        content: dict[str, Any] = {
            entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self) if entry.name not in PACKED
        }
        content["added"] = {layer: {"left": f.left.cpu(), "right": _cpu(f.right)} for layer, f in self.added.items()}
        content["previous_keys"] = {layer: keys.packed() for layer, keys in self.previous_keys.items()}
        content["statistics"] = {shape: seen.packed() for shape, seen in self.statistics.items()}
        content["anchored"] = {
            layer: {name: tensor.cpu() for name, tensor in memory.items()} for layer, memory in self.anchored.items()
        }
        content["pending"] = [
            {"positions": positions, **{name: value.cpu() for name, value in vars(values).items()}}
            for positions, values in self.pending
        ]
        return content

    @staticmethod
    def unpacked(content: dict[str, Any]) -> "RunState":
        """The state that `packed` wrote.

        Args:
            content: As read from a checkpoint.

        Raises:
            EditError: If what was added to a weight is not finite.
        """
        # Sums over memory that is laid out in another way may round in another way.
        added = {
            layer: Factors(*(None if part is None else part.clone() for part in (pair["left"], pair["right"])))  # type: ignore[arg-type]
            for layer, pair in content["added"].items()
        }
        for layer, factors in added.items():
            refuse_not_finite({f"the sum of the updates of layer {layer}": factors.dense()}, "The checkpoint")
        pending = []
        for entry in content["pending"]:
            tensors = {name: value for name, value in entry.items() if name != "positions"}
            pending.append((entry["positions"], Values(**tensors)))
        previous_keys = {layer: PreviousKeys.unpacked(keys) for layer, keys in content["previous_keys"].items()}
        statistics = {shape: Statistics.unpacked(seen) for shape, seen in content.get("statistics", {}).items()}
        anchored = {
            layer: {name: tensor.clone() for name, tensor in memory.items()}
            for layer, memory in content.get("anchored", {}).items()
        }
        read = {"added": added, "previous_keys": previous_keys, "statistics": statistics, "anchored": anchored}
        return RunState(**{**content, **read, "pending": pending})


PACKED = ("added", "previous_keys", "statistics", "anchored", "pending")


def _cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()


def random_states() -> dict[str, Any]:
    """The states of all random generators of this process, in plain types."""
    name, keys, *rest = np.random.get_state()
    version, internal, gauss = random.getstate()
    states: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Brings the random generators of this process to states that `random_states` returned.

    Args:
        states: As read from a checkpoint.

    Raises:
        EditError: If they are no states of these generators.
    """
    try:
        version, internal, gauss = states["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(states["torch"])
        if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
            torch.cuda.set_rng_state_all(states["cuda"])
    except (ValueError, TypeError, RuntimeError, AttributeError, OverflowError) as error:
        raise EditError(f"The checkpoint cannot be used: random: no states of random generators ({error}).") from error
