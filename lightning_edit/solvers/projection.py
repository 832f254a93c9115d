"""Which changes of a weight are free: those that ordinary text hardly feels, neither in its keys nor in its loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

# What is remembered of a layer from update to update: sums over the tokens of earlier edits, and once the weight has
# drifted the moments of ordinary text that were counted then, with the change of the weight at that time.
OF_EDITS = frozenset({"keys", "outputs", "key_tokens", "output_tokens"})
OF_TEXT = frozenset({"text_keys", "text_outputs", "reference"})


@dataclass(frozen=True)
class Projection:
    """The projection of a change of W onto what is free by both second moments (CrispEdit).

        P(G) = U_b ((U_b^T G U_a) * M) U_a^T,    A = E[k k^T] = U_a diag(a) U_a^T,    B = E[g g^T] = U_b diag(b) U_b^T

    M is 1 where b_i a_j is below the value at which the largest of these products have the given share of their sum,
    and 0 elsewhere. With B = I the free part is AlphaEdit's null space.

    Args:
        left: U_b ``(d_out, d_out)``.
        right: U_a ``(d_in, d_in)``.
        free: M ``(d_out, d_in)``, true or false.
    """

    left: Tensor
    right: Tensor
    free: Tensor

    @staticmethod
    def of(keys: Tensor, outputs: Tensor, energy: float) -> "Projection":
        """The projection that protects a share of the energy.

        Args:
            keys: A ``(d_in, d_in)`` in float64.
            outputs: B ``(d_out, d_out)`` in float64.
            energy: The share of the sum of all products that is protected, above 0.

        Raises:
            ValueError: If the moments are 0 or not finite, or nothing is free.
        """
        total = float(keys.diagonal().sum() * outputs.diagonal().sum())
        if not (bool(keys.isfinite().all()) and bool(outputs.isfinite().all()) and total > 0):
            raise ValueError(
                "the second moments of keys and output gradients are 0 or not finite. Load the model in float32 or "
                "bfloat16, or give more text as `data.preservation` (`texts` in Python)."
            )
        (of_keys, right), (of_outputs, left) = torch.linalg.eigh(keys), torch.linalg.eigh(outputs)
        products = of_outputs.clamp(min=0)[:, None] * of_keys.clamp(min=0)
        largest = products.flatten().sort(descending=True).values
        sums = largest.cumsum(0)
        reached = int((sums < energy * sums[-1]).sum())
        free = products < largest[reached]
        if not bool(free.any()):
            raise ValueError(
                f"all directions are needed for a share of {energy:g} of the energy. Lower `model.energy`."
            )
        return Projection(left, right, free)

    def __call__(self, change: Tensor) -> Tensor:
        """The free part of a change ``(d_out, d_in)``, in its precision."""
        left, right = self.left.to(change.dtype), self.right.to(change.dtype)
        return left @ ((left.T @ change @ right) * self.free) @ right.T

    @property
    def free_share(self) -> float:
        """Which share of all directions is free."""
        return float(self.free.double().mean())

    def to(self, dtype: torch.dtype) -> "Projection":
        """The same in the precision of what it is to project."""
        return Projection(self.left.to(dtype), self.right.to(dtype), self.free)
