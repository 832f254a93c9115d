"""What is measured of each variant: the same as in the run, on the same records, and perplexity beside it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from lightning_edit.asking.chat import ChatSettings, plain_tokenizer
from lightning_edit.metrics import EditMetrics, EvaluationSettings, check_evaluation, evaluate
from lightning_edit.metrics.edit_metrics import has_failed
from lightning_edit.metrics.judging.settings import JudgeSettings
from lightning_edit.metrics.perplexity import perplexity
from lightning_edit.metrics.ripples.measuring import RippleMetrics
from lightning_edit.metrics.ways import WayMetrics, ways_of
from lightning_edit.metrics.wild.measuring import WildMetrics
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, share_of, silent
from lightning_edit.requests import EditRequest
from lightning_edit.survival.text import joined

Unedited = Callable[[], AbstractContextManager[Any]]
# Figures of what is compared with the unedited model, which is not there beside a quantized one.
COMPARED = ("wild_exact_locality", "wild_judged_locality", "ripple_")
BAR = "measure {} (records)"


@dataclass(frozen=True)
class Measured:
    """What was found of a variant.

    Args:
        figures: As ``metrics.json`` has them, and ``perplexity``.
        answers: Of each record ``case_id``, ``said``, whether the model gives the new answer, and its ``text`` where it
            was asked to write one.
    """

    figures: dict[str, float]
    answers: list[dict[str, Any]]


class Measures:
    """Measures the records of a run as the run does; a judge is not asked again.

    Args:
        tokenizer: That of the run: of a chat, a `ChatTokenizer`.
        requests: The records as the run asks them.
        evaluation: What the run measures.
        chat: How its chat is asked.
        batch_size: Records at once.
        held_out: Ordinary text for perplexity; none measures none.
    """

    def __init__(
        self,
        tokenizer: Any,
        requests: Sequence[EditRequest],
        evaluation: EvaluationSettings,
        chat: ChatSettings,
        batch_size: int = 256,
        held_out: Sequence[str] = (),
    ) -> None:
        self.tokenizer, self.requests, self.chat = tokenizer, requests, chat
        self.evaluation = replace(evaluation, judge=JudgeSettings())
        self._batch_size, self.held_out = batch_size, held_out

    def check(self, context: int | None) -> None:
        """Refuses records that cannot be measured with this model.

        Args:
            context: The model's context in tokens, None where it has no fixed one.

        Raises:
            EditError: See `check_evaluation`.
        """
        check_evaluation(self.evaluation, self.requests, self.tokenizer, context)

    def measure(
        self, decoder: Decoder, name: str, unedited: Unedited | None, is_base: bool = False, report: Report = silent
    ) -> Measured:
        """Measures a model.

        Args:
            decoder: The model.
            name: That of the variant, for the progress.
            unedited: Makes a context in which the model is as before editing; None where there is none.
            is_base: Whether the model is the unedited one.
            report: Called with the number of records done.
        """
        settings = self.evaluation
        metrics, ripples = EditMetrics(sync_on_compute=False), RippleMetrics(settings)
        ways = WayMetrics(ways_of(self.tokenizer, settings, self.chat))
        wild = WildMetrics.of_run(
            self.tokenizer, settings.wild_settings if settings.wild else None, settings.judge, self.chat
        )
        records: list[dict[str, Any]] = []
        passes = 6 + len(ways)
        for start in range(0, len(self.requests), self._batch_size):
            part = self.requests[start : start + self._batch_size]
            step = share_of(report, BAR.format(name), start, len(part), len(self.requests), passes)
            found = evaluate(decoder, self.tokenizer, part, metrics, settings, unedited, step)
            ways.measure(decoder, part, found, step)
            wild.measure(decoder, part, found, unedited, step)
            ripples.measure(decoder, self.tokenizer, part, found, unedited, step)
            records += found
        report(BAR.format(name), len(self.requests), len(self.requests))
        figures = {key: float(value) for key, value in metrics.compute().items()}
        figures |= dict(ways.compute()) | wild.compute() | ripples.compute()
        if unedited is None and not is_base:
            figures = {key: value for key, value in figures.items() if not key.startswith(COMPARED)}
        if self.held_out:
            texts = list(joined(self.held_out))
            figures["perplexity"] = perplexity(decoder, plain_tokenizer(self.tokenizer), texts, report=report)
        return Measured(figures, [_answer(record) for record in records])


def _answer(record: dict[str, Any]) -> dict[str, Any]:
    names = ("case_id", "subject", "prompt", "target_new")
    text = {"text": record["continuation"]} if "continuation" in record else {}
    return {**{name: record[name] for name in names}, "said": not has_failed(record), **text}
