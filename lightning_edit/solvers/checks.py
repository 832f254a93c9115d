"""Whether a solver can use the second moments of a run, asked before anything expensive is done."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.solvers.base import Solver
from lightning_edit.solvers.cholesky import SingularError


def check_second_moments(moments: Mapping[int, Tensor] | Mapping[str, Tensor], solver: Solver) -> None:
    """Refuses second moments that a solver cannot use, before anything expensive is done.

    Args:
        moments: For each edited layer, by the name that is shown, C ``(d_in, d_in)``, or its blocks, see `EditProblem`.
        solver: See `Solver.check`.

    Raises:
        EditError: Names the layer and what to change; for one that cannot be inverted, its rank.
    """
    for layer, moment in moments.items():
        if not bool(moment.isfinite().all()):
            raise EditError(
                f"The second moment of layer {layer} holds numbers that are not finite: the model overflows on "
                "ordinary text. Load it in float32 or bfloat16."
            )
        try:
            solver.check(moment)
        except SingularError as error:
            # Keys of float32 have noise of that size in directions in which there is nothing.
            noise = torch.finfo(torch.float32).eps
            sizes = torch.linalg.eigvalsh(moment).view(-1, moment.shape[-1])
            floor = noise * sizes.abs().amax(-1, keepdim=True)
            ranks = (sizes > floor).sum(-1)
            d_in, rank = moment.shape[-1], int(ranks.min())
            whose = f"expert {int(ranks.argmin())} of layer {layer}" if moment.dim() == 3 else f"layer {layer}"
            if bool((sizes < -floor).any()):
                raise EditError(
                    f"The second moment of {whose} is not positive definite: its smallest eigenvalue is "
                    f"{float(sizes.min()):.3g}. A second moment is the mean of k k^T over keys k; give one that is."
                ) from error
            raise EditError(
                f"The second moment of {whose} has rank {rank} of {d_in} and cannot be inverted: there is too "
                f"little ordinary text, or too much of the same. Raise `second_moment.tokens` (10 x d_in = {10 * d_in} "
                "usually suffice), give more text as `data.preservation` (`texts` in Python), or raise the "
                "solver's `ridge`."
            ) from error
        except ValueError as error:
            raise EditError(f"Layer {layer}: {error}") from error


def dependent_keys(layer: str, keys: Tensor) -> EditError:
    """What is said where the keys of one update depend on each other.

    Args:
        layer: As it is shown.
        keys: K ``(d_in, n)``.
    """
    return EditError(
        f"Layer {layer}: the {keys.shape[1]} keys of one update depend on each other, so they cannot all be written "
        "exactly. Likely causes, most probable first: edits of the same subject in one update; more edits than the "
        f"layer's input has dimensions ({len(keys)}). Raise the solver's lambda or ridge, or make smaller updates."
    )
