"""Running statistics of keys and output gradients, by which both are brought to one scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Means and sums of squares over all pairs [h; g] so far, of the weights of one shape; it never changes.

    A mean over m more tokens moves the mean mu of n by m delta / (n + m), delta being their difference, and the sum of
    squares M2 grows by m var + n m delta^2 / (n + m), whatever the tokens come in. The variance ``var`` is the biased
    one, which a single token has too.

    Args:
        tokens: n, over how many tokens.
        mean: ``(d_in + d_out,)`` of keys, then of gradients.
        squares: ``(d_in + d_out,)``, the sum of squared distances from the mean.
        products: ``(d_out, d_out)``, the same of the products of gradients; None where they are not needed.
    """

    tokens: int
    mean: Tensor
    squares: Tensor
    products: Tensor | None = None

    @staticmethod
    def of(keys: Tensor, gradients: Tensor, products: bool) -> "Statistics":
        """The statistics of some tokens.

        Args:
            keys: h ``(n, d_in)`` in float64.
            gradients: g ``(n, d_out)``.
            products: Whether those of gradients are needed.
        """
        both = torch.cat([keys, gradients], 1)
        centered = both - both.mean(0)
        own = centered[:, keys.shape[1] :]
        return Statistics(len(both), both.mean(0), centered.square().sum(0), own.T @ own if products else None)

    def __add__(self, other: "Statistics") -> "Statistics":
        """The statistics of the tokens of both."""
        total, device = self.tokens + other.tokens, other.mean.device
        delta = other.mean - self.mean.to(device)
        share = self.tokens * other.tokens / total
        products = None
        if self.products is not None and other.products is not None:
            of_gradients = delta[-len(other.products) :]
            products = self.products.to(device) + other.products + share * of_gradients.outer(of_gradients)
        return Statistics(
            total,
            self.mean.to(device) + delta * (other.tokens / total),
            self.squares.to(device) + other.squares + share * delta.square(),
            products,
        )

    def normalized(self, keys: Tensor, gradients: Tensor, floor: float | None) -> tuple[Tensor, Tensor]:
        """Keys and gradients with mean 0 and variance 1 in each dimension.

        Args:
            keys: h ``(n, d_in)``.
            gradients: g ``(n, d_out)``.
            floor: Of the eigenvalues of the covariance of gradients, which are whitened with it as soon as there are
                more tokens than dimensions; None never does that.
        """
        deviation = (self.squares / max(self.tokens - 1, 1)).sqrt() + torch.finfo(self.squares.dtype).eps
        both = (torch.cat([keys, gradients], 1) - self.mean) / deviation
        of_keys, of_gradients = both.split([keys.shape[1], gradients.shape[1]], 1)
        d_out = gradients.shape[1]
        if floor is not None and self.products is not None and self.tokens > d_out + 1:
            values, vectors = torch.linalg.eigh(self.products / (self.tokens - d_out - 1))
            centered = gradients - self.mean[-d_out:]
            of_gradients = (centered @ (vectors * values.clamp(min=floor).rsqrt())) @ vectors.T
        return of_keys, of_gradients

    def packed(self) -> dict[str, Any]:
        """Tensors and a number, on the CPU."""
        products = None if self.products is None else self.products.cpu()
        return {
            "tokens": self.tokens,
            "mean": self.mean.cpu(),
            "squares": self.squares.cpu(),
            "products": products,
        }

    @staticmethod
    def unpacked(content: Mapping[str, Any]) -> "Statistics":
        """What `packed` wrote.

        Args:
            content: As read from a file.
        """
        # Sums over memory that is laid out in another way may round in another way.
        products = content["products"]
        return Statistics(
            content["tokens"],
            content["mean"].clone(),
            content["squares"].clone(),
            None if products is None else products.clone(),
        )
