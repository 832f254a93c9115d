"""What a run shows in each of the trainer's loggers, in the best way that logger has."""

from lightning_edit.loggers.adapter import LoggerAdapter
from lightning_edit.loggers.content import RunContent, Table
from lightning_edit.loggers.given import LoggersOfRun

__all__ = ["LoggerAdapter", "LoggersOfRun", "RunContent", "Table"]
