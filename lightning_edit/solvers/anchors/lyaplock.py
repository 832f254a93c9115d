"""LyapLock: preservation that weighs more as soon as its loss exceeds a bound."""

from dataclasses import dataclass, replace
from typing import ClassVar

from lightning_edit.errors import EditError
from lightning_edit.settings import Positive
from lightning_edit.solvers.anchors.base import Anchor, AnchoredSolution, Memory, Standing
from lightning_edit.solvers.base import EditProblem, Factors, Solver
from lightning_edit.solvers.blocks import weighted_rows
from lightning_edit.solvers.layer_solver import LayerSolver


@dataclass(frozen=True)
class LyapLock(Anchor):
    """LyapLock (arXiv 2505.15702): a queue weighs preservation more as soon as its loss exceeds a bound.

        Delta = (V R K^T + a Z w (W0 C - W C) + V (B_p - W C_p)) (V K K^T + a Z w C + V C_p)^-1

    The pull leads back to the unedited outputs of ordinary keys, and to what each earlier edit was written to be:
    B_p = sum (W k) k^T with the weight as it was after that edit's update. After an update the preservation loss is
    PL = tr((W - W0) C (W - W0)^T), for each layer by itself. D is a bound of `bound` times the loss of the first
    update, a = 1 / sqrt(D), and the queue is

        Z <- max(Z + a (PL - D), sqrt(D)),      a Z = 1 at first

    so that the first update is that of MEMIT, and w C counts more from when PL is above D. ``queue``,
    ``preservation_loss`` and ``preservation_bound`` of each layer are among the figures of an update.

    Preconditions: `MEMIT` with a weight of C, in updates of a sequence, with earlier keys. Instead: `MEMIT` with
    earlier keys alone where the sequence is short.
    """

    bound: Positive = 60.0
    """How many times the preservation loss of the first update is allowed (alpha; 60 for Llama-3 as published)."""

    memorization_weight: Positive = 1.0
    """V, the weight of the edits, old and new, beside a Z w (1 as published)."""

    keeps_keys: ClassVar[bool] = True
    remembers: ClassVar[frozenset[str]] = frozenset({"targets", "queue", "bound"})

    def check(self, solver: Solver) -> None:
        """Refuses all solvers but those that trade every edit against C.

        Raises:
            EditError: For lambda 0, a second moment that is not weighed, or a lambda for each output direction.
        """
        if solver.needs_output_moment:
            raise EditError(
                "`anchor: LyapLock` pulls all output directions back alike, and "
                f"{type(solver).__name__} gives each a lambda of its own. Set `solver` to MEMIT, or leave out "
                "the anchor and set `previous_keys: true`."
            )
        if not solver.lam(1) > 0 or not solver.second_moment_weight > 0:
            raise EditError(
                "`anchor: LyapLock` weighs C against the edits, so it needs a solver that does so: MEMIT with a "
                f"`second_moment_weight`, got {type(solver).__name__}."
            )

    def numbers(self, weight: tuple[int, int], keys: int, of_all: int, tokens: int) -> tuple[int, int]:
        """What earlier edits were written to be; D, the pull and their sums, and a C' of its own for each update."""
        d_out, d_in = weight
        return d_out * d_in, 5 * d_out * d_in + d_in**2

    def solve(self, layer_solver: LayerSolver, problem: EditProblem, standing: Standing) -> AnchoredSolution:
        """The update with C weighed as the queue says, and the pull."""
        solver, moment = layer_solver.solver, layer_solver.second_moment
        weight = solver.second_moment_weight * self._pressure(standing.memory)
        if weight != solver.second_moment_weight:
            layer_solver = LayerSolver(replace(solver, second_moment_weight=weight), moment)  # type: ignore[type-var]
        pull = None
        if standing.added is not None:
            pull = -weight * weighted_rows(standing.added, moment)
            if standing.previous is not None and standing.memory:
                pull += standing.memory["targets"].to(pull.device) - standing.previous.product(standing.added)
        solution, previous = layer_solver.solve(replace(problem, pull=pull), standing.previous)
        return AnchoredSolution(solution, previous, standing.memory)

    def _pressure(self, memory: Memory) -> float:
        """How much more C counts than at first: a Z / V."""
        if not memory or not float(memory["bound"]):
            return 1 / self.memorization_weight
        return float(memory["queue"]) / float(memory["bound"]) ** 0.5 / self.memorization_weight

    def written(
        self, memory: Memory, problem: EditProblem, update: Factors, standing: Standing
    ) -> tuple[Memory, dict[str, float]]:
        """B_p - W0 C_p, of which the part of W0 cancels wherever it is used, and the queue."""
        added = update.dense() if standing.added is None else standing.added + update.dense()
        loss = float(weighted_rows(added, problem.second_moment).mul_(added).sum().clamp(min=0))
        bound = float(memory["bound"]) if memory else 0.0
        bound = bound or self.bound * loss
        root = bound**0.5
        queue = float(memory["queue"]) if memory and float(memory["bound"]) else root
        if root:
            queue = max(queue + (loss - bound) / root, root)
        targets = (added @ problem.keys) @ problem.keys.T
        if memory:
            targets += memory["targets"].to(targets.device)
        numbers = {"queue": targets.new_tensor([[queue]]), "bound": targets.new_tensor([[bound]])}
        figures = {"queue": queue, "preservation_loss": loss, "preservation_bound": bound}
        return {"targets": targets, **numbers}, figures
