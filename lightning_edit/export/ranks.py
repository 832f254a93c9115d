"""Which ranks an adapter has: what is asked for, what its update needs, and what those who serve it accept."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from lightning_edit.errors import EditError
from lightning_edit.export.low_rank import LowRank
from lightning_edit.messages import readable
from lightning_edit.settings import Count, Range, Settings

logger = logging.getLogger(__name__)

# What vLLM accepts as `--max-lora-rank`.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# An update is exact where what it lacks is less than what rounding to the precision of the file changes.
EXACT = {torch.float32: 1e-7, torch.float64: 1e-13}
RelativeError = Annotated[float, Range(at_least=0, at_most=1)]


@dataclass(frozen=True)
class RankSettings(Settings):
    """How large an adapter may be, and how far from the update."""

    rank: Count | None = None
    """The largest rank of a matrix, the update being truncated to it; none gives each the rank that its update has."""
    max_error: RelativeError | None = None
    """The largest relative Frobenius error of a matrix's update; each has the smallest rank that keeps it."""
    pad_rank: Count | Literal["auto", "none"] = "auto"
    """One rank for all matrices, filled up with zeros: ``auto`` the smallest that vLLM accepts; ``none`` to each its
    own, which vLLM reads but llama.cpp scales wrongly."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of one matrix.

    Args:
        full: The rank of its update.
        kept: That of what the adapter holds of it.
        written: That of the adapter, filled up with zeros.
        error: The relative Frobenius error of what it holds.
    """

    full: int
    kept: int
    written: int
    error: float


def settle_ranks(updates: Mapping[str, LowRank], settings: RankSettings, dtype: torch.dtype) -> dict[str, Ranks]:
    """The ranks of all matrices.

    Args:
        updates: For the name of each matrix its update.
        settings: What is asked for.
        dtype: The precision of the file.

    Raises:
        EditError: If the rank asked for is too small for the error asked for, or for what it is filled up to.
    """
    exact, kept = EXACT[dtype], {}
    full = {name: update.rank_for(exact) for name, update in updates.items()}
    for name, update in updates.items():
        needed = full[name] if settings.max_error is None else update.rank_for(max(settings.max_error, exact))
        kept[name] = needed if settings.rank is None else min(settings.rank, needed)
    if settings.rank is not None and settings.max_error is not None:
        _check_errors(updates, kept, settings.rank, max(settings.max_error, exact))
    written = _written(kept, settings.pad_rank)
    return {
        name: Ranks(full[name], rank, written[name], 0.0 if rank >= full[name] else updates[name].error(rank))
        for name, rank in kept.items()
    }


def _check_errors(updates: Mapping[str, LowRank], kept: Mapping[str, int], rank: int, most: float) -> None:
    wrong = {name: updates[name].error(rank) for name, rank in kept.items() if updates[name].error(rank) > most}
    if wrong:
        worst = max(wrong, key=lambda name: wrong[name])
        needed = max(update.rank_for(most) for update in updates.values())
        raise EditError(
            f"`--rank {rank}` is too small for `--max_error {most:g}`: it leaves an error of "
            f"{readable(wrong[worst], 2)} in {worst}, relative to the update. `--rank {needed}` would do; or "
            "accept a larger error."
        )


def _written(kept: Mapping[str, int], pad: int | Literal["auto", "none"]) -> dict[str, int]:
    largest = max(kept.values())
    if pad == "none":
        return dict(kept)
    if not isinstance(pad, str):
        filled = pad
    elif largest > VLLM_RANKS[-1]:
        filled = largest
        logger.warning(
            "The adapter has rank %d, and vLLM serves no more than %d: give --rank %d to truncate it, or serve the "
            "edited model itself.",
            *(largest, VLLM_RANKS[-1], VLLM_RANKS[-1]),
        )
    else:
        filled = next(rank for rank in VLLM_RANKS if rank >= largest)
    if filled < largest:
        raise EditError(
            f"`--pad_rank {filled}`: the adapter has rank {largest}, and can only be filled up to more. Give `--rank "
            f"{filled}` to truncate it, or a larger number."
        )
    return dict.fromkeys(kept, filled)
