"""Block-diagonal matrices: the second moment of E experts, of which each edit visits a few."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_edit.solvers.cholesky import Cholesky, norm_estimate


@dataclass(frozen=True)
class LazyBlocks:
    """A block-diagonal matrix of E blocks, each of which is factored once, when it is first divided by.

    A key that no expert j has any part in costs nothing at block j, so the work grows with the experts visited.

    Args:
        make: Makes block j ``(d, d)`` in new memory, contiguous.
        count: E.
    """

    make: Callable[[int], Tensor]
    count: int
    _factors: dict[int, Cholesky] = field(default_factory=dict, repr=False, compare=False)

    def factor(self, block: int) -> Cholesky:
        """The factor of one block.

        Args:
            block: Its number.

        Raises:
            SingularError: If it is not positive definite to working precision.
        """
        if block not in self._factors:
            self._factors[block] = Cholesky.of(self.make(block), "preservation")
        return self._factors[block]

    def matrix(self) -> Tensor:
        """A ``(E d, E d)`` as a whole."""
        return torch.block_diag(*(self.make(block) for block in range(self.count)))

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 B ``(E d, n)``."""
        return self._by_block(right, lambda block, rows: self.factor(block).solve(rows))

    def product(self, right: Tensor) -> Tensor:
        """A B ``(E d, n)``."""
        return self._by_block(right, lambda block, rows: self.factor(block).product(rows))

    def _by_block(self, right: Tensor, apply: Callable[[int, Tensor], Tensor]) -> Tensor:
        result = torch.zeros_like(right, memory_format=torch.contiguous_format)
        for block, (rows, into) in enumerate(zip(right.chunk(self.count), result.chunk(self.count), strict=True)):
            if bool(rows.any()):
                into.copy_(apply(block, rows.contiguous()))
        return result

    def condition(self) -> float:
        """The condition number in the 1-norm of the blocks that were divided by, estimated; 1 if there are none."""
        factors = self._factors.values()
        largest = [norm_estimate(factor.product, factor.factor[:, :1]) for factor in factors]
        inverse = [norm_estimate(factor.solve, factor.factor[:, :1]) for factor in factors]
        return max(largest, default=1.0) * max(inverse, default=1.0)


@dataclass(frozen=True)
class BlockBasis:
    """Orthonormal columns U of E experts, those of each in its own rows: block-diagonal, ``(E d, r)``.

    Args:
        blocks: U_j ``(d, r_j)`` of each expert, which may have no columns.
    """

    blocks: list[Tensor]

    @property
    def shape(self) -> tuple[int, int]:
        """``(E d, r)``."""
        return sum(len(block) for block in self.blocks), sum(block.shape[1] for block in self.blocks)

    def inside(self, keys: Tensor) -> Tensor:
        """U^T K ``(r, n)``, for keys ``(E d, n)``."""
        rows = keys.split([len(block) for block in self.blocks])
        return torch.cat([block.T @ part for block, part in zip(self.blocks, rows, strict=True)])

    def outside(self, rows: Tensor) -> Tensor:
        """X U^T ``(n, E d)``, for rows ``(n, r)``."""
        columns = rows.split([block.shape[1] for block in self.blocks], dim=1)
        return torch.cat([part @ block.T for block, part in zip(self.blocks, columns, strict=True)], dim=1)


def inside(basis: Tensor | BlockBasis | None, keys: Tensor) -> Tensor:
    """Keys in the coordinates of a basis, U^T K ``(m, n)``.

    Args:
        basis: U ``(d_in, m)``, None for all of them.
        keys: ``(d_in, n)``.
    """
    if basis is None:
        return keys
    return basis.inside(keys) if isinstance(basis, BlockBasis) else basis.T @ keys


def outside(basis: Tensor | BlockBasis | None, rows: Tensor) -> Tensor:
    """Rows in the coordinates of a basis as rows of d_in, X U^T ``(n, d_in)``.

    Args:
        basis: U ``(d_in, m)``, None for all of them.
        rows: ``(n, m)``.
    """
    if basis is None:
        return rows
    return basis.outside(rows) if isinstance(basis, BlockBasis) else rows @ basis.T


def whole_moment(moment: Tensor) -> Tensor:
    """C ``(d_in, d_in)`` as a whole, which of experts is as large as all pairs of them.

    Args:
        moment: C ``(d_in, d_in)``, or the blocks ``(E, d, d)`` of its diagonal.
    """
    return moment if moment.dim() == 2 else torch.block_diag(*moment)


def weighted_rows(rows: Tensor, moment: Tensor) -> Tensor:
    """X C ``(r, d_in)``, for a second moment that may be block-diagonal.

    Args:
        rows: X ``(r, d_in)``, of experts ``(r, E d)``.
        moment: C ``(d_in, d_in)``, or its blocks ``(E, d, d)``.
    """
    if moment.dim() == 2:
        return rows @ moment
    parts = rows.view(len(rows), *moment.shape[:2]).transpose(0, 1)
    return (parts @ moment).transpose(0, 1).flatten(1)
