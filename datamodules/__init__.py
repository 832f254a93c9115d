"""Data modules: one data set a file, each yielding validated edit requests."""

from lightning_edit.datamodules.base import EditDataModule
from lightning_edit.datamodules.own_edits import OwnEdits
from lightning_edit.datamodules.preservation import HubText, PreservationText, TextFile
from lightning_edit.datamodules.published.akew import AKEW
from lightning_edit.datamodules.published.counterfact import CounterFact
from lightning_edit.datamodules.published.easyedit import EasyEditCounterFact
from lightning_edit.datamodules.published.editeverything import EditEverything
from lightning_edit.datamodules.published.fever import FEVER
from lightning_edit.datamodules.published.halluedit import HalluEditBench
from lightning_edit.datamodules.published.knowedit import KnowEdit
from lightning_edit.datamodules.published.mquake import MQuAKE
from lightning_edit.datamodules.published.qaedit import QAEdit
from lightning_edit.datamodules.published.rippleedits import RippleEdits
from lightning_edit.datamodules.published.ultraeditbench import UltraEditBench
from lightning_edit.datamodules.published.unke import UnKE
from lightning_edit.datamodules.published.wikibigedit import WikiBigEdit
from lightning_edit.datamodules.published.zsre import ZsRE
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.tiny_world import TinyWorld, TinyWorldText

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
