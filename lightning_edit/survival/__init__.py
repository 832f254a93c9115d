"""Whether edits are still there after what happens to a deployed model: quantization, fine-tuning, merging."""

from lightning_edit.survival.bench import Bench
from lightning_edit.survival.measuring import Measures
from lightning_edit.survival.results import Result, SurvivalFile
from lightning_edit.survival.settings import SurvivalSettings
from lightning_edit.survival.survive import survive
from lightning_edit.survival.text import OrdinaryText, ordinary_text
from lightning_edit.survival.variants import Variant, variants_of

__all__ = [
    "Bench",
    "Measures",
    "OrdinaryText",
    "Result",
    "SurvivalFile",
    "SurvivalSettings",
    "Variant",
    "ordinary_text",
    "survive",
    "variants_of",
]
