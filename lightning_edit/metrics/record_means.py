"""What all metrics share: means over records, how sure they are, and over how many records they were taken."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def mean_and_error(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard error of independent values, from their sums.

    The standard error is ``sqrt(sum (x - mean)^2 / (n - 1) / n)``. A spread within the rounding of the sums is none.

    Args:
        sums: ``(..., 3)`` in float64: number of values, their sum, the sum of their squares.

    Returns:
        Both ``(...)``; the mean is NaN where there is no value, the standard error where there is less than two.
    """
    count, total, squares = sums.unbind(-1)
    mean = total / count
    spread = squares - total * mean
    rounding = 4 * count * torch.finfo(sums.dtype).eps * squares
    spread = torch.where(spread <= rounding, torch.zeros_like(spread), spread)
    error = (spread / (count - 1) / count).sqrt()
    return mean, torch.where(count > 1, error, torch.full_like(error, torch.nan))


class RecordMeans(Metric):
    """Base of the metrics: each record brings one value for a figure, or none.

    ``compute`` gives for each figure that any record has its mean under its name, the number of those records under
    ``<name>_n`` and, from two records on, the standard error of the mean under ``<name>_stderr``. States are sums in
    float64, so processes that each saw some of the records agree on the result.

    Args:
        names: The figures.
        **kwargs: See `torchmetrics.Metric`.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.add_state("sums", torch.zeros(len(self.names), 3, dtype=torch.float64), dist_reduce_fx="sum")

    def _add(self, values: Mapping[str, float]) -> None:
        """Adds one record's values; subclasses call it in ``update``."""
        unknown = set(values) - set(self.names)
        if unknown:
            raise KeyError(f"{type(self).__name__} has no figure {sorted(unknown)[0]!r}, only {list(self.names)}.")
        row = [values.get(name) for name in self.names]
        rows = [(0.0, 0.0, 0.0) if value is None else (1.0, value, value * value) for value in row]
        self.sums += torch.tensor(rows, dtype=torch.float64, device=self.sums.device)

    def compute(self) -> dict[str, Tensor]:
        """The figures that any record has; see the class."""
        figures: dict[str, Tensor] = {}
        for name, count, mean, error in zip(self.names, self.sums[:, 0], *mean_and_error(self.sums), strict=True):
            if count > 0:
                figures[name] = mean
                figures |= {f"{name}_stderr": error} if count > 1 else {}
                figures[f"{name}_n"] = count
        return figures
