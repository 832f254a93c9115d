"""Advice from the figures of a run."""

import doctest

import pytest

from lightning_edit.collateral import advice as room
from lightning_edit.collateral.advice import RunFigures, advice
from lightning_edit.collateral.long_context import AFTER, BEFORE, RATIO

MEMIT = {"solver.second_moment_weight": 10.0, "solver.ridge": 0.0, "second_moment": 1.0}


def behind(before, after):
    return {BEFORE: before, AFTER: after, RATIO: after / before}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"failed": 1}, []),
        (
            {"failed": 17, "failed_loss": 0.35},
            ["17 of 50 edits failed with a mean value loss of 0.35: raise `values"],
        ),
        ({"failed": 17, "failed_loss": 0.02}, ["17 of 50 edits failed although their values were found (a mean value"]),
        ({"failed": 17, "failed_loss": float("nan")}, ["17 of 50 edits failed with a mean value loss of nan"]),
        ({"failed": 17}, ["17 of 50 edits failed: raise `values.clamp_norm_factor`"]),
        ({"failed": 17, "kind": "trained"}, ["17 of 50 edits failed: raise `trainer.max_epochs`"]),
        ({"failed": 17, "kind": "constrained"}, ["17 of 50 edits failed: raise `model.epochs`"]),
        (
            {"failed": 17, "kind": "trained", "levers": {"norm_constraint": 1e-3}},
            ["17 of 50 edits failed: raise `model.norm_constraint`, or raise `trainer.max_epochs`"],
        ),
        (
            {"failed": 17, "failed_loss": 0.02, "levers": {"solver.threshold": 0.02, "solver.ridge": 10.0}},
            ["17 of 50 edits failed although their values were found (a mean value loss of 0.02): raise"],
        ),
        (
            {"failed": 17, "failed_loss": 0.02, "levers": MEMIT | {"anchor.ridge": 1e4}},
            ["17 of 50 edits failed although their values were found (a mean value loss of 0.02): lower `anchor"],
        ),
        (
            {"failed": 17, "kind": "differentiated", "levers": {}},
            ["17 of 50 edits failed: raise `source.eta`, or edit more layers or `source.maps`."],
        ),
        (
            {"after": {"generated_match": 0.96, "generated_paraphrase": 0.5}, "kind": "remembered"},
            ["The new answer is given to 96 % of the edited prompts, but only to 50 % of other wordings: raise `m"],
        ),
        (
            {"collateral": {"general_worse": 0.3}, "kind": "told"},
            ["30 % of the general answers changed for the worse: with `model.facts: tfidf` or `states`, raise"],
        ),
        (
            {"growth": {3: 1.9, 4: 3.91, 5: 2.1}},
            ["The weight of layer 4 grew 3.9 times: raise the solver's `second"],
        ),
        ({"collateral": {"old_object_lost": 1 / 3, "old_object_lost_n": 3.0}}, []),
        ({"growth": {3: float("nan")}}, ["The weight of layer 3 grew nan times"]),
        ({"collateral": behind(4.0, 5.9), "single_texts": True}, []),
        (
            {"collateral": behind(3.7, 141.6), "single_texts": True},
            ["The perplexity behind long contexts rose from 3.7 to 142: try `model.second_moment.join_texts: true`"],
        ),
        (
            {"collateral": behind(4.0, 8.0)},
            ["The perplexity behind long contexts rose from 4 to 8: raise the solver's `second_moment_weight`"],
        ),
        (
            {"collateral": behind(4.0, float("nan")), "kind": "trained"},
            ["The perplexity behind long contexts rose from 4 to nan: train for fewer epochs"],
        ),
        (
            {"after": {"generated_match": 0.96, "generated_paraphrase": 0.5}},
            ["The new answer is given to 96 % of the edited prompts, but only to 50 % of other wordings"],
        ),
        (
            {"collateral": {"general_worse": 0.07, "old_object_lost": 0.09}, "before": {"neighborhood_score": 1.0}},
            ["7 % of the general answers changed for the worse: raise the solver's `second_moment_weight`"],
        ),
        (
            {
                "collateral": {"old_object_lost": 0.5, "old_object_lost_n": 12.0},
                "before": {"neighborhood_score": 0.98},
                "after": {"neighborhood_score": 0.8},
                "kind": "trained",
            },
            ["6 of 12 questions whose answer was an old object lost it; neighborhood fell from 98 to 80 %: train for"],
        ),
    ],
)
def test_advice_says_what_is_wrong_and_what_to_change(changes, expected):
    levers = {} if "kind" in changes else MEMIT
    lines = advice(RunFigures(**{"edits": 50, "levers": levers, **changes}))
    assert len(lines) == len(expected)
    assert all(line.startswith(start) and line.endswith(".") for line, start in zip(lines, expected, strict=True))


def test_the_example_of_advice_runs():
    assert doctest.testmod(room).failed == 0
