"""The outcome of a tuning as a preset."""

from typing import Any

from lightning_edit.messages import counted
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.presets import render_preset
from lightning_edit.solvers import EMMET
from lightning_edit.tuning.bench import Trial
from lightning_edit.tuning.judge import Favor
from lightning_edit.tuning.tune import Plan


def settings_of(model: str, trial: Trial, plan: Plan, dtype: str, tokens: int | None = None) -> dict[str, Any]:
    """The settings of a trial, as `fit` reads them.

    Args:
        model: Folder or hub name of the model.
        trial: The trial.
        plan: What it was made with.
        dtype: Precision of the weights.
        tokens: How much text the second moments were counted from; None for what a run counts.
    """
    point, solver = trial.point, trial.point.solver
    weights: dict[str, Any] = {"second_moment_weight": solver.second_moment_weight, "ridge": solver.ridge}
    if isinstance(solver, EMMET):
        weights["emmet_lambda"] = solver.emmet_lambda
    return {
        "model": model,
        "layers": list(point.layers),
        "solver": {"class_path": type(solver).__name__, "init_args": weights},
        "values": {
            "lr": point.lr,
            "steps": plan.values.steps,
            "clamp_norm_factor": point.clamp,
            "site": plan.values.site,
        },
        **({} if tokens is None else {"second_moment": {"tokens": tokens}}),
        "chat": plan.chat,
        "dtype": dtype,
    }


def preset(
    decoder: Decoder, settings: dict[str, Any], trial: Trial, trials: int, favor: Favor, text: str | None = None
) -> str:
    """The text of a preset, which says how it was found.

    Args:
        decoder: The model.
        settings: See `settings_of`.
        trial: The trial that it was.
        trials: Among how many it was found.
        favor: What was favored.
        text: The file of the text that was preserved; None for the model's own.
    """
    source = (
        f"lightning-edit tune, {counted(trials, 'trial')} with up to {counted(trial.edits, 'edit')}, favoring {favor}"
    )
    about = f"With {counted(trial.edits, 'edit')} in one update, in shares of prompts: {figures(trial)}."
    preserved = {"class_path": "TextFile", "init_args": {"path": text}}
    data = None if text is None else {"preservation": preserved}
    return render_preset(decoder.model.config, settings, "tuned", source, about, data=data)


def figures(trial: Trial) -> str:
    """What a trial reached, in a line.

    Args:
        trial: The trial.
    """
    named = {
        "says the new answer": trial.score.efficacy,
        "in other words": trial.score.paraphrase,
        "other answers kept": trial.score.collateral,
    }
    return ", ".join(f"{name} {share:.1%}" for name, share in named.items() if share is not None)
