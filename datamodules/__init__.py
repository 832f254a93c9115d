"""Data modules: one data set a file, each yielding validated edit requests."""

from datamodules.base import EditDataModule
from datamodules.counterfact import CounterFact
from datamodules.preservation import HubText, PreservationText, TextFile
from datamodules.tiny_world import TinyWorld, TinyWorldText

__all__ = [
    "CounterFact",
    "EditDataModule",
    "HubText",
    "PreservationText",
    "TextFile",
    "TinyWorld",
    "TinyWorldText",
]
