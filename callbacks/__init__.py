"""Callbacks: what a run shows and leaves behind; none of them changes what is edited."""

from lightning_edit.callbacks.checkpoint import EditCheckpoint
from lightning_edit.callbacks.export import ExportEdits
from lightning_edit.callbacks.log_results import LogResults
from lightning_edit.callbacks.measuring.collateral import Collateral
from lightning_edit.callbacks.measuring.downstream import Downstream
from lightning_edit.callbacks.measuring.examples import ShowExamples
from lightning_edit.callbacks.measuring.harness import Harness
from lightning_edit.callbacks.measuring.retention import Retention
from lightning_edit.callbacks.measuring.scheduled import Scheduled
from lightning_edit.callbacks.measuring.watch import Watch
from lightning_edit.callbacks.progress import EditProgressBar
from lightning_edit.callbacks.records import RecordResults
from lightning_edit.callbacks.report import EditReport

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
