"""MEMOIR: a second matrix beside W, of which each edit uses the columns that its own activations choose."""

from typing import Any

import torch
from torch import Tensor

from lightning_edit.memories.memory import Entry, Memory
from lightning_edit.solvers import MEMIT, EditProblem

# Tokens whose features are compared with those of all edits at once.
TOKENS = 1024


class Memoir(Memory):
    """The memory of MEMOIR (Wang et al., 2025, arXiv 2506.07899).

        y = W x + W_m (x * m),      m = 1 on perm(top_k of |x - background|)

    A token gets the mask m of the edit that shares most features with it, if that is a share of ``threshold`` or more
    of the features; otherwise W alone answers. W_m is the sum of what descent has added for each edit.

    Args:
        background: ``(d_in,)``, the mean activation of text that has nothing to do with the edits.
        order: ``(d_in,)``, perm: which column each feature turns on.
        top_k: How many features and columns.
        threshold: The least share of features in common.
    """

    kind = "memoir"
    form = {"mask": ("columns",), "keys": ("tokens", "columns"), "values": ("tokens", "d_out")}  # noqa: RUF012
    common = ("background", "order")

    def __init__(self, background: Tensor, order: Tensor, top_k: int, threshold: float = 0.4) -> None:
        super().__init__()
        self.background, self.order, self.top_k, self.threshold = background, order, top_k, threshold
        self._clear()

    def settings(self) -> dict[str, Any]:
        """The numbers that its constructor takes."""
        return {"top_k": self.top_k, "threshold": self.threshold}

    def shared(self) -> dict[str, Tensor]:
        """Background and order."""
        return {"background": self.background, "order": self.order}

    def mask(self, activation: Tensor) -> Tensor:
        """The columns ``(..., top_k)`` that an activation ``(..., d_in)`` turns on."""
        features = (activation.to(self.background) - self.background.to(activation.device)).abs()
        return self.order.to(activation.device)[features.topk(self.top_k).indices]

    def masked(self, keys: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Which edit each token belongs to, and what of its key that edit's mask leaves.

        Args:
            keys: ``(tokens, d_in)``.
            masks: ``(edits, d_in)``, 0 or 1.

        Returns:
            ``(tokens,)`` the edit, the latest of several alike, -1 for none; ``(tokens, d_in)`` x * m, else 0.
        """
        owners = torch.cat([self._owner(part, masks) for part in keys.split(TOKENS)])
        return owners, keys.to(masks) * masks[owners.clamp(min=0)] * (owners >= 0)[:, None]

    def _owner(self, keys: Tensor, masks: Tensor) -> Tensor:
        features = torch.zeros_like(keys, dtype=masks.dtype).scatter_(1, self.mask(keys), 1.0)
        best, place = (features @ masks.flip(0).T).max(1)
        return torch.where(best >= self.threshold * self.top_k, len(masks) - 1 - place, -1)

    def masks(self, *more: Tensor) -> Tensor:
        """The masks of all edits, and of further ones that are given by their columns, ``(edits, d_in)``."""
        columns = torch.stack([*(entry.tensors["mask"] for entry in self.entries), *more])
        masks = torch.zeros(len(columns), len(self.background), dtype=self.background.dtype)
        return masks.scatter_(1, columns, 1.0)

    def _clear(self) -> None:
        self._sum: Tensor | None = None

    def _take(self, entry: Entry) -> None:
        keys, mask = entry.tensors["keys"].double(), entry.tensors["mask"]
        whole = keys.new_zeros(len(keys), len(self.background)).scatter_(1, mask.expand(len(keys), -1), keys)
        delta = entry.tensors["values"].double().T @ whole
        self._sum = delta if self._sum is None else self._sum + delta

    def weight(self) -> Tensor:
        """W_m ``(d_out, d_in)``, float64; there must be edits."""
        assert self._sum is not None
        return self._sum

    def _tables(self) -> tuple[Tensor, ...]:
        return self.masks(), self.weight().to(self.background.dtype)

    def _change(self, keys: Tensor, output: Tensor, *tables: Tensor) -> Tensor:
        masks, weight = tables
        _, masked = self.masked(keys, masks)
        return output + (masked @ weight.T).to(output.dtype)


class MemoirClosed(Memoir):
    """MEMOIR whose W_m is not trained but solved for: MEMIT with C' = l2 I on the masked keys of all edits.

    An entry holds what enters the layer in the text of its edit, and what W_m should give there: what is missing at the
    last token of the prompt, and nothing at the others.

    Args:
        background: See `Memoir`.
        order: The same.
        top_k: The same.
        threshold: The same.
        ridge: l2.
    """

    kind = "memoir_closed"
    form = {"mask": ("columns",), "keys": ("tokens", "d_in"), "values": ("tokens", "d_out")}  # noqa: RUF012

    def __init__(
        self, background: Tensor, order: Tensor, top_k: int, threshold: float = 0.4, ridge: float = 1e-3
    ) -> None:
        super().__init__(background, order, top_k, threshold)
        self.ridge = ridge

    def settings(self) -> dict[str, Any]:
        """The numbers that its constructor takes."""
        return {**super().settings(), "ridge": self.ridge}

    def _take(self, entry: Entry) -> None:
        self._sum = None

    def weight(self) -> Tensor:
        """W_m ``(d_out, d_in)``, float64; there must be edits."""
        if self._sum is None:
            keys, values = (torch.cat([entry.tensors[name] for entry in self.entries]) for name in ("keys", "values"))
            owners, masked = self.masked(keys.to(self.background.device), self.masks().to(self.background.device))
            own = (owners >= 0).cpu()
            self._sum = _solved(masked.cpu()[own].double().T, values[own].double().T, self.ridge)
        return self._sum


def _solved(keys: Tensor, residual: Tensor, ridge: float) -> Tensor:
    """R K^T (K K^T + l2 I)^-1, in the span of the keys, where C' is as large as there are keys."""
    basis, inside = torch.linalg.qr(keys)
    nothing = inside.new_zeros(len(inside), len(inside))
    return MEMIT(ridge=ridge)(EditProblem(inside, residual, nothing)).dense() @ basis.T
