"""AlphaEdit: edits written into the null space of ordinary keys."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.settings import Positive
from lightning_edit.solvers.base import Solver
from lightning_edit.solvers.blocks import BlockBasis, inside
from lightning_edit.solvers.preservation import LazyCholesky, Preservation, ScaledIdentity


@dataclass(frozen=True)
class AlphaEdit(Solver):
    """AlphaEdit (Fang et al., 2025, arXiv 2410.02355): nothing changes where ordinary keys are.

        Delta = R K^T U (U^T (K K^T + C_p) U + L2 I)^-1 U^T

    The columns of U are the eigenvectors of C whose eigenvalue is below the threshold. Keys in the span of the others
    are answered as before, exactly; those in the span of U, earlier edits (C_p) apart, are free. This is `MEMIT` with
    w = 0 inside that span, and equals the published R K^T P ((K K^T + C_p) P + L2 I)^-1, P = U U^T, whose matrix is
    not symmetric.

    Prefer it for many updates one after the other. Preconditions: C from enough text, because with fewer tokens than
    d_in directions that no text reached count as free; eigenvalues below the threshold. A singular C is welcome.
    Instead: `MEMIT` with earlier keys where the null space is small, because edits then do not take.

    The threshold is a mean square of keys along a direction, so it has the scale of the model's keys: 0.02 suits the
    models of the paper. A good one leaves most dimensions free and almost all of C's trace (the sum of its eigenvalues)
    to the others.
    """

    threshold: Positive = 2e-2
    """Eigenvalues of C below this are free; above all of them it is plain ridge regression."""

    ridge: Positive = 10.0
    """L2, in units of squared keys: what a change costs in every direction (10 as published)."""

    preserves_edits: ClassVar[bool] = True
    second_moment_weight: ClassVar[float] = 0.0  # type: ignore[misc]

    def lam(self, edits: int) -> float:
        """1, as in MEMIT."""
        return 1.0

    def factor(
        self,
        second_moment: Tensor,
        previous_keys_moment: Tensor | None = None,
        basis: Tensor | BlockBasis | None = None,
    ) -> Preservation:
        """C' = L2 I (+ U^T C_p U) ``(r, r)``, for keys in the null space; see `Solver.factor`.

        Raises:
            EditError: See `null_space`.
        """
        basis = self.null_space(second_moment) if basis is None else basis
        if previous_keys_moment is None:
            return Preservation(ScaledIdentity(self.ridge, basis.shape[1], second_moment), basis)

        def matrix() -> Tensor:
            within = inside(basis, inside(basis, previous_keys_moment.to(second_moment.device)).T).contiguous()
            within.diagonal().add_(self.ridge)
            return within

        return Preservation(LazyCholesky(matrix), basis)

    def null_space(self, second_moment: Tensor) -> Tensor | BlockBasis:
        """U ``(d_in, r)``: the eigenvectors of C with eigenvalue below the threshold.

        Args:
            second_moment: C ``(d_in, d_in)``, or its blocks, see `EditProblem`.

        Raises:
            EditError: If there are none; gives the threshold that frees half of the dimensions.
        """
        if second_moment.dim() == 3:
            return self._of_experts(second_moment)
        values, vectors = torch.linalg.eigh(second_moment)
        free = int((values < self.threshold).sum())
        if not free:
            raise EditError(self._empty(values))
        return vectors[:, :free].contiguous()

    def _of_experts(self, blocks: Tensor) -> BlockBasis:
        """The null spaces of all experts, each in its own rows; an expert may have none if another has one."""
        values, vectors = torch.linalg.eigh(blocks)
        free = (values < self.threshold).sum(1).tolist()
        if not any(free):
            raise EditError(self._empty(values.flatten().sort().values))
        return BlockBasis([of_expert[:, :count].clone() for of_expert, count in zip(vectors, free, strict=True)])

    def check(self, second_moment: Tensor) -> None:
        """Refuses a second moment without null space.

        Args:
            second_moment: C ``(d_in, d_in)``, or its blocks, see `EditProblem`; finite.

        Raises:
            EditError: If no eigenvalue is below the threshold; gives the threshold that frees half of the dimensions.
        """
        shifted = second_moment.clone()
        shifted.diagonal(dim1=-2, dim2=-1).sub_(self.threshold)
        # It has a Cholesky factor only if all eigenvalues are larger; far cheaper than their computation.
        if not torch.linalg.cholesky_ex(shifted).info.any():
            raise EditError(self._empty(torch.linalg.eigvalsh(second_moment).flatten().sort().values))

    def _empty(self, values: Tensor) -> str:
        message = (
            f"AlphaEdit has no null space to write into: 0 of the {len(values)} eigenvalues of the second moment are "
            f"below the threshold {self.threshold:g}. "
        )
        lowest, middle, highest = (float(values[i]) for i in (0, len(values) // 2, -1))
        if highest <= lowest * 1.001:
            return message + "They are all the same, so no threshold divides them. Take it from text, or use MEMIT."
        return message + (
            f"They run from {lowest:.3g} to {highest:.3g}, half of them below {middle:.3g}: set the solver's "
            "`threshold` to about that, higher to let more edits in, lower to preserve more."
        )
