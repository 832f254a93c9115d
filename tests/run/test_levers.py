"""Advice names settings that a method has."""

import re
from dataclasses import replace

import pytest

from lightning_edit import MEMIT, PRUNE, RECT, REVIVE, RROME, SPHERE, AlphaEdit, Gradient, LyapLock, Ridge, SimIE, Sum
from lightning_edit.collateral.advice import RunFigures, advice
from lightning_edit.collateral.levers import less_far, preserve_more, write_more
from lightning_edit.collateral.long_context import AFTER, BEFORE, RATIO
from lightning_edit.run.methods.fine_tuning import FineTuning
from tests.small_runs import VALUES, module

METHODS = {
    "MEMIT": {},
    "r-ROME": {"solver": RROME()},
    "AlphaEdit": {"solver": AlphaEdit()},
    "LyapLock": {"solver": MEMIT(100.0), "anchor": LyapLock(), "previous_keys": True, "edits_per_update": 2},
    "RECT": {"solver": RROME(), "post_processing": [RECT()]},
    "SimIE": {"solver": MEMIT(), "anchor": SimIE(), "values": replace(VALUES, weights="unedited")},
    "UltraEdit": {"solver": Ridge(), "source": Gradient()},
    "MEND": {"solver": Sum(), "source": Gradient()},
}
WRONG = {
    "failed": 25,
    "failed_loss": 0.02,
    "growth": {"3": 9.0},
    "after": {"generated_match": 1.0, "generated_paraphrase": 0.5},
    "collateral": {"general_worse": 0.5, BEFORE: 3.0, AFTER: 9.0, RATIO: 3.0},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_the_solver_that_is_named_is_there(name):
    made = module(**METHODS[name])
    lines = advice(RunFigures(edits=50, kind=made.kind, levers=made.levers, **WRONG))
    lines.append(less_far(made.kind, made.levers))
    assert len(lines) == 6
    named = {each for line in lines for each in re.findall(r"the solver's `(\w+)`", line)}
    assert named <= vars(made.solver).keys()
    assert named or not vars(made.solver)
    assert ("`anchor.ridge`" in " ".join(lines)) == (name == "SimIE")


def test_a_bound_that_is_set_is_named():
    assert FineTuning("tiny", norm_constraint=1e-3).levers == {"norm_constraint": 1e-3}
    assert FineTuning("tiny").levers == {}


@pytest.mark.parametrize(
    ("changes", "writes", "preserves"),
    [
        (METHODS["LyapLock"], "raise `anchor.bound`", "lower `anchor.bound`"),
        ({"post_processing": [RECT(keep=1e-9)]}, "raise RECT's `keep`", "lower RECT's `keep`"),
        ({"post_processing": [REVIVE()]}, "lower REVIVE's `energy`", "raise REVIVE's `energy`"),
        ({"post_processing": [SPHERE()]}, "lower SPHERE's `eta`", "raise SPHERE's `eta`"),
        ({"post_processing": [RECT(), SPHERE()]}, "lower SPHERE's `alpha`", "raise SPHERE's `alpha`"),
        ({"post_processing": [PRUNE()]}, "lower PRUNE's `alpha`", "raise PRUNE's `alpha`"),
    ],
)
def test_what_bounds_an_update_is_named_with_its_direction(changes, writes, preserves):
    levers = module(**changes).levers
    assert writes in write_more(levers) and preserves not in write_more(levers)
    assert preserves in preserve_more(levers) and writes not in preserve_more(levers)
    (failed,) = advice(RunFigures(edits=8, failed=8, failed_loss=0.02, levers=levers))
    assert writes in failed


def test_a_share_of_all_is_not_to_be_raised():
    assert "raise RECT's `keep`" not in write_more(module(post_processing=[RECT(keep=1.0)]).levers)
    assert "raise REVIVE's `energy`" not in preserve_more(module(post_processing=[REVIVE(energy=1.0)]).levers)


def test_what_is_done_at_the_end_does_not_help_while_a_run_goes_on():
    assert "PRUNE" not in less_far("searched", module(post_processing=[PRUNE()]).levers)
