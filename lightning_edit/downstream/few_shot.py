"""Few-shot prompts: solved examples in order, as many as fit, then the question."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_edit.asking.tokenization import encode, encode_prompt, encode_target
from lightning_edit.downstream.rows import Row, Table
from lightning_edit.downstream.task import Fitting
from lightning_edit.errors import EditError
from lightning_edit.messages import counted


@dataclass(frozen=True)
class Question:
    """A question to a model.

    Args:
        index: Number of its row, the few-shot pool included, from 0.
        prompt: The solved examples and the question.
        answers: What may follow, without leading space.
        right: Index of the right answer.
        shots: How many solved examples the prompt holds.
    """

    index: int
    prompt: str
    answers: tuple[str, ...]
    right: int
    shots: int


def split_rows(name: str, table: Table, pool: int, shots: int, tests: int) -> tuple[list[Row], list[tuple[int, Row]]]:
    """The rows for the shots and those to measure, the latter with their number.

    The first rows are the few-shot pool, the first of which are the shots; the rest is the test set.

    Args:
        name: Of the task.
        table: All rows.
        pool: How many rows belong to the pool.
        shots: How many of them are wanted.
        tests: How many rows of the test set are wanted.

    Raises:
        EditError: If there are fewer rows.
    """
    if shots > pool:
        raise EditError(f"`shots`: the few-shot pool of {name} has {counted(pool, 'row')}, got {shots}. Ask for fewer.")
    there = max(0, len(table) - pool)
    if tests > there:
        raise EditError(
            f"`tests`: {table.name} has {counted(there, 'row')} beside the few-shot pool of {pool}, but "
            f"{tests} are to be measured with the task {name}. Ask for fewer."
        )
    return [table[i] for i in range(shots)], [(i, table[i]) for i in range(pool, pool + tests)]


def fit_shots(
    question: str, shots: Sequence[str], answers: Sequence[str], new_tokens: int, fitting: Fitting, where: str
) -> tuple[str, int]:
    """The question after as many of the shots as fit the model's context, the first ones first.

    Args:
        question: The question, ready for an answer.
        shots: Solved examples, each with what separates it from the next.
        answers: What may follow; each must fit.
        new_tokens: How many tokens will be generated; they must fit too.
        fitting: Tokenizer and context.
        where: Task and row, for messages.

    Returns:
        The prompt, and how many shots it holds.

    Raises:
        EditError: If the question alone does not fit and may not be cut.
    """
    for kept in range(len(shots), -1, -1):
        prompt = "".join(shots[:kept]) + question
        needed = _tokens(prompt, answers, new_tokens, fitting)
        if fitting.context is None or needed <= fitting.context:
            return prompt, kept
    if fitting.too_long == "cut":
        return _cut(question, answers, new_tokens, fitting, where), 0
    raise EditError(
        f"{where}: the question and its answer have {needed} tokens even without shots, but the model's context holds "
        f"{fitting.context}. Leave the task out, or set `too_long: cut` to leave out the beginning of such questions."
    )


def _tokens(prompt: str, answers: Sequence[str], new_tokens: int, fitting: Fitting) -> int:
    """Context that a prompt needs with what follows it; the last token of an answer is predicted and never read."""
    generated = len(encode_prompt(fitting.tokenizer, prompt)) + new_tokens
    return max([generated, *(len(encode_target(fitting.tokenizer, prompt, answer)[0]) - 1 for answer in answers)])


def _cut(question: str, answers: Sequence[str], new_tokens: int, fitting: Fitting, where: str) -> str:
    assert fitting.context is not None
    while (over := _tokens(question, answers, new_tokens, fitting) - fitting.context) > 0:
        # A leading special token comes back with every encoding; what counts is the text's own tokens.
        starts = [start for start, end in encode(fitting.tokenizer, question)[1] if end > 0]
        later = sorted({start for start in starts[over:] if start > 0})
        if not later:
            raise EditError(f"{where}: an answer alone is longer than the model's context of {fitting.context} tokens.")
        question = question[later[0] :]
    return question


def check_answers(name: str, prompt: str, answers: Sequence[str], fitting: Fitting) -> None:
    """Refuses answers of which the tokenizer leaves nothing.

    Args:
        name: Of the task.
        prompt: A question.
        answers: The answers.
        fitting: The tokenizer.

    Raises:
        EditError: For the first such answer.
    """
    for answer in answers:
        try:
            encode_target(fitting.tokenizer, prompt, answer)
        except EditError as error:
            raise EditError(f"{name}: the answer {answer!r} has no token of its own with this tokenizer.") from error
