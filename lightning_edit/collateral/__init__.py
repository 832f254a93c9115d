"""What else edits have changed: probes of many kinds, answered before and after, and how the answers are judged."""

from lightning_edit.collateral.asking import Asked, Asking
from lightning_edit.collateral.budget import Budget
from lightning_edit.collateral.judging import Verdict, judge
from lightning_edit.collateral.probe import KINDS, Probe
from lightning_edit.collateral.reference import Reference, make_reference
from lightning_edit.collateral.section import FIGURES, figures_of, kept_by_kind, lines_of, worst
from lightning_edit.collateral.sources import Sources

__all__ = [
    "FIGURES",
    "KINDS",
    "Asked",
    "Asking",
    "Budget",
    "Probe",
    "Reference",
    "Sources",
    "Verdict",
    "figures_of",
    "judge",
    "kept_by_kind",
    "lines_of",
    "make_reference",
    "worst",
]
