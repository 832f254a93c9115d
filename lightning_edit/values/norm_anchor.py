"""NAS, the norm anchor: edited outputs of the MLP have the norm that edits have on the unedited model."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_edit.requests import EditRequest
from lightning_edit.values.vectors import GIVEN_UP, Values

logger = logging.getLogger(__name__)

# Norms above this quantile do not count for the mean, and values of so many times the mean are given up.
QUANTILE, TOO_LARGE = 0.95, 2.0


def mean_norm(values: Values, outputs: Tensor) -> float:
    """mu: the mean of |v*|, v* = v0 + delta, over values found on the unedited model; the largest 5 % do not count.

    Args:
        values: Those of n edits.
        outputs: v0 ``(n, d_model)`` in float64, what the MLP gives at their subjects.
    """
    norms = (outputs + (values.z - values.z0).to(outputs)).norm(dim=1)[values.finite.to(outputs.device)]
    return float(norms[norms <= norms.quantile(QUANTILE)].mean())


def with_norm(values: Values, outputs: Tensor, mu: float, requests: Sequence[EditRequest]) -> Values:
    """Values whose v* = v0 + delta has the norm mu; one with |v*| > 2 mu is given up: its delta is 0, it is left out.

    Args:
        values: Those of n edits.
        outputs: v0 ``(n, d_model)`` in float64, what the MLP gives at their subjects.
        mu: See `mean_norm`.
        requests: The edits.
    """
    wanted, finite = outputs + (values.z - values.z0).to(outputs), values.finite.to(outputs.device)
    norm = wanted.norm(dim=1, keepdim=True)
    kept = finite & (norm[:, 0] <= TOO_LARGE * mu)
    for edit in (finite & ~kept).nonzero()[:, 0].tolist():
        logger.warning(
            "%s: %s (%.3g times); this edit is left out.", requests[edit].name, GIVEN_UP, float(norm[edit]) / mu
        )
    delta = torch.where(kept[:, None], wanted * (mu / norm) - outputs, torch.zeros_like(wanted))
    return replace(values, z=values.z0 + delta.to(values.z0), finite=kept.to(values.finite.device))
