"""A net that changes keys and gradients before they become residuals, as MALMEN, RLEdit and MEND learn one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_edit.gradients.statistics import Statistics

Shape = tuple[int, int]
DOUBLE = 8


class Block(nn.Module):
    """A residual block of low rank: x + scale_i * max(x A B + b, 0) + shift_i, for place i.

    It begins as the identity: A is normal, B and b are 0, scales are 1 and shifts 0.

    Args:
        size: d_in + d_out.
        rank: Of A B.
        places: How many places share A, B and b.
        generator: Of A.
    """

    def __init__(self, size: int, rank: int, places: int, generator: torch.Generator) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(size, rank, generator=generator))
        self.b = nn.Parameter(torch.zeros(rank, size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.scale = nn.Parameter(torch.ones(places, size))
        self.shift = nn.Parameter(torch.zeros(places, size))

    def forward(self, x: Tensor, place: int) -> Tensor:
        """What becomes of x ``(n, size)`` in float64."""
        a, b, bias = (part.double() for part in (self.a, self.b, self.bias))
        # The slope of clamp is 1 at 0, where all of it begins; with that of relu, 0, nothing would ever be learned.
        return x + self.scale[place].double() * (x @ a @ b + bias).clamp(min=0) + self.shift[place].double()


class ShapeNet(nn.Module):
    """The net of all places whose weights have one shape.

    Args:
        shape: ``(d_out, d_in)``.
        places: How many there are.
        rank: See `Block`.
        blocks: How many.
        generator: See `Block`.
    """

    def __init__(self, shape: Shape, places: int, rank: int, blocks: int, generator: torch.Generator) -> None:
        super().__init__()
        self.d_in = shape[1]
        self.blocks = nn.ModuleList(Block(sum(shape), rank, places, generator) for _ in range(blocks))
        self.log_eta = nn.Parameter(torch.zeros(places))
        self.log_ridge = nn.Parameter(torch.zeros(places))

    def forward(self, keys: Tensor, gradients: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """h^ ``(n, d_in)`` and g^ ``(n, d_out)`` of normalized h' and g'."""
        both = torch.cat([keys, gradients], 1)
        for block in self.blocks:
            both = block(both, place)
        return both[:, : self.d_in], both[:, self.d_in :]


@dataclass(frozen=True)
class Made:
    """How a net was made, which edits with it must share.

    Args:
        model: The name of the model.
        places: For each place its name in the model, and the shape ``(d_out, d_in)`` of its weight.
        rank: See `Block`.
        blocks: How many a shape has.
        settings: Those of the `Gradient` that it goes with, by name.
        solver: With which solver it was trained.
        training: How; told, and not needed.
    """

    model: str
    places: Mapping[str, Shape]
    rank: int
    blocks: int
    settings: Mapping[str, str | float]
    solver: str
    training: Mapping[str, str | float] = field(default_factory=dict)

    def shapes(self) -> dict[Shape, list[str]]:
        """The places of each shape, in their order."""
        found: dict[Shape, list[str]] = {}
        for name, shape in self.places.items():
            found.setdefault(shape, []).append(name)
        return found


class GradientNet(nn.Module):
    """Nets of all shapes, each with what its places share and what each place has of its own.

    With h and g brought to one scale, a place's step is e^(log eta) times the setting `eta`, and its ridge e^(log
    ridge) times that of the solver. Beside one that it does not know, a solver can only be told the weight of pairs:
    both sides of them are multiplied by e^(-log ridge / 2), which for `Ridge` is the same.

    Numbers are kept in float32 and computed with in float64.

    Args:
        made: Its form.
        seed: Of the A of its blocks.
        statistics: What was seen of keys and gradients while it was trained, with which a run begins.
    """

    def __init__(self, made: Made, seed: int = 0, statistics: Mapping[str, Statistics] | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.made, self.statistics = made, dict(statistics or {})
        shapes = made.shapes()
        self._index = {name: index for names in shapes.values() for index, name in enumerate(names)}
        self.nets = nn.ModuleDict(
            {
                named(shape): ShapeNet(shape, len(names), made.rank, made.blocks, generator)
                for shape, names in shapes.items()
            }
        )

    def forward(self, name: str, keys: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """h^ and g^ of one place, see `ShapeNet`.

        Args:
            name: Of the place.
            keys: h' ``(n, d_in)`` in float64.
            gradients: g' ``(n, d_out)``.
        """
        changed: tuple[Tensor, Tensor] = self._of(name)(keys, gradients, self._index[name])
        return changed

    def eta(self, name: str) -> Tensor:
        """By what the step of a place is multiplied, a scalar in float64."""
        return self._of(name).log_eta[self._index[name]].double().exp()

    def weight(self, name: str) -> Tensor:
        """By what keys and residuals of a place are multiplied, a scalar in float64."""
        return (-self._of(name).log_ridge[self._index[name]].double() / 2).exp()

    def memory(self, tokens: int) -> int:
        """About how many bytes it takes to change so many keys and gradients, with the net itself."""
        sizes = [part.numel() for part in self.parameters()]
        return DOUBLE * (sum(sizes) // 2 + 2 * max(sizes) + 4 * tokens * max(map(sum, self.made.shapes())))

    def _of(self, name: str) -> ShapeNet:
        net = self.nets[named(self.made.places[name])]
        assert isinstance(net, ShapeNet)
        return net


def named(shape: Sequence[int]) -> str:
    """The name of a shape ``(d_out, d_in)``, such as ``192x1024``."""
    return f"{shape[0]}x{shape[1]}"
