"""The matrix of solver tests: solvers with their tags, ways in which earlier edits are preserved, numbers of edits.

A new solver is one row of `SOLVERS`; its tags say which of the family's properties it has.
"""

import math
from dataclasses import replace

import pytest
import torch

from lightning_edit.solvers import EMMET, MEMIT, ROME, RROME, AlphaEdit, EditProblem, LayerSolver, PreviousKeys

# Takes one edit an update.
SINGLE = "single"
# Writes every edit exactly, so takes independent keys only.
EXACT = "exact"
# Preserves by the whole second moment, C' = w C + l2 I (+ C_p), and needs it invertible; the others write into a null
# space, where its size does not count.
MOMENT = "moment"
# Has a ridge, or a space of its own, and so takes a second moment that cannot be inverted.
SINGULAR = "singular"

SOLVERS = {
    "rome": (ROME(), {SINGLE, MOMENT}),
    "rome-ridge": (ROME(0.1), {SINGLE, MOMENT, SINGULAR}),
    "rrome": (RROME(), {SINGLE, EXACT, MOMENT}),
    "rrome-ridge": (RROME(0.1), {SINGLE, EXACT, MOMENT, SINGULAR}),
    "emmet-exact": (EMMET(5.0, emmet_lambda=0.0), {EXACT, MOMENT}),
    "emmet": (EMMET(2.0, 0.1, 0.5), {MOMENT, SINGULAR}),
    "memit": (MEMIT(5.0), {MOMENT}),
    "memit-ridge": (MEMIT(2.0, 0.1), {MOMENT, SINGULAR}),
    "alphaedit": (AlphaEdit(0.2, 0.1), {SINGULAR}),
}
# How earlier edits are preserved.
PRESERVATION = ("alone", "moment", "recent", "both")


def solvers(*tags, without=()):
    """A parametrization over the solvers that have all of some tags and none of others."""
    rows = {name: solver for name, (solver, of) in SOLVERS.items() if of >= set(tags) and not of & set(without)}
    return pytest.mark.parametrize("solver", [pytest.param(solver, id=name) for name, solver in rows.items()])


def solvers_and_edits(d_in, *tags, without=(), sizes=("single", "few", "half", "square", "many")):
    """The same together with numbers of edits, from one to more than d_in, as far as a solver takes them."""
    numbers = {"single": 1, "few": 3, "half": d_in // 2, "square": d_in, "many": 2 * d_in + 1}
    cases = []
    for name, (solver, of) in SOLVERS.items():
        if of >= set(tags) and not of & set(without):
            last = 1 if SINGLE in of else d_in // 2 if EXACT in of else math.inf
            taken = [size for size in sizes if numbers[size] <= last] or ["single"]
            cases += [pytest.param(solver, numbers[size], id=f"{name}-{size}") for size in taken]
    return pytest.mark.parametrize(("solver", "n"), cases)


preservation = pytest.mark.parametrize("kind", PRESERVATION)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moment_of(d_in, seed=0):
    """The second moment of keys whose coordinates differ in size, up to tenfold."""
    ordinary = random(d_in, 4 * d_in, seed=seed) * torch.logspace(-1, 0, d_in, dtype=torch.float64)[:, None]
    return ordinary @ ordinary.T / (4 * d_in)


def make_problem(n, d_in=8, d_out=5, seed=0, **changes):
    keys = changes.pop("keys", random(d_in, n, seed=seed + 2))
    fields = {
        "residual": random(d_out, n, seed=seed + 3),
        "second_moment": moment_of(d_in, seed + 1),
        "bare_keys": keys + 0.1 * random(d_in, n, seed=seed + 4),
    }
    return EditProblem(keys, **(fields | changes))


def singular_moment(d_in, rank, seed):
    """A moment of the given rank whose other directions are as well conditioned as random keys can be."""
    basis = torch.linalg.qr(torch.cat([torch.ones(d_in, 1), random(d_in, d_in - 1, seed=7)], dim=1)).Q
    ordinary = basis[:, d_in - rank :] @ random(rank, 40, seed=seed)
    return ordinary @ ordinary.T / 40


def previous_keys(kind, d_in):
    """Six earlier keys, as a moment, as keys or as some of both; None for none."""
    first, second = random(d_in, 4, seed=91), random(d_in, 2, seed=92)
    return {
        "alone": None,
        "moment": PreviousKeys(first @ first.T + second @ second.T),
        "recent": PreviousKeys(None, (first, second)),
        "both": PreviousKeys(first @ first.T, (second,)),
    }[kind]


def solve(solver, problem, previous):
    """One update that preserves earlier edits too, as a run solves it."""
    return LayerSolver(solver, problem.second_moment).solve(problem, previous)[0]


def with_moment(problem, previous):
    """The same problem with the earlier edits in its own data."""
    return replace(problem, previous_keys_moment=None if previous is None else previous.dense())


def close(actual, expected):
    return torch.allclose(actual, expected, rtol=1e-9, atol=1e-11)
