"""MEMIT with a lambda for each direction of the output: what the loss is sensitive to is written less."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_edit.settings import Range
from lightning_edit.solvers.base import EditProblem, Factors, Solution
from lightning_edit.solvers.cholesky import Cholesky, SingularError
from lightning_edit.solvers.memit import MEMIT
from lightning_edit.solvers.preservation import Preservation, dual_system
from lightning_edit.solvers.previous_keys import SHARE, SHARE_OF_EXPERTS


@dataclass(frozen=True)
class OutputDirections:
    """The directions of a layer's output, and how sensitive the loss on ordinary text is to each.

    Args:
        vectors: U ``(d_out, d_out)``, the eigenvectors of B = E[g g^T] in its columns.
        weights: b ``(d_out,)``, the eigenvalues of B over their mean.
    """

    vectors: Tensor
    weights: Tensor

    @staticmethod
    def of(moment: Tensor) -> "OutputDirections":
        """The directions of a second moment of output gradients.

        Args:
            moment: B ``(d_out, d_out)`` in float64, of any scale.

        Raises:
            ValueError: If B holds no gradients, or numbers that are not finite.
        """
        if not bool(moment.isfinite().all()) or not float(moment.diagonal().sum()) > 0:
            raise ValueError(
                "the second moment of output gradients is 0 or not finite, so no direction can be told from another. "
                "Load the model in float32 or bfloat16, or use MEMIT, which needs no gradients."
            )
        values, vectors = torch.linalg.eigh(moment)
        values = values.clamp(min=0)
        return OutputDirections(vectors, values / values.mean())


@dataclass(frozen=True)
class ShiftedSpectrum:
    """The systems A + b_i I of all directions, known by eigenvalues.

    Args:
        values: Those of A, ascending.
        shifts: b ``(d_out,)``.
    """

    values: Tensor
    shifts: Tensor

    def check(self) -> None:
        """Refuses systems of which one cannot be solved.

        Raises:
            SingularError: If the smallest sum is of the size of the rounding.
        """
        rounding = 10 * len(self.values) * torch.finfo(self.values.dtype).eps
        if not float(self.values.min() + self.shifts.min()) > rounding * float(self.values.max()):
            raise SingularError("keys")

    def condition(self) -> float:
        """The largest condition number of all systems, in the 2-norm."""
        lowest = self.values.min() + self.shifts.min()
        return float((self.values.max() + self.shifts.min()) / lowest)


@dataclass(frozen=True)
class OutputMEMIT(MEMIT):
    """MEMIT whose lambda is another for each output direction: a closed form with the statistics of CrispEdit.

        min |Delta K - R|^2 + tr(B Delta C' Delta^T),      B = U diag(b) U^T = E[g g^T]

    g is the gradient of the loss on ordinary text with respect to what W gives. The rows of U^T Delta do not depend on
    each other,

        (U^T Delta)_i = (U^T R)_i (K^T M K + b_i I)^-1 K^T M

    so one eigendecomposition of the n x n Gram matrix, or of L^-1 K K^T L^-T with L L^T = C' for more edits than d_in,
    serves all of them. B is scaled to a mean eigenvalue of 1: with B = I this is `MEMIT`, so w and the ridge mean what
    they mean there.

    Prefer it where edits spoil ordinary text: a residual along directions that the loss hardly feels is written almost
    exactly, one along sensitive directions is written less. Preconditions: those of `MEMIT`; ordinary text, and a model
    through which gradients flow. Instead: `MEMIT`, which takes no backward pass over the text.
    """

    sensitivity: Annotated[float, Range(above=0, at_most=1)] = 1.0
    """How much lambda follows B: the directions' lambda is 1 - sensitivity + sensitivity b_i; near 0 this is MEMIT."""

    needs_output_moment: ClassVar[bool] = True
    one_writer: ClassVar[bool] = False

    def solve(self, state: Preservation, problem: EditProblem) -> Solution:
        """The update with a lambda for each direction, by the smaller of its two forms; see `Solver.solve`.

        Raises:
            SingularError: See `Solver.solve`; also if keys depend on each other and a direction has no weight.
            ValueError: If the problem has no output moment, or a pull, whose weight in each direction is not defined.
        """
        if problem.output_moment is None:
            raise ValueError("OutputMEMIT needs `EditProblem.output_moment`, B = E[g g^T] of the layer's output.")
        if problem.pull is not None:
            raise ValueError("OutputMEMIT takes no pull: its weight in each output direction is not defined.")
        directions = problem.output_moment
        shifts = 1 - self.sensitivity + self.sensitivity * directions.weights
        form = self._dual if self.is_dual(state, problem) else self._primal
        return form(state, problem, directions.vectors, shifts)

    def _dual(self, state: Preservation, problem: EditProblem, vectors: Tensor, shifts: Tensor) -> Solution:
        keys = state.inside(problem.keys)
        weighted = state.weighted(keys)
        values, basis = torch.linalg.eigh(dual_system(keys, weighted, 0.0))
        system = ShiftedSpectrum(values.clamp(min=0), shifts)
        system.check()
        rows = _divided(vectors.T @ problem.residual @ basis, system)
        update = Factors(vectors @ rows @ basis.T, state.outside(weighted.T.contiguous()))
        share = SHARE_OF_EXPERTS if problem.second_moment.dim() == 3 else SHARE
        few = problem.keys.shape[1] <= share * len(problem.keys)
        return Solution(update, system, state, weighted if few else None)

    def _primal(self, state: Preservation, problem: EditProblem, vectors: Tensor, shifts: Tensor) -> Solution:
        keys = state.inside(problem.keys)
        factor = Cholesky.of(state.matrix(), "preservation").factor
        half = torch.linalg.solve_triangular(factor, keys, upper=False)
        values, basis = torch.linalg.eigh(half @ half.T)
        system = ShiftedSpectrum(values.clamp(min=0), shifts)
        system.check()
        # The basis in which both K K^T and C' are diagonal.
        both = torch.linalg.solve_triangular(factor.mT, basis, upper=True)
        rows = _divided(vectors.T @ (problem.residual @ keys.T) @ both, system)
        return Solution(Factors(state.outside(vectors @ rows @ both.T)), system, state)


def _divided(rows: Tensor, system: ShiftedSpectrum) -> Tensor:
    """Row i ``(d_out, m)`` in the basis of the eigenvectors, divided by the system of direction i."""
    return rows / (system.shifts[:, None] + system.values)
