"""Seconds and memory of a job, measured in a process of its own so that no job inherits another's caches or peaks."""

import multiprocessing
import os
import platform
import re
import resource
import statistics
import sys
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers.utils import logging as transformers_logging

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_CPU = Path("/proc/cpuinfo")


def peak_memory() -> int:
    """The most memory that this process has held at once, in bytes.

    Linux's own record is preferred where it exists: `getrusage` starts a new process at the peak of its parent.
    """
    if _STATUS.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_memory() -> int:
    """The bytes that this process holds now; where Linux does not say, the most it has held."""
    if _STATUS.is_file() and (found := re.search(r"VmRSS:\s+(\d+) kB", _STATUS.read_text())):
        return int(found[1]) * 1024
    return peak_memory()


class MemoryGrowth:
    """By how much the peak rises above what is held at the start, e.g. a loaded model; a GPU's peak if one is used."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_initialized()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        # Where the peak can be put back to what is held now, what loading took in passing hides nothing.
        with suppress(OSError):
            _CLEAR.write_text("5")
        self.start = self._peak()

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self.cuda else peak_memory()

    def __call__(self) -> int:
        """Bytes since the start."""
        return self._peak() - self.start


class TensorPeak(TorchDispatchMode):
    """The most bytes of tensors made inside a ``with`` block that are there at once, to the byte.

    Not counted is what an operation holds only while it runs, and what is not a tensor.

    Attributes:
        peak: Those bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = weakref.WeakSet[Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and notes new memory among its results."""
        given = {id(t.untyped_storage()) for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **kwargs or {})
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor) and id(storage := tensor.untyped_storage()) not in given:
                self._note(storage)
        return result

    def _note(self, storage: Any) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._gone, storage.nbytes()).atexit = False

    def _gone(self, size: int) -> None:
        self._now -= size


def finish() -> None:
    """Waits for what a GPU was told to do, where one is used: a clock must not be read before."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def seconds(job: Callable[[], Any], repeats: int = 1, warm_up: int = 0) -> tuple[float, Any]:
    """Median seconds of a job over some repeats, after as many unmeasured ones as asked for, and its last result."""
    for _ in range(warm_up):
        job()
    times, result = [], None
    for _ in range(repeats):
        finish()
        start = time.perf_counter()
        result = job()
        finish()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def apart(job: Callable[..., Any], *args: Any, threads: int | None = None) -> Any:
    """Runs a job of a module in a fresh process and returns its result.

    Args:
        job: A function that can be imported.
        *args: Its arguments.
        threads: Number of torch's threads, None for torch's own choice.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_prepare, initargs=(threads,)) as pool:
        return pool.submit(job, *args).result()


def _prepare(threads: int | None) -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)


def processor() -> str:
    """What the operating system calls the processor."""
    if _CPU.is_file() and (found := re.search(r"model name\s*:\s*(.+)", _CPU.read_text())):
        return found[1].strip()
    return platform.processor() or platform.machine()


def machine(threads: int | None, device: str) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads() if threads is None else threads,
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": sys.version.split()[0],
    }
