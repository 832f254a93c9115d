"""What the model can still do beside the edited facts, before, during and after editing."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_edit.callbacks.measuring.scheduled import Scheduled
from lightning_edit.configs import CONFIGS
from lightning_edit.downstream import Fitting, Prepared, Task, load_task
from lightning_edit.downstream.rows import Table, read_folder
from lightning_edit.downstream.table import table
from lightning_edit.downstream.task import TooLong
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, terminal
from lightning_edit.progress import silent
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.settings import Count, CountOrZero
from lightning_edit.storage.numbers import to_json
from lightning_edit.storage.run_folder import run_folder
from lightning_edit.without_effect import refuse_given

logger = logging.getLogger(__name__)

TASKS = CONFIGS / "tasks"
FILE = "downstream.jsonl"


class Downstream(Scheduled):
    """Measures few-shot tasks and perplexity; see ``configs/tasks``.

    Figures are named ``downstream/TASK/generated_accuracy`` and so on, from three greedily generated tokens in which
    the label word is looked for, and ``downstream/TASK/likelihood_accuracy``, from the likeliest label word.

    Args:
        tasks: Names of tasks, or paths of YAML files of one's own, as a list or separated by commas; without any
            nothing is measured.
        shots: Solved examples before each question, one number for all tasks or one for each; as many as fit the
            model's context are kept.
        tests: How many rows to measure, one number for all tasks or one for each; for perplexity, windows of text.
        data_dir: A folder with ``NAME.jsonl`` for each task, used in place of the hub; a task that names a file of its
            own keeps to that.
        too_long: What happens to a question that does not fit the model's context even without shots: ``refuse`` is an
            error before anything is edited, ``cut`` leaves out its beginning.
        generations: Whether to write what the model answered to each row to ``downstream.jsonl`` in the run's folder.
        **schedule: See `Scheduled`.

    Raises:
        EditError: If a task or folder is not there, or settings of tasks are given without any.
    """

    def __init__(
        self,
        tasks: str | list[str] = "",
        shots: CountOrZero | str | list[CountOrZero] = 3,
        tests: Count | str | list[Count] = 20,
        data_dir: str | None = None,
        too_long: TooLong = "refuse",
        generations: bool = True,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.tasks = names_of(tasks, "Downstream")
        if not self.tasks:
            given = {"shots": shots, "tests": tests, "data_dir": data_dir, "too_long": too_long}
            refuse_given(self, given, "`downstream.tasks` empty", "Name tasks in it")
        self.shots = numbers_for("shots", shots, self.tasks, least=0)
        self.tests = numbers_for("tests", tests, self.tasks, least=1)
        self._tasks = load_tasks(self.tasks)
        self.data_dir = None if data_dir is None else Path(data_dir).expanduser()
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise EditError(f"Downstream: `data_dir`: there is no folder {data_dir}.")
        self.too_long, self.generations = too_long, generations
        self._prepared: list[Prepared] = []
        self._writing_for: Any = None

    @property
    def active(self) -> bool:
        """Whether there are tasks."""
        return bool(self.tasks)

    def check(self, trainer: Any, module: EditingRun) -> None:
        """Reads the data and builds all prompts.

        Raises:
            EditError: If there are too few data, or a column is missing, or a question does not fit.
        """
        fitting = Fitting(module.tokenizer, module.decoder.context, self.too_long)
        self._prepared = []
        for task, shots, tests in zip(self._tasks, self.shots, self.tests, strict=True):
            try:
                table = self._read(task)
                self._prepared.append(task.prepare(table, shots, tests, fitting))
            except EditError as error:
                raise EditError(f"Downstream: {error}") from error
            fewer = [kept for kept in self._prepared[-1].shots if kept < shots]
            if fewer:
                logger.warning(
                    f"{task.name}: {len(fewer)} of {counted(tests, 'question')} have fewer than "
                    f"{counted(shots, 'shot')} (down to {min(fewer)}), as many as fit the model's context of "
                    f"{fitting.context} tokens."
                )

    def _read(self, task: Task) -> Table:
        # A task with a file of its own knows better than the folder that stands in for the hub.
        from_hub = task.data.file is None
        return read_folder(self.data_dir, task.name) if from_hub and self.data_dir is not None else task.data.read()

    def measure(self, trainer: Any, module: EditingRun) -> dict[str, float]:
        """All figures of all tasks."""
        figures: dict[str, float] = {}
        for number, task in enumerate(self._prepared):
            module.report("downstream (tasks)", number, len(self._prepared))
            measured = task.measure(module.decoder, module.tokenizer, silent)
            figures |= measured.figures
            if self.generations and trainer.is_global_zero and not trainer.fast_dev_run:
                self._write(trainer, module, measured.records)
        module.report("downstream (tasks)", len(self._prepared), len(self._prepared))
        return figures

    def on_test_end(self, trainer: Any, pl_module: EditingRun) -> None:
        """Measures the model that was tested, and shows the finished one."""
        super().on_test_end(trainer, pl_module)
        if self.active and pl_module.loop.edits_written and trainer.is_global_zero:
            terminal().print(table(pl_module.curves, [task.name for task in self._tasks]))

    def _write(self, trainer: Any, module: EditingRun, records: Sequence[dict[str, Any]]) -> None:
        edits = module.loop.edits_written + module.loop.queue.waiting
        others = [callback for callback in trainer.callbacks if isinstance(callback, Downstream)]
        # Callbacks of different cadence share the file; the first to write for a module begins it anew.
        begun = module.identity.resumed or any(callback._writing_for is module for callback in others)
        self._writing_for = module
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / FILE).open("a" if begun else "w", encoding="utf-8") as file:
            for record in records:
                file.write(to_json({"task": record["task"], "edits": edits, **record}, ensure_ascii=False) + "\n")


def load_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of some names.

    Args:
        names: Names of shipped tasks or paths of YAML files.

    Raises:
        EditError: If there is no such task, its file is not as it should be, or two have one name.
    """
    try:
        tasks = [load_task(name, TASKS) for name in names]
    except EditError as error:
        raise EditError(f"Downstream: `tasks`: {error}") from error
    for index, task in enumerate(tasks):
        if task.name in [other.name for other in tasks[:index]]:
            raise EditError(f"Downstream: `tasks` names {task.name} twice; the figures would have one name.")
    return tasks


def names_of(tasks: str | Sequence[str], owner: str) -> list[str]:
    """Names from a list or a text with commas.

    Args:
        tasks: The names.
        owner: Whose setting it is, for messages.

    Raises:
        EditError: If one is empty.
    """
    if not tasks:
        return []
    names = [name.strip() for name in (tasks.split(",") if isinstance(tasks, str) else tasks)]
    if not all(names):
        raise EditError(f"{owner}: `tasks` has an empty name: {tasks!r}.")
    return names


def numbers_for(setting: str, given: int | str | Sequence[int], tasks: Sequence[str], least: int) -> list[int]:
    """One number for each task from a number, a list or a text with commas.

    Args:
        setting: Its name, for messages.
        given: What the user gave.
        tasks: The tasks.
        least: The smallest number that makes sense.

    Raises:
        EditError: If these are no such numbers, or not as many as there are tasks.
    """
    parts = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int) else given
    try:
        numbers = [int(part) for part in parts]
    except ValueError as error:
        raise EditError(f"Downstream: `{setting}` must be numbers separated by commas, got {given!r}.") from error
    if any(number < least for number in numbers):
        raise EditError(f"Downstream: `{setting}` must be {least} or more, got {given!r}.")
    if len(numbers) == 1:
        return numbers * len(tasks)
    if tasks and len(numbers) != len(tasks):
        raise EditError(
            f"Downstream: `{setting}` has {counted(len(numbers), 'number')} ({', '.join(map(str, numbers))}) "
            f"for {counted(len(tasks), 'task')} ({', '.join(tasks)}). Give one for each, or one for all."
        )
    return numbers
