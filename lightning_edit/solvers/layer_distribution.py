"""How the residual of an edit is shared between several edited layers."""

import math
from typing import Literal

LayerDistribution = Literal["uniform", "sqrt", "last", "first_last", "replay"]


def residual_share(index: int, layers: int, distribution: LayerDistribution) -> float:
    """The part of the remaining residual that a layer writes; a layer whose part is 0 is not edited.

    Layers are edited from the lowest up, and the residual is measured anew before each, so a layer also gets what those
    below it did not write. The highest layer's part is always 1.

    Args:
        index: Position of the layer among the edited ones, 0 for the lowest.
        layers: Number of edited layers L.
        distribution: ``uniform`` writes 1 / (L - index) (MEMIT, equation 20), the same for every layer; ``sqrt``
            1 / sqrt(L - index) (PMET), more in the lower layers; ``last`` all in the highest layer, as if it were the
            only one; ``first_last`` half in the lowest and the rest in the highest (boundary layers, arXiv 2502.03748);
            ``replay`` all of a residual of its own, see `replayed` (MEMIT-FE, arXiv 2605.00358).
    """
    left = layers - index
    if left == 1 or distribution == "replay":
        return 1.0
    match distribution:
        case "uniform":
            return 1 / left
        case "sqrt":
            return 1 / math.sqrt(left)
        case "last":
            return 0.0
        case "first_last":
            return 0.5 if index == 0 else 0.0
