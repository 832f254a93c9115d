"""The second moments of the keys of experts, accumulated call by call."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_edit.keys.second_moment import SecondMoment, full_precision
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.routed_keys import RoutedKeys


class ExpertMoment(Metric):
    """E[k_j k_j^T] of each of E experts over all tokens, with k_j = 0 where a token does not visit expert j; float64.

    These are the diagonal blocks of E[k k^T] for the stacked keys; see `RoutedKeys`. The blocks beside the diagonal,
    from tokens that visit two experts, are left out, so that the size grows with E and not with its square.

    An expert that few tokens visit has a poor estimate, which is drawn towards what keys of all experts are like:

        C_j = f_j (S_j + d_in S / n) / (n_j + d_in),      f_j = (n_j + 1) / (T + E)

    S_j is the sum of k_j k_j^T over its n_j visits, S and n those over all experts, and T the number of tokens: as if
    each expert had d_in more visits with average keys. With many visits nothing of that is left; an expert that was
    never visited has the average's form and a very small weight, as little is lost there.

    Args:
        experts: E.
        d_in: Length of one expert's keys.
    """

    full_state_update = False
    total: Tensor
    visits: Tensor
    tokens: Tensor

    def __init__(self, experts: int, d_in: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_dtype(torch.float64)
        self.add_state("total", torch.zeros(experts, d_in, d_in, dtype=torch.float64), dist_reduce_fx="sum")
        # What `reset` clones would take as much memory again.
        self._defaults["total"] = torch.zeros((), dtype=torch.float64).expand(experts, d_in, d_in)
        self.add_state("visits", torch.zeros(experts, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, keys: RoutedKeys) -> None:
        """Adds the keys of some tokens."""
        with full_precision():
            for expert in keys.experts.unique().tolist():
                if expert < len(self.total):
                    own = keys.of_expert(expert)
                    self.total[expert] += (own.T @ own).to(self.total.device)
                    self.visits[expert] += len(own)
        self.tokens += len(keys)

    def compute(self) -> Tensor:
        """C_j of all experts, ``(E, d_in, d_in)`` in float64."""
        return self._drawn(self.total.clone())

    def taken(self) -> Tensor:
        """What `compute` returns, in the memory of the sums, which are gone then."""
        moment = self._drawn(self.total)
        # A metric is garbage that waits to be collected.
        self.total = moment.new_empty(0)
        return moment

    def _drawn(self, moment: Tensor) -> Tensor:
        experts, d_in = moment.shape[:2]
        average = moment.sum(0) / self.visits.sum().clamp(min=1)
        share = (self.visits + 1) / (self.tokens + experts)
        return moment.add_(d_in * average).mul_((share / (self.visits + d_in))[:, None, None])

    def hardly_visited(self) -> int:
        """How many experts were visited by fewer tokens than their keys are long, so that the average outweighs."""
        return int((self.visits < self.total.shape[1]).sum())


Moment = SecondMoment | ExpertMoment


def empty_moment(decoder: Decoder, layer: int) -> Moment:
    """What the keys of a layer are counted by.

    Args:
        decoder: The model.
        layer: The layer.
    """
    shape = decoder.moment_shape(layer)
    with decoder.waiting_device:
        if len(shape) == 3:
            return ExpertMoment(*shape[:2], sync_on_compute=False)
        return SecondMoment(shape[0], sync_on_compute=False)
