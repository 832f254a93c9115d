"""The settings that are tried, and which are next to which."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from lightning_edit.solvers import EMMET, MEMIT, Solver

EMMET_LAMBDA = 0.1
# Steps by about a half of a decade; MEMIT's published weights are 15,000 to 50,000, EMMET's 1,000 comes to 100 here.
WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0)
RATES = (0.05, 0.1, 0.2, 0.5, 1.0)
CLAMPS = (0.5, 0.75, 1.5, 3.0, 6.0)
# Where the search begins: values as published for GPT2-XL, and what small models need. An ordinary key has
# k^T C^-1 k = d_in on average, so that with a weight of d_in / 10 a single edit of one gets 10 / 11 of its residual.
FIRST_VALUES, FIRST_SHARES = ((0.5, 0.75), (0.1, 3.0)), (10, 100)


@dataclass(frozen=True, order=True)
class Point:
    """One choice of settings.

    With a lambda above 0 EMMET writes what MEMIT writes with a weight of lambda times its own, so the two differ in one
    number: a single layer is written as EMMET with its published lambda, several as MEMIT.

    Args:
        layers: The edited layers, ascending.
        lr: Learning rate of values.
        clamp: Their `clamp_norm_factor`.
        weight: w of MEMIT; of EMMET it is this divided by lambda.
    """

    layers: tuple[int, ...]
    lr: float
    clamp: float
    weight: float

    @property
    def solver(self) -> Solver:
        """The solver that writes with these settings."""
        if len(self.layers) > 1:
            return MEMIT(self.weight)
        return EMMET(second_moment_weight=round(self.weight / EMMET_LAMBDA, 6), emmet_lambda=EMMET_LAMBDA)

    @property
    def values_key(self) -> tuple[int, float, float]:
        """What value vectors depend on: points that share it share them."""
        return self.layers[-1], self.lr, self.clamp


@dataclass(frozen=True)
class Space:
    """All points that may be tried.

    Args:
        layer_sets: Which layers to edit, the most promising first.
        d_in: Length of a key.
        rates: Learning rates, ascending, and so the others.
        clamps: Clamps.
        weights: Weights.
    """

    layer_sets: tuple[tuple[int, ...], ...]
    d_in: int
    rates: tuple[float, ...] = RATES
    clamps: tuple[float, ...] = CLAMPS
    weights: tuple[float, ...] = WEIGHTS

    def start(self) -> list[Point]:
        """Where a search begins: all layers, with a few settings that lie far apart."""
        return [
            Point(layers, lr, clamp, weight)
            for layers, (lr, clamp), weight in product(self.layer_sets, FIRST_VALUES, self._first_weights())
        ]

    def coarse(self, layer_sets: Sequence[tuple[int, ...]]) -> list[Point]:
        """Every second learning rate and clamp, so that no pair of them is more than two steps away from one of these.

        A rate suits only some clamps: with a small one values do not get far, with a large one in a wide ball too far.
        From one good pair to another the way leads through worse ones, which neighbors alone do not cross.

        Args:
            layer_sets: With which layers.
        """
        values = product(layer_sets, self.rates[::2], self.clamps[::2], self._first_weights())
        return [Point(layers, lr, clamp, weight) for layers, lr, clamp, weight in values]

    def _first_weights(self) -> list[float]:
        nearest = [min(self.weights, key=lambda w: abs(math.log(w * share / self.d_in))) for share in FIRST_SHARES]
        return list(dict.fromkeys(nearest))

    def neighbors(self, point: Point) -> list[Point]:
        """The points one step away in one setting; layers are not changed."""
        return [
            *(replace(point, weight=weight) for weight in _beside(self.weights, point.weight)),
            *(replace(point, clamp=clamp) for clamp in _beside(self.clamps, point.clamp)),
            *(replace(point, lr=lr) for lr in _beside(self.rates, point.lr)),
        ]

    def __iter__(self) -> Iterator[Point]:
        """All of them, those that share value vectors in a row."""
        for layers, lr, clamp, weight in product(self.layer_sets, self.rates, self.clamps, self.weights):
            yield Point(layers, lr, clamp, weight)

    def __len__(self) -> int:
        return len(self.layer_sets) * len(self.rates) * len(self.clamps) * len(self.weights)


def _beside(values: Sequence[float], value: float) -> list[float]:
    place = values.index(value)
    return [values[i] for i in (place - 1, place + 1) if 0 <= i < len(values)]
