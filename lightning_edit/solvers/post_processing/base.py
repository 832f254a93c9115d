"""What may be done to an update after it is solved, so that many updates disturb the model less."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from lightning_edit.settings import Checked


class PostProcessor(Checked, ABC):
    """Makes an update smaller: no entry of it, or no singular value, ever grows; of each expert's by itself.

    What it takes away is missing from what the edits were to write, so efficacy can only be lost: measure it.

    Attributes:
        of_sum: False for a processor of each update, relative to the weight W that the update is added to; True for one
            of the sum of all updates, relative to the unedited W0, once after the last update.
        of_base: Whether a processor of each update is relative to the unedited W0 as well.
    """

    of_sum: ClassVar[bool] = False
    of_base: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, update: Tensor, base: Tensor) -> Tensor:
        """The processed update ``(d_out, d_in)``.

        Args:
            update: Delta ``(d_out, d_in)`` in float64, dense; it is left as it is.
            base: W, or W0 if `of_sum` or `of_base`, ``(d_out, d_in)`` of any precision.
        """
