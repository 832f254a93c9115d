"""How a net is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_edit.settings import Count, NotNegative, Positive, Rate, Seed, Settings, Share


@dataclass(frozen=True)
class NetSettings(Settings):
    """The form of a net and its training; the defaults are those of MALMEN (Tan et al., 2024, arXiv 2311.04661)."""

    rank: Count = 1920
    """Of the blocks, see `Block`."""

    blocks: Count = 2
    """Blocks of the net of a shape."""

    steps: Count = 200
    """Steps of Adam."""

    batch: Count = 16
    """Facts of an update."""

    turns: Count = 1
    """Updates of a step, which follow each other; 1 trains single updates (MALMEN), more a sequence (RLEdit)."""

    reach: Count = 10
    """The updates, the last one among them, whose facts are looked at after each."""

    discount: Share = 0.95
    """By what the facts of an update count less with each that follows."""

    locality: NotNegative = 0.6
    """The weight of the KL divergence on unrelated prompts."""

    penalty: NotNegative = 0.0
    """The weight of |Delta|^2."""

    lr: Rate = 1e-5
    """Learning rate of Adam."""

    clip: Positive = 1.0
    """The largest norm of the gradient of a step."""

    seed: Seed = 0
    """Of the net and the order of facts."""


# What the methods have of their own: settings of the net, of `Gradient`, and the solver.
METHODS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], str]] = {
    "malmen": ({}, {"scale": "key_product"}, "Ridge"),
    "rledit": ({"rank": 1024, "blocks": 4, "turns": 20, "penalty": 1e-4}, {"scale": "key_product"}, "Ridge"),
    "mend": ({}, {"scale": "alone", "tokens": "all"}, "Sum"),
}
