"""Updates as products of few columns and rows: which rank is enough, and what a smaller one loses.

By its singular value decomposition Delta = U S V^T an update has the best approximation of each rank r,

    Delta_r = sum_{i <= r} s_i u_i v_i^T,      |Delta - Delta_r|^2 = sum_{i > r} s_i^2

in the Frobenius norm (Eckart and Young, 1936). An update of n edits with the factors R S has at most rank n, so that
its decomposition is one of an n x n matrix, between the QR decompositions of both factors.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_edit.solvers.base import Factors


@dataclass(frozen=True, repr=False)
class Spectrum:
    """The singular value decomposition of an update Delta ``(d_out, d_in)``.

    Args:
        left: U ``(d_out, k)``.
        values: S ``(k,)``, descending.
        right: V^T ``(k, d_in)``.
    """

    left: Tensor
    values: Tensor
    right: Tensor


def spectrum(factors: Factors) -> Spectrum:
    """The decomposition of an update, in float64.

    Args:
        factors: Delta.
    """
    left, right = factors.left.double(), None if factors.right is None else factors.right.double()
    if right is None or len(right) >= min(len(left), right.shape[1]):
        return Spectrum(*torch.linalg.svd(left if right is None else left @ right, full_matrices=False))
    (before, inner), (after, outer) = torch.linalg.qr(left), torch.linalg.qr(right.T)
    middle, values, end = torch.linalg.svd(inner @ outer.T, full_matrices=False)
    return Spectrum(before @ middle, values, end @ after.T)


@dataclass(frozen=True, repr=False)
class LowRank:
    """An update of one matrix, or of the E matrices of a layer of experts, which share their rank.

    Args:
        spectra: That of each matrix.
    """

    spectra: tuple[Spectrum, ...]

    @staticmethod
    def of(factors: Factors, experts: int = 0) -> "LowRank":
        """The decomposition of an update.

        Args:
            factors: Delta ``(d_out, d_in)``, of E experts ``(d_out, E d_in)``.
            experts: E, 0 for a single matrix.
        """
        if not experts:
            return LowRank((spectrum(factors),))
        wide = factors.left if factors.right is None else factors.right
        parts = wide.reshape(len(wide), experts, -1).unbind(1)
        dense = factors.right is None
        return LowRank(tuple(spectrum(Factors(part) if dense else Factors(factors.left, part)) for part in parts))

    @cached_property
    def _losses(self) -> Tensor:
        """For each rank from 0 on the relative Frobenius error of the whole update."""
        squares = torch.stack([part.values.square() for part in self.spectra]).sum(0)
        # Summed from the smallest on, so that small errors are exact.
        left = torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)])
        return (left / left[0]).sqrt() if left[0] > 0 else torch.zeros_like(left)

    def error(self, rank: int) -> float:
        """``|Delta - Delta_r| / |Delta|`` in the Frobenius norm, over all matrices.

        Args:
            rank: r.
        """
        return float(self._losses[min(rank, len(self._losses) - 1)])

    def rank_for(self, error: float) -> int:
        """The smallest rank, at least 1, whose relative error is not above another.

        Args:
            error: The largest that is accepted.
        """
        return max(1, int((self._losses > error).sum()))

    def truncated(self, rank: int) -> Factors:
        """The best approximation of a rank, in the form of the update.

        Args:
            rank: r.
        """
        parts = [Factors(one.left[:, :rank] * one.values[:rank], one.right[:rank]) for one in self.spectra]
        return parts[0] if len(parts) == 1 else Factors(torch.cat([part.dense() for part in parts], dim=1))

    def adapter(self, rank: int, padded: int) -> tuple[Tensor, Tensor]:
        """A and B of a LoRA adapter with B A = Delta_r; both have half of the size of Delta, which suits low precision.

        Args:
            rank: r.
            padded: How many rows A has, and columns B, those beyond r being zeros.

        Returns:
            A ``(padded, d_in)`` and B ``(d_out, padded)`` in float64. Of E experts A is ``(E padded, d_in)``, expert
            after expert, and B ``(d_out, padded E)``, the columns of one rank beside each other, as PEFT lays them out.
        """
        downs, ups = [], []
        for part in self.spectra:
            root = part.values[:rank].sqrt()
            down = part.right.new_zeros(padded, part.right.shape[1])
            up = part.left.new_zeros(len(part.left), padded)
            down[: len(root)], up[:, : len(root)] = root[:, None] * part.right[:rank], part.left[:, :rank] * root
            downs.append(down)
            ups.append(up)
        return torch.cat(downs), torch.stack(ups, dim=-1).flatten(1)
