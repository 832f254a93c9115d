"""What may be done to an update after it is solved, so that many updates disturb the model less."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_edit.settings import Checked, Range


class PostProcessor(Checked, ABC):
    """Makes an update smaller: no entry of it, or no singular value, ever grows.

    What it takes away is missing from what the edits were to write, so efficacy can only be lost: measure it.

    Attributes:
        of_sum: False for a processor of each update, relative to the weight W that the update is added to; True for one
            of the sum of all updates, relative to the unedited W0, once after the last update.
        of_base: Whether a processor of each update is relative to the unedited W0 as well.
        by_expert: Whether the matrix of each expert is processed by itself.
    """

    of_sum: ClassVar[bool] = False
    of_base: ClassVar[bool] = False
    by_expert: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, update: Tensor, base: Tensor) -> Tensor:
        """The processed update ``(d_out, d_in)``.

        Args:
            update: Delta ``(d_out, d_in)`` in float64, dense; it is left as it is.
            base: W, or W0 if `of_sum` or `of_base`, ``(d_out, d_in)`` of any precision.
        """


@dataclass(frozen=True)
class RECT(PostProcessor):
    """RECT (Gu et al., 2024, arXiv 2401.04700): only the relatively largest changes are made.

    Keeps the entries with the largest ``|Delta / W|`` and sets the others to 0, after each update. An entry that is
    changed where W is 0 counts as infinitely large and is kept first; one that is not changed counts as 0. Entries as
    large as the smallest kept one are all kept. The update is dense afterwards.

    Made for ROME and single edits. With many edits in one update no entry belongs to one edit alone; there a ridge
    bounds the change and still writes what it can.
    """

    keep: Annotated[float, Range(above=0, at_most=1)] = 0.4
    """The fraction of entries that is kept; 1 changes nothing (0.4 as published)."""

    def __call__(self, update: Tensor, base: Tensor) -> Tensor:
        """The update with the entries of small relative change set to 0."""
        change = (update / base.to(update)).abs().nan_to_num(nan=0.0, posinf=math.inf)
        kept = math.ceil(self.keep * change.numel())
        smallest = change.flatten().kthvalue(change.numel() - kept + 1).values
        return torch.where(change >= smallest, update, 0.0)


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
