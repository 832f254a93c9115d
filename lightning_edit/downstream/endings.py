"""Tasks of endings: which of several texts the model finds the likeliest to go on with."""

from dataclasses import dataclass
from typing import Any

from lightning_edit.asking.tokenization import join_target
from lightning_edit.downstream.few_shot import Question, check_answers, fit_shots, split_rows
from lightning_edit.downstream.figures import choice_figures
from lightning_edit.downstream.questions import PreparedQuestions
from lightning_edit.downstream.rows import Row, Table
from lightning_edit.downstream.task import Fitting, Measured, Task
from lightning_edit.downstream.templates import check_template, fill
from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report
from lightning_edit.settings import CountOrZero


@dataclass(frozen=True, kw_only=True)
class EndingTask(Task):
    """Beginnings of texts, each with several endings of its own.

    Args:
        name: See `Task`.
        data: See `Task`.
        prompt: Template of the beginning with columns in braces.
        endings: The column with the list of endings.
        label: The column with the number of the right one, from 0.
        pool: How many of the first rows are kept for shots and never measured.
        separator: What stands between a complete text and what follows.
    """

    prompt: str
    endings: str
    label: str
    pool: CountOrZero = 10
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        check_template("prompt", self.prompt)

    def prepare(self, table: Table, shots: int, tests: int, fitting: Fitting) -> "PreparedEndings":
        """See `Task.prepare`."""
        examples, rows = split_rows(self.name, table, self.pool, shots, tests)
        solved = []
        for row in examples:
            endings, right = self._endings(row)
            solved.append(join_target(fill(self.prompt, row), endings[right]) + self.separator)
        questions = []
        for index, row in rows:
            (endings, right), beginning = self._endings(row), fill(self.prompt, row)
            place = f"{self.name}: {row.where}"
            check_answers(place, beginning, endings, fitting)
            prompt, kept = fit_shots(beginning, solved, endings, 0, fitting, place)
            questions.append(Question(index, prompt, endings, right, kept))
        return PreparedEndings(self.name, questions, fitting.tokenizer)

    def _endings(self, row: Row) -> tuple[tuple[str, ...], int]:
        endings, label = row[self.endings], str(row[self.label])
        if not isinstance(endings, list) or len(endings) < 2 or any(not str(ending).strip() for ending in endings):
            raise EditError(f"{row.where}: `{self.endings}` must be a list of two or more endings, got {endings!r}.")
        if label not in map(str, range(len(endings))):
            raise EditError(
                f"{row.where}: `{self.label}` must be the number of an ending, 0 to {len(endings) - 1}, got {label!r}."
            )
        return tuple(str(ending).strip() for ending in endings), int(label)


class PreparedEndings(PreparedQuestions):
    """Beginnings and endings, ready to be scored."""

    def measure(self, decoder: Decoder, tokenizer: Any, report: Report) -> Measured:
        """Chooses the ending of the highest length-normalized likelihood for each beginning."""
        scores, chosen = self.score(decoder, report)
        figures = choice_figures(chosen, self.right, max(len(row) for row in scores))
        records = [self.record(i, range(len(row)), chosen[i], row) for i, row in enumerate(scores)]
        return Measured({f"downstream/{self.name}/likelihood_{name}": v for name, v in figures.items()}, records)
