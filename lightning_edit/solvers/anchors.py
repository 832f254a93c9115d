"""Anchors: what holds the updates of a long sequence to the unedited model and to what earlier updates wrote.

An anchor remembers something of each layer from update to update and changes the least squares of the next one with it:
by a pull G on the right-hand side, by the space that is free, or by what becomes of the solution. What it remembers are
plain tensors, which belong to the run as C_p does. D is the sum of a layer's updates so far, W - W0.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.settings import Checked, Positive
from lightning_edit.solvers.base import EditProblem, Factors, Solution, Solver
from lightning_edit.solvers.blocks import weighted_rows
from lightning_edit.solvers.cholesky import Cholesky
from lightning_edit.solvers.layer_solver import LayerSolver
from lightning_edit.solvers.previous_keys import PreviousKeys

Memory = Mapping[str, Tensor]


@dataclass(frozen=True)
class Standing:
    """Where one layer stands before an update.

    Args:
        added: D ``(d_out, d_in)`` in float64; None where nothing is edited yet.
        previous: The keys of earlier edits; None where they are not preserved.
        memory: What the anchor remembers of the layer, empty at first.
    """

    added: Tensor | None = None
    previous: PreviousKeys | None = None
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True)
class AnchoredSolution:
    """A solution under an anchor.

    Args:
        solution: The update and its system.
        previous: See `LayerSolver.solve`.
        memory: What the anchor will remember if the update is written.
    """

    solution: Solution
    previous: PreviousKeys | None
    memory: Memory


class Anchor(Checked, ABC):
    """What holds the updates of a run to what came before them.

    Attributes:
        keeps_keys: Whether C_p belongs to the method; if not, there must be none.
        writes_dense: Whether its updates are matrices as a whole, and not products of few columns.
        from_unedited: Whether each update is solved on the unedited weights, whatever was written before.
        remembers: The names in its memory.
    """

    keeps_keys: ClassVar[bool] = False
    writes_dense: ClassVar[bool] = True
    from_unedited: ClassVar[bool] = False
    remembers: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def check(self, solver: Solver) -> None:
        """Refuses a solver with which the anchor means nothing.

        Args:
            solver: That of the run.

        Raises:
            EditError: Says which would do.
        """

    @abstractmethod
    def numbers(self, weight: tuple[int, int], keys: int, of_all: int, tokens: int) -> tuple[int, int]:
        """How many numbers are remembered of a layer, and how many more there are while it is solved and written.

        Args:
            weight: ``(d_out, d_in)``.
            keys: How many an update writes.
            of_all: How many all updates write.
            tokens: Of the texts of an update.
        """

    def solve(self, layer_solver: LayerSolver, problem: EditProblem, standing: Standing) -> AnchoredSolution:
        """The update of one layer.

        Args:
            layer_solver: That of the layer.
            problem: The least squares of its edits.
            standing: Where the layer stands.

        Raises:
            SingularError: See `Solver.solve`.
        """
        solution, previous = layer_solver.solve(problem, standing.previous)
        return AnchoredSolution(solution, previous, standing.memory)

    def written(
        self, memory: Memory, problem: EditProblem, update: Factors, standing: Standing
    ) -> tuple[Memory, dict[str, float]]:
        """What is remembered once an update is written, and figures of it.

        Args:
            memory: That of the `AnchoredSolution`.
            problem: The least squares that was solved.
            update: What is added to the weight, after all processing.
            standing: Where the layer stood before it.
        """
        return memory, {}


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


@dataclass(frozen=True)
class SimIE(Anchor):
    """SimIE (Towards Lifelong Model Editing via Simulating Ideal Editor, 2025): each update as if it were the first.

        W_t = W_{t-1} + (B_t - W_{t-1}) T T^T P_t^-1,      P_t = lambda I + sum of T T^T so far, this update's included

    B_t = W0 + Delta_t is what the solver makes of the unedited weights with the update's edits alone, and T are the
    keys of all tokens of their prompts and answers on the unedited model. It is the recursive least squares of all B_t
    on all tokens, so what an update gave its own texts is kept. As all values are found on the unedited model
    (`values.on: unedited`), those of a whole stream can be found at once.

    Preconditions: values on the unedited model; a solver that works by itself for one update. Instead: `MEMIT` with
    earlier keys, which takes no second moment of all tokens.
    """

    ridge: Positive = 1e4
    """lambda, in units of squared keys: what a change costs in every direction (1e4 as published)."""

    from_unedited: ClassVar[bool] = True
    remembers: ClassVar[frozenset[str]] = frozenset({"tokens"})

    def check(self, solver: Solver) -> None:
        """Any solver will do."""

    def numbers(self, weight: tuple[int, int], keys: int, of_all: int, tokens: int) -> tuple[int, int]:
        """T T^T of all texts; T, that of an update, the system and its factor, and three matrices like W."""
        d_out, d_in = weight
        return d_in**2, d_in * tokens + 3 * d_in**2 + 3 * d_out * d_in

    def blended(self, update: Tensor, tokens: Tensor, standing: Standing) -> tuple[Tensor, Memory]:
        """What is added to the weight for an update that was solved on the unedited one.

        Args:
            update: Delta_t ``(d_out, d_in)``.
            tokens: T ``(d_in, tokens)``.
            standing: Where the layer stands.

        Returns:
            ``(d_out, d_in)``, and what is remembered then.
        """
        own = tokens @ tokens.T
        every = own if not standing.memory else own + standing.memory["tokens"].to(own.device)
        system = every.clone()
        system.diagonal().add_(self.ridge)
        wanted = update if standing.added is None else update - standing.added
        return Cholesky.of(system, "keys").solve((wanted @ own).T).T.contiguous(), {"tokens": every}
