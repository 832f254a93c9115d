"""How the residual of an edit is shared between several edited layers."""

import math
from typing import Literal

LayerDistribution = Literal["uniform", "sqrt"]


def residual_share(index: int, layers: int, distribution: LayerDistribution) -> float:
    """The part of the remaining residual that a layer writes.

    Layers are edited from the lowest up, and the residual is measured anew before each.

    Args:
        index: Position of the layer among the edited ones, 0 for the lowest.
        layers: Number of edited layers L.
        distribution: ``uniform`` writes 1 / (L - index) (MEMIT, equation 20), ``sqrt`` 1 / sqrt(L - index) (PMET).
    """
    left = layers - index
    return 1 / left if distribution == "uniform" else 1 / math.sqrt(left)
