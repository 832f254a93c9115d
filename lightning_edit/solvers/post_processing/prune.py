"""PRUNE: the sum of all updates has no direction in which it is much larger than the weight."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_edit.settings import Range
from lightning_edit.solvers.post_processing.base import PostProcessor


@dataclass(frozen=True)
class PRUNE(PostProcessor):
    """PRUNE (Ma et al., 2025, arXiv 2405.16821): no direction changes much more than W0 has in its largest.

    A singular value s of the sum of all updates that is above smax, the largest of W0, becomes

        min(s, F(s)),      F(s) = log_alpha(s) - log_alpha(smax) + smax

    which bounds the condition number of the edited weight. Published is F(s) alone; it enlarges singular values just
    above smax where smax < 1 / ln(alpha), hence the minimum. A sum whose singular values are all below smax is left as
    it is. PRUNE mends, once and at the cost of edits, what long runs of `ROME` or of solvers without ridge have done; a
    ridge prevents it.
    """

    alpha: Annotated[float, Range(above=1)] = 1.2
    """Base of the logarithm; larger compresses more. The paper chooses it for each model and method."""

    of_sum: ClassVar[bool] = True

    def __call__(self, update: Tensor, base: Tensor) -> Tensor:
        """The sum of the updates with its largest singular values compressed."""
        largest = torch.linalg.matrix_norm(base.to(update), ord=2)
        left, values, right = torch.linalg.svd(update, full_matrices=False)
        if values[0] <= largest:
            return update
        compressed = torch.log(values / largest) / math.log(self.alpha) + largest
        excess = (values - compressed).clamp(min=0).where(values > largest, 0.0)
        # Only what is too much is taken away, so that all else keeps its bits.
        return update - (left * excess) @ right
