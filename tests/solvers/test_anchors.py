"""The pull on the right-hand side, and each anchor over several updates, against dense loops of a few lines."""

import pytest
import torch

from lightning_edit import EMMET, MEMIT, ROME, AlphaEdit, EditError
from lightning_edit.solvers import EvoEdit, Factors, LayerSolver, LyapLock, PreviousKeys, SimIE
from lightning_edit.solvers.anchors import Standing
from tests.solvers.cases import close, make_problem, moment_of, previous_keys, random, solve, with_moment

D_IN, D_OUT = 12, 5
EYE = torch.eye(D_IN, dtype=torch.float64)


def batches(edits=(2, 3, 14, 2), scale=1.0):
    """Keys and residuals of updates, one of which has more edits than d_in."""
    return [(random(D_IN, n, seed=10 + n + i), scale * random(D_OUT, n, seed=30 + n + i)) for i, n in enumerate(edits)]


@pytest.mark.parametrize("kind", ["alone", "moment", "recent", "both"])
@pytest.mark.parametrize("n", [2, 4, 12, 30])
@pytest.mark.parametrize("solver", [MEMIT(3.0, ridge=0.2), EMMET(3.0, ridge=0.2, emmet_lambda=0.4)], ids=repr)
def test_a_pull_is_added_to_the_right_hand_side(solver, n, kind):
    previous, pull = previous_keys(kind, D_IN), random(D_OUT, D_IN, seed=5)
    problem = with_moment(make_problem(n, D_IN, D_OUT, pull=pull), previous)
    lam, system = solver.lam(n), solver.matrix(problem.second_moment, problem.previous_keys_moment)
    right = problem.residual @ problem.keys.T + pull
    expected = right @ torch.linalg.inv(lam * system + problem.keys @ problem.keys.T)
    assert close(solver(problem).dense(), expected)
    assert close(solve(solver, problem, previous).update.dense(), expected)


def test_a_pull_of_zeros_changes_nothing():
    problem = make_problem(3, D_IN, D_OUT)
    pulled = make_problem(3, D_IN, D_OUT, pull=torch.zeros(D_OUT, D_IN, dtype=torch.float64))
    assert close(MEMIT(1.0)(pulled).dense(), MEMIT(1.0)(problem).dense())


def sequence(anchor, solver, moment, updates, previous=None):
    """The sum of all updates, solved one after the other, and the figures of each."""
    layer_solver, standing, figures = LayerSolver(solver, moment), Standing(None, previous), []
    for keys, residual in updates:
        problem = make_problem(keys.shape[1], D_IN, D_OUT, keys=keys, residual=residual, second_moment=moment)
        found = anchor.solve(layer_solver, problem, standing)
        memory, measured = anchor.written(found.memory, problem, found.solution.update, standing)
        delta = found.solution.update.dense()
        added = delta if standing.added is None else standing.added + delta
        kept = None if found.previous is None else found.previous.extended(keys)
        standing = Standing(added, kept, memory)
        figures.append(measured)
    return standing.added, figures


@pytest.mark.parametrize("v", [1.0, 2.5])
@pytest.mark.parametrize("alpha", [0.5, 60.0])
def test_lyaplock_is_its_published_loop(alpha, v):
    moment, w, base = moment_of(D_IN), 7.0, random(D_OUT, D_IN, seed=8)
    weight, kept, targets, queue, bound, a = base.clone(), 0 * EYE, torch.zeros(D_OUT, D_IN).double(), 0.0, None, 0.0
    queues, updates = [], batches()
    for keys, residual in updates:
        pressure = 1.0 if bound is None else a * queue
        left = pressure * w * (base @ moment - weight @ moment) + v * (targets - weight @ kept)
        system = v * keys @ keys.T + pressure * w * moment + v * kept
        weight = weight + (v * residual @ keys.T + left) @ torch.linalg.inv(system)
        kept, targets = kept + keys @ keys.T, targets + weight @ keys @ keys.T
        loss = torch.trace((weight - base) @ moment @ (weight - base).T).item()
        if bound is None:
            bound, queue = alpha * loss, (alpha * loss) ** 0.5
            a = 1 / bound**0.5
        queue = max(queue + a * (loss - bound), bound**0.5)
        queues.append(queue)
    added, figures = sequence(LyapLock(alpha, v), MEMIT(w), moment, updates, PreviousKeys())
    assert close(added, weight - base)
    assert [figure["queue"] for figure in figures] == pytest.approx(queues, rel=1e-9)
    assert (max(queues) > 1.5 * bound**0.5) == (alpha == 0.5)
    assert figures[0]["preservation_bound"] == pytest.approx(alpha * figures[0]["preservation_loss"])


def test_rlsedit_is_memit_with_earlier_keys():
    lam, mu, w, moment = 0.3, 2.0, 5.0, moment_of(D_IN)
    inverse, weight = torch.linalg.inv(lam**2 * EYE + mu**2 * w * moment), torch.zeros(D_OUT, D_IN).double()
    layer_solver, previous = LayerSolver(MEMIT(mu**2 * w, ridge=lam**2), moment), PreviousKeys()
    total = torch.zeros_like(weight)
    for keys, targets in batches():
        gain = torch.linalg.inv(torch.eye(keys.shape[1]).double() + keys.T @ inverse @ keys)
        inverse = inverse - inverse @ keys @ gain @ keys.T @ inverse
        problem = make_problem(
            keys.shape[1], D_IN, D_OUT, keys=keys, residual=targets - total @ keys, second_moment=moment
        )
        weight = weight + (targets - weight @ keys) @ keys.T @ inverse
        solution, previous = layer_solver.solve(problem, previous)
        total, previous = total + solution.update.dense(), previous.extended(keys)
    assert close(total, weight)


def test_evoedit_is_its_published_loop(caplog):
    spectrum = torch.cat([torch.full((4,), 1e-3), torch.full((8,), 1.0)]).double()
    basis = torch.linalg.qr(random(D_IN, D_IN, seed=3)).Q
    moment, l2 = basis * spectrum.flip(0) @ basis.T, 4.0
    free = basis[:, 8:] @ basis[:, 8:].T
    # The third finds what is left of the null space, and after it there is none.
    updates = [*batches((1, 2)), *batches((2,), scale=3.0), *batches((3,))]
    total = torch.zeros(D_OUT, D_IN).double()
    for keys, residual in updates:
        inside = free @ keys
        if inside.norm() < 1e-3 or residual.norm(dim=0).mean() < 1e-2:
            continue
        system = keys.T @ inside + l2 * torch.eye(keys.shape[1]).double()
        total = total + residual @ torch.linalg.inv(system) @ inside.T
        left, values, _ = torch.linalg.svd(inside, full_matrices=False)
        free = free - left[:, values > 1e-10] @ left[:, values > 1e-10].T
    added, _ = sequence(EvoEdit(), AlphaEdit(threshold=0.02, ridge=l2), moment, updates)
    assert close(added, total)
    assert float(free.norm()) < 1e-9
    assert caplog.text.count("passed over") == 1


def test_what_evoedit_wrote_is_kept_exactly():
    moment, updates = 1e-3 * EYE, batches((3, 4))
    first, _ = sequence(EvoEdit(), AlphaEdit(ridge=4.0), moment, updates[:1])
    both, _ = sequence(EvoEdit(), AlphaEdit(ridge=4.0), moment, updates)
    assert close((both - first) @ updates[0][0], torch.zeros(D_OUT, 3).double())
    assert float((both - first).norm()) > 0.1


def test_simie_is_its_published_loop():
    moment, lam, anchor = moment_of(D_IN), 2.0, SimIE(ridge=2.0)
    base, every = random(D_OUT, D_IN, seed=8), lam * EYE
    weight, standing = base.clone(), Standing()
    for number, (keys, residual) in enumerate(batches((2, 5, 14))):
        tokens = torch.cat([keys, random(D_IN, 7, seed=70 + number)], dim=1)
        problem = make_problem(keys.shape[1], D_IN, D_OUT, keys=keys, residual=residual, second_moment=moment)
        delta = MEMIT(3.0)(problem).dense()
        every = every + tokens @ tokens.T
        weight = weight + (base + delta - weight) @ tokens @ tokens.T @ torch.linalg.inv(every)
        change, memory = anchor.blended(delta, tokens, standing)
        added = change if standing.added is None else standing.added + change
        standing = Standing(added, None, memory)
    assert close(standing.added, weight - base)


@pytest.mark.parametrize(
    ("anchor", "solver", "told"),
    [
        (LyapLock(), AlphaEdit(), "needs a solver that does so: MEMIT"),
        (LyapLock(), EMMET(), "got EMMET"),
        (LyapLock(), ROME(), "got ROME"),
        (EvoEdit(), MEMIT(), "only `solver: AlphaEdit`"),
    ],
)
def test_solvers_with_which_an_anchor_means_nothing_are_refused(anchor, solver, told):
    with pytest.raises(EditError, match=told):
        anchor.check(solver)


def test_what_an_update_of_nothing_leaves_is_no_bound():
    anchor, problem = LyapLock(), make_problem(2, D_IN, D_OUT)
    nothing = Factors(torch.zeros(D_OUT, D_IN).double())
    memory, figures = anchor.written({}, problem, nothing, Standing())
    assert figures == {"queue": 0.0, "preservation_loss": 0.0, "preservation_bound": 0.0}
    _, later = anchor.written(memory, problem, Factors(random(D_OUT, D_IN)), Standing(memory=memory))
    assert later["preservation_bound"] == pytest.approx(60 * later["preservation_loss"])
