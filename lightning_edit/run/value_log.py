"""What the loggers are told of the optimization of values."""

from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from lightning_edit.progress import Report
from lightning_edit.values.search import Values


def logged(module: Any, edits: int) -> Report:
    """Progress of the values over the whole run, whose losses also go to the loggers.

    Args:
        module: The editing module under way; it counts the passes.
        edits: How many edits are under way, of which this process may have a share.
    """
    show, known, of_all = module.report, module.queue.offered, len(module.requests)

    def log_and_show(stage: str, done: float, total: float, **figures: float) -> None:
        if "loss" in figures:
            module.passes += 1
            module.log_figures({f"values/{name}": value for name, value in figures.items()}, module.passes)
        show(stage, known + edits * done / max(total, 1), of_all, **figures)

    return log_and_show


def log_values(module: Any, values: Values) -> None:
    """Means of what was found for a part of the edits, and their histograms where there is a page for them.

    Args:
        module: The editing module under way.
        values: Those of the part.
    """
    step = module.queue.offered + len(values)
    per_edit = {
        "nll": values.nll,
        "kl": values.kl,
        "weight_decay": values.decay,
        "steps": values.steps.float(),
        "z0_norm": values.z0.norm(dim=1),
        "delta_norm": (values.z - values.z0).norm(dim=1),
    }
    module.log_figures({f"value_search/{name}": float(value.nanmean()) for name, value in per_edit.items()}, step)
    for logger in module.loggers:
        if isinstance(logger, TensorBoardLogger) and values.finite.any():
            # TensorBoard draws distributions between two steps: those of the part's first and last edit.
            for name, value in per_edit.items():
                for place in sorted({module.queue.offered + 1, step}):
                    # Under a scalar's own name a histogram would make TensorBoard drop the scalar.
                    logger.experiment.add_histogram(f"value_search_each/{name}", value[values.finite], place)
