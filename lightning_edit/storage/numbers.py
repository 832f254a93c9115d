"""Numbers that are none: NaN and infinity, which JSON cannot hold and no weight may be."""

import json
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_edit.errors import EditError


def to_json(value: Any, **options: Any) -> str:
    """JSON in which a figure that is not finite is ``null``: ``NaN`` is no JSON, and other programs refuse it.

    Args:
        value: What to write.
        **options: Of ``json.dumps``.
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def refuse_not_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses tensors from a file that are to become weights and hold NaN or infinity.

    Args:
        tensors: By name.
        source: How the message calls the file.

    Raises:
        EditError: With the name of the first.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise EditError(
                f"{source}: {name} has entries that are NaN or infinite, so nothing can be computed with it. The run "
                "that wrote it diverged, or the file was changed since. Use an earlier checkpoint or another run."
            )
