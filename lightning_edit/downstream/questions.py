"""Questions with several answers each, encoded once and scored as often as needed."""

import math
from collections.abc import Sequence
from typing import Any

from lightning_edit.asking.tokenization import encode_target
from lightning_edit.distributed.process_group import in_shares
from lightning_edit.downstream.few_shot import Question
from lightning_edit.downstream.figures import likeliest
from lightning_edit.downstream.task import Prepared
from lightning_edit.metrics.token_scores import score_tokens
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report


class PreparedQuestions(Prepared):
    """What tasks of labels and tasks of endings have in common.

    Args:
        name: Of the task.
        questions: The questions.
        tokenizer: The model's fast tokenizer.
    """

    def __init__(self, name: str, questions: Sequence[Question], tokenizer: Any) -> None:
        self.name, self.questions = name, questions
        self.right = [question.right for question in questions]
        self._encoded = [
            [encode_target(tokenizer, question.prompt, answer) for answer in question.answers] for question in questions
        ]

    @property
    def shots(self) -> list[int]:
        """How many shots each prompt holds."""
        return [question.shots for question in self.questions]

    def score(self, decoder: Decoder, report: Report) -> tuple[list[list[float]], list[int | None]]:
        """For each question -mean NLL over the tokens of each answer, in nats, and which answer is the likeliest.

        The scores are those of `score_targets`.

        Args:
            decoder: The model as it is now.
            report: Called with the number of tokens of this process's share that the model has read.
        """

        def score(own: Sequence[list[tuple[list[int], int]]]) -> list[list[float]]:
            texts, starts = zip(*(pair for question in own for pair in question), strict=True)
            tokens = score_tokens(decoder, texts, starts, report, f"{self.name} likelihood (tokens)")
            means = iter((tokens.sum(tokens.log_probs) / tokens.counts).tolist())
            return [[next(means) for _ in question] for question in own]

        scores = [row for share in in_shares(score, self._encoded, decoder.model) for row in share]
        return scores, [likeliest(row) for row in scores]

    def record(self, number: int, names: Sequence[Any], choice: int | None, scores: Sequence[float]) -> dict[str, Any]:
        """What is kept of one question; nothing was generated.

        Args:
            number: Index of the question.
            names: What its answers are called.
            choice: Index of the likeliest answer.
            scores: Log-probability of each answer.
        """
        question = self.questions[number]
        return {
            "task": self.name,
            "row": question.index,
            "shots": question.shots,
            "label": names[question.right],
            "generated": None,
            "parsed": None,
            "likelihood_choice": None if choice is None else names[choice],
            "log_probs": {str(n): None if math.isnan(s) else s for n, s in zip(names, scores, strict=True)},
        }
