"""RECT: the relatively largest changes of a weight alone are made."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from lightning_edit.settings import Range
from lightning_edit.solvers.post_processing.base import PostProcessor


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
