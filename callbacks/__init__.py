"""Callbacks: what a run shows and leaves behind; none of them changes what is edited."""

from lightning_edit.callbacks.checkpoint import EditCheckpoint
from lightning_edit.callbacks.collateral import Collateral
from lightning_edit.callbacks.downstream import Downstream
from lightning_edit.callbacks.examples import ShowExamples
from lightning_edit.callbacks.export import ExportEdits
from lightning_edit.callbacks.harness import Harness
from lightning_edit.callbacks.log_results import LogResults
from lightning_edit.callbacks.progress import EditProgressBar
from lightning_edit.callbacks.records import RecordResults
from lightning_edit.callbacks.report import EditReport
from lightning_edit.callbacks.retention import Retention
from lightning_edit.callbacks.scheduled import Scheduled
from lightning_edit.callbacks.watch import Watch

__all__ = [
    "Collateral",
    "Downstream",
    "EditCheckpoint",
    "EditProgressBar",
    "EditReport",
    "ExportEdits",
    "Harness",
    "LogResults",
    "RecordResults",
    "Retention",
    "Scheduled",
    "ShowExamples",
    "Watch",
]
