"""What the progress bar and the loggers get of the values of a run."""

from lightning_edit.progress import Report
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.values.vectors import Values


def logged(module: EditingRun, edits: int) -> Report:
    """Progress of the values over the whole run, whose losses also go to the loggers.

    Args:
        module: The editing module under way; it counts the passes.
        edits: How many edits are under way, of which this process may have a share.
    """
    show, done_before, of_all = module.report, module.loop.queue.offered, len(module.requests)

    def log_and_show(stage: str, done: float, total: float, **figures: float) -> None:
        if "loss" in figures:
            module.loop.passes += 1
            module.log_figures({f"values/{name}": value for name, value in figures.items()}, module.loop.passes)
        show(stage, done_before + edits * done / max(total, 1), of_all, **figures)

    return log_and_show


def log_values(module: EditingRun, values: Values) -> None:
    """Means of what was found for a part of the edits, their histograms where there is a page for them, and the losses.

    Args:
        module: The editing module under way.
        values: Those of the part.
    """
    module.loop.value_losses |= dict(enumerate(values.nll.tolist(), module.loop.queue.offered))
    step = module.loop.queue.offered + len(values)
    per_edit = {
        "nll": values.nll,
        "kl": values.kl,
        "weight_decay": values.decay,
        "steps": values.steps.float(),
        "z0_norm": values.z0.norm(dim=1),
        "delta_norm": (values.z - values.z0).norm(dim=1),
    }
    module.log_figures({f"value_search/{name}": float(value.nanmean()) for name, value in per_edit.items()}, step)
    if values.finite.any():
        finite = {f"value_search/{name}": value[values.finite] for name, value in per_edit.items()}
        # Distributions are drawn between two steps: those of the part's first and last edit.
        for place in sorted({module.loop.queue.offered + 1, step}):
            module.loggers_of_run.distributions(finite, place)
