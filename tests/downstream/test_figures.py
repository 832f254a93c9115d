"""From answers to figures."""

import math

import pytest
import torch

from lightning_edit.downstream.figures import choice_figures, likeliest
from tests.downstream_reference import figures


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [2, 4])
def test_figures_agree_with_scikit_learn(classes, seed):
    generator = torch.Generator().manual_seed(seed)
    right = torch.randint(classes, (30,), generator=generator).tolist()
    given = torch.randint(classes + 1, (30,), generator=generator).tolist()
    chosen = [None if choice == classes else choice for choice in given]
    assert None in chosen
    assert choice_figures(chosen, right, classes) == pytest.approx(figures(given, right), abs=1e-6)


def test_one_answer_to_everything_is_no_correlation():
    assert choice_figures([1, 1, 1, 1], [1, 0, 1, 0], 2) == pytest.approx({"accuracy": 0.5, "f1": 1 / 3, "mcc": 0})
    assert choice_figures([1, 1], [1, 1], 2) == {"accuracy": 1, "f1": 1, "mcc": 0}


def test_the_first_of_equally_likely_answers_is_chosen():
    assert likeliest([-2.0, -1.0, -1.0]) == 1
    assert likeliest([-2.0, math.nan]) is None
