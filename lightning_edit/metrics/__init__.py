"""Metrics of edited models: pure functions, torchmetrics classes over them, and the pass that feeds them."""

from lightning_edit.metrics.edit_metrics import EditMetrics
from lightning_edit.metrics.evaluation import evaluate
from lightning_edit.metrics.preference import Preference
from lightning_edit.metrics.teacher_forcing import TargetScores, score_targets

__all__ = ["EditMetrics", "Preference", "TargetScores", "evaluate", "score_targets"]
