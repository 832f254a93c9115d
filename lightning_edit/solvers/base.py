"""The preservation-memorization least squares: its data, its one formula and what a solver is.

One edited layer W (d_out x d_in) is to answer n keys K (d_in x n) with the residual R (d_out x n) added, and to answer
ordinary keys, whose second moment is C, as before. With the inverse preservation matrix M and lam >= 0 the update is

    Delta = R (K^T M K + lam I)^-1 K^T M,      M = C'^-1,      C' = w C + l2 I

(ROME, equation 2; MEMIT, equation 14; EMMET, section 4, arXiv 2403.14236). With earlier edits C_p is added to C'. The
update is linear in the residual: Delta = R S, where the writer S ``(n, d_in)`` depends on keys alone. With a pull G
towards something beside the edits, as of an `Anchor`, and lam > 0 it is

    Delta = (R K^T + G) (K K^T + lam C')^-1 = D + (R - D K) S,      D = G M / lam

which is what the pull does by itself, and the edits' update for what that leaves of their residual.

The work is split as a linear solver splits it. What depends on C and C_p is prepared once and serves many updates; keys
of one more update are added to it at the cost of their number:

    state = solver.factor(C, C_p)
    solution = solver.solve(state, problem)
    state = state.extended(problem.keys, solution.weighted)

An update of n edits takes, beside its data, room for d_in^2 + n d_in + n^2 numbers in the dual form (n <= d_in), the
factor of C' and the writer among them, and for d_in^2 + 2 d_out d_in in the primal one: at most 3 d_in^2.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor

from lightning_edit.settings import Checked
from lightning_edit.solvers.blocks import BlockBasis, LazyBlocks, weighted_rows, whole_moment
from lightning_edit.solvers.cholesky import Cholesky
from lightning_edit.solvers.preservation import LazyCholesky, Preservation, dual_system
from lightning_edit.solvers.previous_keys import SHARE, SHARE_OF_EXPERTS

if TYPE_CHECKING:
    from lightning_edit.solvers.output_memit import OutputDirections


@dataclass(frozen=True)
class EditProblem:
    """The least squares of one edited layer; all float64, on one device.

    Args:
        keys: K ``(d_in, n)``, one column for each edit, or for each of its tokens.
        residual: R ``(d_out, n)``, what W K must gain.
        second_moment: C ``(d_in, d_in)``, E[k k^T] over ordinary text; of E experts, whose keys and updates stand one
            below and beside the other, the blocks ``(E, d_in / E, d_in / E)`` of its diagonal.
        previous_keys_moment: C_p ``(d_in, d_in)``, sum of k k^T over earlier edits, which are preserved as well.
        bare_keys: ``(d_in, n)`` keys in the bare prompt, which the original ROME mixes with the mean keys.
        pull: G ``(d_out, d_in)``, what is added to the right-hand side R K^T; None for nothing.
        output_moment: The eigenvalues and eigenvectors of B ``(d_out, d_out)``, E[g g^T] over ordinary text.
        text_keys: K_p ``(d_in, m)``, other keys of the edits' own texts, which this update alone preserves as earlier
            edits are; None for none.
    """

    keys: Tensor
    residual: Tensor
    second_moment: Tensor
    previous_keys_moment: Tensor | None = None
    bare_keys: Tensor | None = None
    pull: Tensor | None = None
    output_moment: "OutputDirections | None" = None
    text_keys: Tensor | None = None

    def preservation_error(self, update: "Factors") -> float:
        """RMS over ordinary keys of ``|Delta k0|``: sqrt(trace(Delta C Delta^T)), in units of W's output."""
        left, moment = update.left, self.second_moment
        if update.right is not None and len(update.right) < len(left):
            moment = weighted_rows(update.right, moment) @ update.right.T
        else:
            left = update.dense()
        return float(weighted_rows(left, moment).mul_(left).sum().clamp(min=0).sqrt())

    def memorization_error(self, update: "Factors") -> float:
        """Frobenius norm ``|Delta K - R| / |R|``: the part of the residual that is not written."""
        return float((update.apply(self.keys) - self.residual).norm() / self.residual.norm())


@dataclass(frozen=True, repr=False)
class Factors:
    """An update Delta (d_out x d_in) as a product, or dense where that is smaller.

    Solvers give their normal form, ``left`` the residual R and ``right`` the writer S, while n <= d_in.

    Args:
        left: ``(d_out, r)``, or Delta itself.
        right: ``(r, d_in)``, or None if ``left`` is Delta.
    """

    left: Tensor
    right: Tensor | None = None

    def __repr__(self) -> str:
        """The shapes, without the numbers."""
        shapes = " x ".join(str(tuple(part.shape)) for part in (self.left, self.right) if part is not None)
        return f"Factors({shapes})"

    @property
    def shape(self) -> tuple[int, int]:
        """``(d_out, d_in)``."""
        return self.left.shape[0], (self.left if self.right is None else self.right).shape[1]

    def dense(self) -> Tensor:
        """Delta ``(d_out, d_in)``."""
        return self.left if self.right is None else self.left @ self.right

    def apply(self, keys: Tensor) -> Tensor:
        """Delta K ``(d_out, n)`` for keys ``(d_in, n)``."""
        return self.left @ (keys if self.right is None else self.right @ keys)


class System(Protocol):
    """What was solved for the edits of an update."""

    def condition(self) -> float:
        """The condition number, estimated."""


@dataclass(frozen=True)
class Solution:
    """An update and what was needed for it.

    Args:
        update: Delta.
        system: The system of the edits that was solved: K^T M K + lam I, or lam C' + K K^T where that is smaller.
        state: What the update preserves.
        weighted: M K ``(m, n)``, which `Preservation.extended` can use; None in the primal form and where
            n > `SHARE` d_in.
    """

    update: Factors
    system: System
    state: Preservation
    weighted: Tensor | None = None

    def condition_numbers(self) -> dict[str, float]:
        """How well the matrices of the update can be inverted, in the 1-norm; estimates, infinite where singular.

        After the primal form this factors C', which that form does not need.

        Returns:
            ``preservation``, of C' with C_p; ``keys``, of ``system``.
        """
        return {"preservation": self.state.condition, "keys": self.system.condition()}


class Solver(Checked, ABC):
    """Turns an `EditProblem` into an update; knows no model, device or logger.

    A new member of the family is a frozen dataclass with ``second_moment_weight``, ``ridge`` and `lam`. One that does
    not follow the one formula overrides `factor` (what is preserved) or `solve` (what is written) as well.

    Attributes:
        edits_per_update: Most edits that one call takes, None if there is no limit.
        preserves_edits: Whether the published method preserves earlier edits too (`EditProblem.previous_keys_moment`).
        needs_second_moment: Whether it looks at C at all; where it does not, C is not counted and its numbers are 0.
        needs_output_moment: Whether it needs B, the second moment of output gradients, which takes a backward pass.
        one_writer: Whether its updates are R S, or dense: all directions of the output are written with one S.
        solves: Whether it writes what the residual asks for and can preserve; if not, it adds up steps.
        second_moment_weight: w, the weight of preservation.
        ridge: l2, added to the diagonal of C'.
    """

    edits_per_update: ClassVar[int | None] = None
    preserves_edits: ClassVar[bool] = False
    needs_second_moment: ClassVar[bool] = True
    needs_output_moment: ClassVar[bool] = False
    one_writer: ClassVar[bool] = True
    solves: ClassVar[bool] = True
    second_moment_weight: float
    ridge: float

    def __call__(self, problem: EditProblem) -> Factors:
        """The update of one layer, solved from its data alone.

        Raises:
            SingularError: See `solve`.
            ValueError: See `solve`.
        """
        state = self.factor(problem.second_moment, problem.previous_keys_moment)
        return self.solve(state if problem.text_keys is None else state.extended(problem.text_keys), problem).update

    @abstractmethod
    def lam(self, edits: int) -> float:
        """The lambda with which so many edits are written; 0 writes them exactly.

        Args:
            edits: n, the edits of one update.
        """

    def matrix(self, second_moment: Tensor, previous_keys_moment: Tensor | None = None) -> Tensor:
        """C' = w C + l2 I (+ C_p), ``(d_in, d_in)`` in new memory.

        Args:
            second_moment: C ``(d_in, d_in)``, of one expert or as a whole.
            previous_keys_moment: C_p ``(d_in, d_in)``, or None; read from a file it may be on another device.
        """
        matrix = self.second_moment_weight * second_moment
        matrix.diagonal().add_(self.ridge)
        return matrix if previous_keys_moment is None else matrix.add_(previous_keys_moment.to(matrix.device))

    def check(self, second_moment: Tensor) -> None:
        """Refuses a second moment that no update can be solved with; cheaper than solving one.

        Args:
            second_moment: C ``(d_in, d_in)``, or its blocks, see `EditProblem`; finite.

        Raises:
            SingularError: If C' is singular.
            ValueError: If the solver cannot use it for another reason, which the message gives.
        """
        for block in second_moment.view(-1, *second_moment.shape[-2:]):
            Cholesky.of(self.matrix(block), "preservation")

    def factor(
        self,
        second_moment: Tensor,
        previous_keys_moment: Tensor | None = None,
        basis: Tensor | BlockBasis | None = None,
    ) -> Preservation:
        """What updates of a layer preserve; once made it serves all updates until C or C_p change.

        C' itself is factored when the first update asks for it, since updates of more than d_in edits never do.

        Args:
            second_moment: C ``(d_in, d_in)``, or its blocks, see `EditProblem`.
            previous_keys_moment: C_p ``(d_in, d_in)``, or None.
            basis: That of an earlier state for the same C, which is then not computed again.
        """
        if second_moment.dim() == 3 and previous_keys_moment is None:
            return Preservation(LazyBlocks(lambda block: self.matrix(second_moment[block]), len(second_moment)))
        return Preservation(LazyCholesky(lambda: self.matrix(whole_moment(second_moment), previous_keys_moment)))

    def solve(self, state: Preservation, problem: EditProblem) -> Solution:
        """The update of the whole family, by whichever of its two forms is smaller.

        Dual (n <= d_in, or lam = 0): R (K^T M K + lam I)^-1 K^T M, an n x n system, in the normal form R S. Primal:
        R K^T (lam C' + K K^T)^-1, equal to it by the push-through identity for lam > 0, and dense. With a pull G, which
        needs lam > 0, the update is dense in either form.

        Args:
            state: From `factor`, with whatever it was extended by; the problem's own moments are not looked at.
            problem: Keys and residual of the edits.

        Raises:
            SingularError: If C' is singular, or the keys depend on each other and lam is 0.
            CancelledError: See `Preservation.weighted`; only for a state that was extended.
            ValueError: If there are more edits than one update takes.
        """
        n = problem.keys.shape[1]
        if self.edits_per_update is not None and n > self.edits_per_update:
            raise ValueError(
                f"{type(self).__name__} takes updates of at most {self.edits_per_update} edit(s), got {n}. Write them "
                "one after the other, or use EMMET or MEMIT, which take any number."
            )
        keys, lam = state.inside(problem.keys), self.lam(n)
        if not self.is_dual(state, problem):
            return _solve_primal(state, problem, keys, lam)
        if problem.pull is not None:
            return _solve_pulled(self, state, problem, problem.pull)
        weighted = state.weighted(keys)
        system = Cholesky.of(dual_system(keys, weighted, lam), "keys")
        # Of a large update M K is not needed again, see `LayerSolver`, and the writer takes its place.
        experts = problem.second_moment.dim() == 3
        few = n <= (SHARE_OF_EXPERTS if experts else SHARE) * len(problem.keys)
        writer = system.divide(weighted.clone() if few else weighted).T
        update = Factors(problem.residual, state.outside(writer))
        return Solution(update, system, state, weighted if few else None)

    def is_dual(self, state: Preservation, problem: EditProblem) -> bool:
        """Whether `solve` takes the dual form.

        Args:
            state: From `factor`.
            problem: Keys and residual of the edits.
        """
        d_in, n = problem.keys.shape
        return state.dual_only or n <= (d_in if state.basis is None else state.basis.shape[1]) or not self.lam(n) > 0


def _solve_primal(state: Preservation, problem: EditProblem, keys: Tensor, lam: float) -> Solution:
    system = Cholesky.of(state.matrix().mul_(lam).addmm_(keys, keys.T), "preservation")
    if problem.keys.shape[1] > len(problem.keys) or problem.pull is not None:
        right = keys @ problem.residual.T
        delta = system.solve(right if problem.pull is None else right.add_(state.inside(problem.pull.T))).T
        return Solution(Factors(state.outside(delta)), system, state)
    return Solution(Factors(problem.residual, state.outside(system.solve(keys).T)), system, state)


def _solve_pulled(solver: Solver, state: Preservation, problem: EditProblem, pull: Tensor) -> Solution:
    """The dual form with a pull: what that does by itself, and the update for what it leaves of the residual."""
    alone = state.outside(state.weighted(state.inside(pull.T).contiguous()).T) / solver.lam(problem.keys.shape[1])
    rest = replace(problem, residual=problem.residual - alone @ problem.keys, pull=None)
    solution = solver.solve(state, rest)
    return replace(solution, update=Factors(solution.update.dense() + alone))
