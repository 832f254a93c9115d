"""How facts are traced."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from lightning_edit.settings import Count, Positive, Seed, Settings

# What is restored: the hidden state that leaves a block, or what its MLP or its attention adds to it.
Kind = Literal["state", "mlp", "attention"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# The published windows are 10 of the 48 layers of GPT2-XL.
WINDOW, DEPTH = 10, 48


@dataclass(frozen=True)
class TracingSettings(Settings):
    """How facts are traced (ROME, section 2 and appendix B; defaults as published).

    Raises:
        EditError: If a number is out of its range.
    """

    section: ClassVar[str] = "tracing"

    samples: Count = 10
    """How many times noise is drawn; probabilities are averaged over the samples."""

    noise: Positive = 3.0
    """Standard deviation of the noise, in multiples of that of the embeddings of subjects."""

    window: Count | None = None
    """How many layers' MLPs or attentions are restored at once; null for 10, and fewer in models of under 48 layers."""

    seed: Seed = 0
    """Of the noise; each fact draws its own from it, whatever other facts are traced."""

    def layers_around(self, layer: int, depth: int, kind: Kind) -> range:
        """The layers that are restored together.

        Args:
            layer: The middle one; of an even number the upper of the two.
            depth: How many layers the model has.
            kind: What is restored; of hidden states always one.
        """
        if kind == "state":
            return range(layer, layer + 1)
        width = self.width(depth)
        return range(max(0, layer - width // 2), min(depth, layer + (width + 1) // 2))

    def width(self, depth: int) -> int:
        """The number of layers in a window.

        Args:
            depth: How many layers the model has.
        """
        return self.window or max(1, min(WINDOW, round(WINDOW * depth / DEPTH)))
