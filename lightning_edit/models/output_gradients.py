"""Gradients with respect to what linear maps give, beside their keys, in one pass forward and one backward."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from lightning_edit.models.finding.sites import capture_keys
from lightning_edit.models.hooks import Captured, change_output

# Of a pass that keeps them for gradients, so many numbers at most.
MAX_LOGITS = 2**28


@contextmanager
def output_watched(module: nn.Module, index: Tensor) -> Iterator[Captured]:
    """Records the keys of a map; its gradients are those of zeros ``(n, d_out)`` that are added to what leaves it.

    Args:
        module: The map.
        index: ``(n,)``, which tokens of the pass are wanted, row after row.
    """

    def with_zeros(states: Tensor) -> Tensor:
        by_tokens = states.reshape(-1, states.shape[-1])
        captured.output = by_tokens.new_zeros(len(index), by_tokens.shape[1]).requires_grad_()
        return by_tokens.index_put((index.to(states.device),), captured.output, accumulate=True).reshape(states.shape)

    with capture_keys(module) as captured, change_output(module, with_zeros):
        yield captured
