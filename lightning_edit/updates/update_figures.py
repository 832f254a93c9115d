"""Figures of one layer's update: its size, and how well it does what the least squares asked."""

import math

from lightning_edit.solvers import EditProblem, Factors
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.levels import on
from lightning_edit.updates.written import Written


def errors_of(
    problem: EditProblem, factors: Factors, label: str, of_text: bool, whole: Factors | None = None
) -> dict[str, float]:
    """How much an update disturbs ordinary keys, and how much of its residual it leaves; see `EditProblem`.

    Args:
        problem: The least squares of the layer.
        factors: The update.
        label: Of its layer, see `Decoder.label`.
        of_text: Whether the solver looks at C.
        whole: What holds the edits now, where that is more than the update.
    """
    return {
        **({f"{label}/preservation_error": problem.preservation_error(factors)} if of_text else {}),
        f"{label}/memorization_error": problem.memorization_error(factors if whole is None else whole),
    }


def norms_of(weights: EditedWeights, factors: Factors, edits: int, layer: int) -> dict[str, float]:
    """How large an update is, and the weight that it is in.

    Args:
        weights: The edited weights.
        factors: The update, which is in them.
        edits: How many edits it is of.
        layer: Its layer.
    """
    label = weights.decoder.label(layer)
    norm, base = float(factors.dense().norm()), float(weights.base[layer].double().norm())
    edited = float(weights.decoder.weight(layer).detach().double().norm())
    return {
        f"{label}/update_norm": norm,
        f"{label}/update_norm_per_edit": norm / math.sqrt(edits),
        f"{label}/relative_update_norm": norm / base,
        f"{label}/weight_norm": edited,
        f"{label}/weight_growth": edited / base,
    }


def measured_again(weights: EditedWeights, written: Written, of_text: bool, sums: bool = False) -> None:
    """Measures an update that has become another one since it was solved, and forgets its least squares.

    Args:
        weights: The edited weights, with it.
        written: What was written; its figures are changed.
        of_text: Whether the solver looks at C.
        sums: Whether the edits are held by the sum of all updates, and not by this one.
    """
    for layer, problem in written.problems.items():
        factors, label = written.factors[layer], weights.decoder.label(layer)
        whole = on(weights.added[layer], factors.left.device) if sums else None
        written.figures.update(norms_of(weights, factors, written.edits(layer), layer))
        written.figures.update(errors_of(problem, factors, label, of_text, whole))
    written.problems.clear()
