"""The value vectors of edits, and how they were found."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.requests import EditRequest

logger = logging.getLogger(__name__)

# Why an edit has no value to be written.
NOT_FINITE = "its loss is not a finite number"
GIVEN_UP = "its value is more than twice as large as those of the unedited model"


@dataclass(frozen=True)
class Values:
    """The value vectors of n edits and how they were found.

    Args:
        z: ``(n, d_model)``, z = z0 + delta, in float32 or the model's own precision if higher.
        z0: ``(n, d_model)``, the unedited state in the bare prompt.
        nll: ``(n,)`` mean negative log-likelihood of the new target, in nats, in the last pass.
        kl: ``(n,)`` the KL term of the loss, its factor included.
        decay: ``(n,)`` the weight decay term of the loss, its factor included.
        steps: ``(n,)`` forward passes used.
        finite: ``(n,)`` false for edits that must not be written, whose z is z0: their loss was not a number (and is
            NaN in ``nll``), or the value was given up, see `with_norm`.
    """

    z: Tensor
    z0: Tensor
    nll: Tensor
    kl: Tensor
    decay: Tensor
    steps: Tensor
    finite: Tensor

    def __len__(self) -> int:
        return len(self.z)

    def where(self, chosen: Tensor) -> "Values":
        """The values of some edits: where ``chosen (n,)`` is true, or at the indices it holds."""
        return Values(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def to(self, device: torch.device | str) -> "Values":
        """The same on a device."""
        return Values(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def left_out(self) -> dict[int, str]:
        """For each edit that must not be written why."""
        lost = (~self.finite).nonzero()[:, 0].tolist()
        return {edit: GIVEN_UP if bool(self.nll[edit].isfinite()) else NOT_FINITE for edit in lost}

    def warn_left_out(self, requests: Sequence[EditRequest]) -> None:
        """Names the edits whose loss was not a finite number in a warning.

        Args:
            requests: The n edits.
        """
        for edit in (~self.finite).nonzero()[:, 0].tolist():
            logger.warning("%s: the loss is not a finite number; this edit is left out.", requests[edit].name)

    @staticmethod
    def join(parts: Sequence["Values"]) -> "Values":
        """The values of several micro-batches, one after the other."""
        names = Values.__dataclass_fields__
        return Values(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
