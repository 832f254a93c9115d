"""When one process of a run ends before its time, the others end too and say why, and none is left behind."""

import logging
import os
import subprocess
from typing import Any

import transformers
from lightning.fabric.utilities.rank_zero import _get_rank
from torch.distributed import DistNetworkError

LOST = (
    "Another process of this run has ended, so this one stops too. What that one said tells why; if it said nothing, "
    "it was killed, maybe for want of memory."
)
PACKAGES = ("lightning_edit", "lightning.fabric")
# Seconds in which a process can say what went wrong, where the environment names no others.
GRACE, GRACE_VARIABLE = 15.0, "LIGHTNING_EDIT_GRACE_SECONDS"


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error says that another process is no longer there.

    Args:
        error: What a collective operation raised.
    """
    # Most of them have no type of their own.
    words = ("gloo/transport", "ncclRemoteError")
    return isinstance(error, DistNetworkError) or any(word in str(error) for word in words)


def end_started(launcher: Any) -> None:
    """Waits for the processes that Lightning has started from this one, and ends those that still work.

    Args:
        launcher: That of the trainer's strategy; None where nothing is ever started.
    """
    started: list[subprocess.Popen[bytes]] = list(getattr(launcher, "procs", ()))
    if started:
        # Lightning looks at this list every few seconds, and would kill this process where another one has failed.
        launcher.procs.clear()
    for process in started:
        try:
            process.wait(float(os.environ.get(GRACE_VARIABLE, GRACE)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def quieten_others() -> None:
    """Lets only the first process tell what all of them know; errors and warnings of Lightning are told by all."""
    if _get_rank():
        transformers.utils.logging.disable_progress_bar()
        for name in PACKAGES:
            logging.getLogger(name).setLevel(logging.ERROR)
