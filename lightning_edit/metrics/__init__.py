"""Metrics of edited models: figures of a record as pure functions, one torchmetrics object over records, and its pass.

The functions are in `answers`, `generated_text` and `perplexity`.
"""

from lightning_edit.metrics.edit_metrics import FIGURES, EditMetrics, figures_of
from lightning_edit.metrics.evaluation import evaluate
from lightning_edit.metrics.settings import EvaluationSettings, check_evaluation, check_records
from lightning_edit.metrics.token_scores import TargetScores, score_targets

__all__ = [
    "FIGURES",
    "EditMetrics",
    "EvaluationSettings",
    "TargetScores",
    "check_evaluation",
    "check_records",
    "evaluate",
    "figures_of",
    "score_targets",
]
