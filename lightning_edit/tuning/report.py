"""The best trials of a tuning, as a table."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from lightning_edit.solvers import EMMET
from lightning_edit.tuning.bench import Trial
from lightning_edit.tuning.judge import Favor
from lightning_edit.tuning.points import Point

SHOWN = 8


def solver_words(point: Point) -> str:
    """The solver of a point with its weight.

    Args:
        point: The point.
    """
    solver = point.solver
    return f"{'EMMET' if isinstance(solver, EMMET) else 'MEMIT'} {solver.second_moment_weight:,.10g}"


def table_of(trials: Sequence[Trial], favor: Favor, layer_words: dict[tuple[int, ...], str]) -> Table:
    """The best trials with most edits, the best first.

    Args:
        trials: All of them.
        favor: What is good.
        layer_words: How layers are shown.
    """
    most = max(trial.edits for trial in trials)
    best = sorted((t for t in trials if t.edits == most), key=lambda trial: trial.rank(favor), reverse=True)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("layers", "solver, w", "lr", "clamp", "new\nanswer", "para-\nphrase", "kept", "mean", "|W|/|W0|"):
        drawn.add_column(heading, justify="left" if heading.startswith(("layers", "solver")) else "right")
    for trial in best[:SHOWN]:
        score, point = trial.score, trial.point
        shares = [_percent(share) for share in (score.efficacy, score.paraphrase, score.collateral, score.mean(favor))]
        settings = [layer_words[point.layers], solver_words(point), f"{point.lr:g}", f"{point.clamp:g}"]
        drawn.add_row(*settings, *shares, "failed" if trial.failed else f"{trial.growth:.2f}")
    return drawn


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
