"""Data modules: one data set a file, each yielding validated edit requests."""

from lightning_edit.datamodules.akew import AKEW
from lightning_edit.datamodules.base import EditDataModule
from lightning_edit.datamodules.counterfact import CounterFact
from lightning_edit.datamodules.easyedit import EasyEditCounterFact
from lightning_edit.datamodules.editeverything import EditEverything
from lightning_edit.datamodules.fever import FEVER
from lightning_edit.datamodules.halluedit import HalluEditBench
from lightning_edit.datamodules.knowedit import KnowEdit
from lightning_edit.datamodules.mquake import MQuAKE
from lightning_edit.datamodules.own_edits import OwnEdits
from lightning_edit.datamodules.preservation import HubText, PreservationText, TextFile
from lightning_edit.datamodules.qaedit import QAEdit
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.rippleedits import RippleEdits
from lightning_edit.datamodules.tiny_world import TinyWorld, TinyWorldText
from lightning_edit.datamodules.ultraeditbench import UltraEditBench
from lightning_edit.datamodules.unke import UnKE
from lightning_edit.datamodules.wikibigedit import WikiBigEdit
from lightning_edit.datamodules.zsre import ZsRE

__all__ = [
    "AKEW",
    "FEVER",
    "CounterFact",
    "EasyEditCounterFact",
    "EditDataModule",
    "EditEverything",
    "HalluEditBench",
    "HubText",
    "KnowEdit",
    "MQuAKE",
    "OwnEdits",
    "PreservationText",
    "QAEdit",
    "RecordDataModule",
    "RippleEdits",
    "TextFile",
    "TinyWorld",
    "TinyWorldText",
    "UltraEditBench",
    "UnKE",
    "WikiBigEdit",
    "ZsRE",
]
