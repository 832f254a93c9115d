"""Data modules: one data set a file, each yielding validated edit requests."""

from lightning_edit.datamodules.base import EditDataModule
from lightning_edit.datamodules.counterfact import CounterFact
from lightning_edit.datamodules.easyedit import EasyEditCounterFact
from lightning_edit.datamodules.own_edits import OwnEdits
from lightning_edit.datamodules.preservation import HubText, PreservationText, TextFile
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.tiny_world import TinyWorld, TinyWorldText
from lightning_edit.datamodules.unke import UnKE
from lightning_edit.datamodules.zsre import ZsRE

__all__ = [
    "CounterFact",
    "EasyEditCounterFact",
    "EditDataModule",
    "HubText",
    "OwnEdits",
    "PreservationText",
    "RecordDataModule",
    "TextFile",
    "TinyWorld",
    "TinyWorldText",
    "UnKE",
    "ZsRE",
]
