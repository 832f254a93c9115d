"""Runs that have begun and left no figures of an edited model, told from tests of other runs by what lies there."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_edit.storage.run_files import CHECKPOINTS


def has_begun(run: Path) -> bool:
    """Whether a fit has begun in a folder, finished or not: it writes a checkpoint first.

    Args:
        run: The folder.
    """
    return any((run / CHECKPOINTS).glob("update-*.ckpt"))


def is_only_measured(run: Path, metrics: Mapping[str, Any]) -> bool:
    """Whether a folder holds what ``test`` measured, and no fit.

    What a fit measures before it edits was noted as a test's in earlier versions, and is so in Python.

    Args:
        run: The folder.
        metrics: What its ``metrics.json`` holds.
    """
    return metrics.get("command") == "test" and not has_begun(run)


def to_go_on(run: Path) -> str:
    """The command with which a run that was stopped goes on.

    Args:
        run: Its folder.
    """
    return f"lightning-edit fit --ckpt_path {shlex.quote(str(run))}"
