"""NAS, the norm anchor: edited outputs of the MLP have the norm that edits have on the unedited model."""

import logging
from dataclasses import replace

import torch
from torch import Tensor

from lightning_edit.messages import readable
from lightning_edit.values.vectors import Values

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


def with_norm(values: Values, outputs: Tensor, mu: float) -> Values:
    """Values whose v* = v0 + delta has the norm mu; one with |v*| > 2 mu is given up, and its delta is 0.

    Args:
        values: Those of n edits.
        outputs: v0 ``(n, d_model)`` in float64, what the MLP gives at their subjects.
        mu: See `mean_norm`.
    """
    wanted = outputs + (values.z - values.z0).to(outputs)
    norm = wanted.norm(dim=1, keepdim=True)
    too_large = norm > TOO_LARGE * mu
    if bool(too_large.any()):
        logger.warning(
            "%d of %d values are given up, because they are more than %g times as large as those of the unedited "
            "model (%s).",
            int(too_large.sum()),
            len(values),
            TOO_LARGE,
            readable(mu),
        )
    delta = torch.where(too_large, torch.zeros_like(wanted), wanted * (mu / norm) - outputs)
    delta[~values.finite.to(delta.device)] = 0.0
    return replace(values, z=values.z0 + delta.to(values.z0))
