"""Callbacks: what a run shows and leaves behind; none of them changes what is edited."""

from callbacks.examples import ShowExamples
from callbacks.export import ExportEdits
from callbacks.progress import EditProgressBar
from callbacks.report import EditReport

__all__ = ["EditProgressBar", "EditReport", "ExportEdits", "ShowExamples"]
