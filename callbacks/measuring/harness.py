"""Any task of EleutherAI's lm-evaluation-harness, before, during and after editing."""

import copy
import difflib
import importlib
import io
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only

from lightning_edit.asking.chat import plain_tokenizer
from lightning_edit.callbacks.measuring.downstream import names_of
from lightning_edit.callbacks.measuring.scheduled import Scheduled
from lightning_edit.callbacks.progress import EditProgressBar
from lightning_edit.distributed.process_group import in_shares
from lightning_edit.errors import EditError
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.settings import Count, CountOrZero
from lightning_edit.without_effect import refuse_given

# What the harness seeds numpy, torch and the choice of shots with, unless told otherwise.
SEED = 1234
# What the harness asks of a model; each request is answered by itself.
ASKED = ("loglikelihood", "loglikelihood_rolling", "generate_until")


class Harness(Scheduled):
    """Measures tasks of the harness, which is installed with ``pip install 'lightning-edit[harness]'``.

    Figures are named as the harness names them, e.g. ``harness/lambada_openai/acc``; where a task has several filters,
    ``harness/gsm8k/exact_match/strict-match``.

    Args:
        tasks: Names of tasks, groups or tags of the harness, or paths of its task files, as a list or separated by
            commas; without any nothing is measured.
        include_path: A folder with task files of one's own, whose names are then known as well.
        limit: Largest number of rows of each task; None for all.
        num_fewshot: Solved examples before each question; None for what a task says itself.
        batch_size: Rows at once, or ``auto``.
        bootstrap_iters: Samples for standard errors; 0 measures none.
        chat: Whether tasks are asked in the chat template, with solved examples as earlier turns; ``auto`` does so
            where the tokenizer has one.
        **schedule: See `Scheduled`.

    Raises:
        EditError: If the folder is not there, or settings of tasks are given without any.
    """

    def __init__(
        self,
        tasks: str | list[str] = "",
        include_path: str | None = None,
        limit: Count | None = None,
        num_fewshot: CountOrZero | None = None,
        batch_size: Count | str = 8,
        bootstrap_iters: CountOrZero = 0,
        chat: bool | Literal["auto"] = False,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.tasks = names_of(tasks, "Harness")
        if not self.tasks:
            given = {"include_path": include_path, "limit": limit, "num_fewshot": num_fewshot}
            refuse_given(self, given, "`harness.tasks` empty", "Name tasks in it")
        if isinstance(batch_size, str) and not batch_size.startswith("auto"):
            raise EditError(f"Harness: `batch_size` must be a number or auto, got {batch_size!r}.")
        self.include_path = None if include_path is None else Path(include_path).expanduser()
        if self.include_path is not None and not self.include_path.is_dir():
            raise EditError(f"Harness: `include_path`: there is no folder {include_path}.")
        self.limit, self.num_fewshot = limit, num_fewshot
        self.batch_size, self.bootstrap_iters, self.chat = batch_size, bootstrap_iters, chat
        self._loaded: Any = None

    @property
    def active(self) -> bool:
        """Whether there are tasks."""
        return bool(self.tasks)

    def check(self, trainer: Any, module: EditingRun) -> None:
        """Finds the tasks and loads their data.

        Raises:
            EditError: If the harness is not installed, does not know a task, or cannot load it, or if there is no chat
                template to ask in.
        """
        if self.chat is True and not _has_template(module):
            raise EditError("Harness: `chat` needs a tokenizer with a chat template. Set it to auto or false.")
        folder = None if self.include_path is None else str(self.include_path)
        manager = _import("lm_eval.tasks").TaskManager(include_path=folder)
        _import("lm_eval.models.huggingface")
        for name in self.tasks:
            if name not in manager.all_tasks and not Path(name).is_file():
                close = ", ".join(difflib.get_close_matches(name, manager.all_tasks, n=3)) or "none"
                raise EditError(
                    f"Harness: `tasks`: the harness knows no task {name}. Similar names: {close}. Task files of your "
                    "own are found through `include_path`."
                )
        self._loaded = _load(manager, self.tasks)
        for task in self._loaded["tasks"].values():
            # A task that says 0 itself makes no sense with shots.
            if self.num_fewshot is not None and task.get_config("num_fewshot") != 0:
                task.set_config(key="num_fewshot", value=self.num_fewshot)
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)

    def measure(self, trainer: Any, module: EditingRun) -> dict[str, float]:
        """The figures of all tasks, as the harness computes them, with the seeds of its command line."""
        if isinstance(bar := getattr(trainer, "progress_bar_callback", None), EditProgressBar):
            # The harness draws bars of its own, which would be drawn over ours.
            bar.pause()
        random.seed(0)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        for task in self._loaded["tasks"].values():
            task.set_fewshot_seed(seed=SEED)
        with _quiet(), _without_stop_strings(module.model):
            # The harness gives a tokenizer without padding a padding token: it gets one of its own.
            model = _import("lm_eval.models.huggingface").HFLM(
                pretrained=module.model,
                tokenizer=copy.deepcopy(plain_tokenizer(module.tokenizer)),
                batch_size=self.batch_size,
                max_length=module.decoder.context,
                chat_template_args=module.chat_settings.arguments,
            )
            for name in ASKED:
                setattr(model, name, _shared(getattr(model, name), module.model))
            # `simple_evaluate` would ask pip and git about the machine at each measurement.
            measured = _import("lm_eval").evaluate(
                model,
                self._loaded,
                limit=self.limit,
                bootstrap_iters=self.bootstrap_iters,
                log_samples=False,
                **self._asking(module),
            )
        return {
            name: value
            for task, figures in {**measured.get("groups", {}), **measured["results"]}.items()
            for name, value in _figures(task, figures)
        }

    def _asking(self, module: EditingRun) -> dict[str, Any]:
        """How the harness is to ask, as its command line does where it is told to use the template."""
        if not self.chat or not _has_template(module):
            return {}
        system = module.chat_settings.system
        return {"apply_chat_template": True, "fewshot_as_multiturn": True, "system_instruction": system}


def _has_template(module: EditingRun) -> bool:
    return bool(getattr(plain_tokenizer(module.tokenizer), "chat_template", None))


def _shared(answer: Callable[[Sequence[Any]], list[Any]], model: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """Lets each process answer its share of the requests.

    The harness can deal out rows itself, but then the shots of a row, which it draws row by row, would be others.
    """
    return lambda requests: [given for share in in_shares(answer, requests, model) for given in share]


def _figures(task: str, figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The harness keys a figure by metric and filter, ``acc,none``; what is no figure has no comma."""
    for key, value in figures.items():
        metric, comma, kept = key.partition(",")
        if comma and isinstance(value, int | float):
            name = "/".join(["harness", task, metric.removesuffix("_stderr")] + [kept] * (kept != "none"))
            yield name + "_stderr" * metric.endswith("_stderr"), float(value)


def _load(manager: Any, names: Sequence[str]) -> Any:
    try:
        return manager.load(list(names))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise EditError(f"Harness: the tasks {', '.join(names)} could not be loaded: {error}") from error


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EditError(
            f"Harness: the lm-evaluation-harness is not installed ({error}): pip install 'lightning-edit[harness]'."
        ) from error


@contextmanager
def _without_stop_strings(model: Any) -> Iterator[None]:
    """Stop strings of the model's own need a tokenizer at each call, which the harness, with its own, does not give."""
    settings = model.generation_config
    kept, settings.stop_strings = settings.stop_strings, None
    try:
        yield
    finally:
        settings.stop_strings = kept


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the harness says each time of a model that is loaded already, and all but one of its bars."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()) if rank_zero_only.rank else nullcontext():
            yield
    finally:
        logger.setLevel(level)
