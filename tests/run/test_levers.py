"""Advice names settings that a method has."""

import re
from dataclasses import replace

import pytest

from lightning_edit import MEMIT, RROME, AlphaEdit, Gradient, Ridge, SimIE, Sum
from lightning_edit.collateral.advice import RunFigures, advice
from lightning_edit.collateral.levers import less_far
from lightning_edit.collateral.long_context import AFTER, BEFORE, RATIO
from lightning_edit.run.methods.fine_tuning import FineTuning
from tests.small_runs import VALUES, module

METHODS = {
    "MEMIT": {},
    "r-ROME": {"solver": RROME()},
    "AlphaEdit": {"solver": AlphaEdit()},
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
