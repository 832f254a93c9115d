"""Tasks of labeled prompts: the model is to name the label, in its own words and by likelihood."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.asking.generation import generate
from lightning_edit.asking.tokenization import join_target
from lightning_edit.distributed.process_group import in_shares
from lightning_edit.downstream.few_shot import Question, check_answers, fit_shots, split_rows
from lightning_edit.downstream.figures import choice_figures
from lightning_edit.downstream.questions import PreparedQuestions
from lightning_edit.downstream.rows import Row, Table
from lightning_edit.downstream.task import Fitting, Measured, Task
from lightning_edit.downstream.templates import check_template, fill
from lightning_edit.errors import EditError
from lightning_edit.metrics.choices import find_answer
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report
from lightning_edit.settings import CountOrZero

NEW_TOKENS = 3


@dataclass(frozen=True, kw_only=True)
class LabelTask(Task):
    """Questions whose answer is one of a few words.

    Args:
        name: See `Task`.
        data: See `Task`.
        prompt: Template of a question with columns in braces, e.g. ``{sentence}`` or ``{choices[0]}``.
        label: The column that holds the label.
        answers: For each label the word that the model is to say; several labels may share a word.
        pool: How many of the first rows are kept for shots and never measured.
        separator: What stands between a solved example and what follows.
    """

    prompt: str
    label: str
    answers: dict[str, str]
    pool: CountOrZero = 10
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        check_template("prompt", self.prompt)
        words = self.words
        if len(words) < 2 or any(not word.strip() for word in words):
            raise EditError(f"`answers` must name at least two words, got {dict(self.answers)}.")
        if len({word.lower() for word in words}) < len(words):
            raise EditError(f"`answers`: words that differ only in case cannot be told apart: {', '.join(words)}.")

    @property
    def words(self) -> tuple[str, ...]:
        """The different answers."""
        return tuple(dict.fromkeys(self.answers.values()))

    def prepare(self, table: Table, shots: int, tests: int, fitting: Fitting) -> "PreparedLabels":
        """See `Task.prepare`."""
        examples, rows = split_rows(self.name, table, self.pool, shots, tests)
        solved = [
            join_target(fill(self.prompt, row), self.words[self._right(row)]) + self.separator for row in examples
        ]
        check_answers(self.name, fill(self.prompt, rows[0][1]), self.words, fitting)
        questions = []
        for index, row in rows:
            place = f"{self.name}: {row.where}"
            prompt, kept = fit_shots(fill(self.prompt, row), solved, self.words, NEW_TOKENS, fitting, place)
            questions.append(Question(index, prompt, self.words, self._right(row), kept))
        return PreparedLabels(self.name, questions, fitting.tokenizer)

    def _right(self, row: Row) -> int:
        label = str(row[self.label])
        if label not in self.answers:
            raise EditError(
                f"{row.where}: `{self.label}` is {label!r}, but the task {self.name} has answers for "
                f"{', '.join(map(repr, self.answers))}."
            )
        return self.words.index(self.answers[label])


class PreparedLabels(PreparedQuestions):
    """Questions with label words, ready to be asked."""

    def measure(self, decoder: Decoder, tokenizer: Any, report: Report) -> Measured:
        """Asks all questions twice: what the model writes, and which answer it finds likeliest."""

        def renamed(stage: str, done: float, total: float, **figures: float) -> None:
            report(f"{self.name} generated (rows)", done, total, **figures)

        def write(own: Sequence[str]) -> list[str]:
            return generate(decoder, tokenizer, own, NEW_TOKENS, report=renamed)

        words = self.questions[0].answers
        prompts = [question.prompt for question in self.questions]
        texts = [text for share in in_shares(write, prompts, decoder.model) for text in share]
        parsed = [find_answer(text, words) for text in texts]
        scores, chosen = self.score(decoder, report)
        generated, likelihood = (choice_figures(answers, self.right, len(words)) for answers in (parsed, chosen))
        figures = {f"generated_{name}": value for name, value in generated.items()}
        figures["invalid"] = sum(answer is None for answer in parsed) / len(parsed)
        figures |= {f"likelihood_{name}": value for name, value in likelihood.items()}
        records = [
            self.record(number, words, chosen[number], scores[number])
            | {"generated": text, "parsed": None if answer is None else words[answer]}
            for number, (text, answer) in enumerate(zip(texts, parsed, strict=True))
        ]
        return Measured({f"downstream/{self.name}/{name}": value for name, value in figures.items()}, records)
