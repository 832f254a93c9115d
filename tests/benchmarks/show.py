"""What the stages share to run their jobs and to show figures."""

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
# Runs a job in a process of its own: a description, the job, its arguments.
Run = Callable[..., Any]


def ratio(slow: float, fast: float) -> str:
    """How many times faster."""
    return f"{slow / fast:.1f}x"


def mebibytes(count: int) -> str:
    """Memory for people."""
    return f"{count / 2**20:,.0f} MiB"
