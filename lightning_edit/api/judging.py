"""Edits made without a trainer, judged as people judge: one function."""

from contextlib import nullcontext
from typing import Any

from lightning_edit.api.result import EditResult
from lightning_edit.asking.chat import ChatSettings
from lightning_edit.errors import EditError
from lightning_edit.metrics.judging.settings import JudgeSettings
from lightning_edit.metrics.wild.measuring import WildMetrics
from lightning_edit.metrics.wild.settings import WildSettings
from lightning_edit.progress import ProgressBars, silent


def judged(
    result: EditResult, wild: WildSettings | None = None, judge: JudgeSettings | None = None, progress: bool = True
) -> dict[str, Any]:
    """Asks a model freely before and after its edits, and marks each answer right or wrong, by WILD's protocol.

    The model is left as it was found.

    Args:
        result: What `edit` returned.
        wild: How answers are asked for.
        judge: A model that marks them; without one, exact match alone does.
        progress: Whether to show progress bars.

    Returns:
        Figures under ``before`` and ``after``; under ``records`` for each edit the answers after it, each with
        ``prompt``, ``text``, ``gold``, ``exact`` and, with a judge, ``judged``; and under ``wild`` the protocol and how
        answers were marked, all as in ``metrics.json`` and ``records.jsonl``.

    Raises:
        EditError: If a prompt leaves no room for an answer, the judge refuses, or the model was edited again since.
    """
    requests, decoder = list(result.requests), result.decoder
    if not requests:
        raise EditError("`result` knows no edits to ask about; give what `lightning_edit.edit` returned.")
    metrics = WildMetrics.of_run(result.tokenizer, wild or WildSettings(), judge or JudgeSettings(), ChatSettings())
    metrics.check(requests, decoder.context)
    measured: dict[str, Any] = {"wild": {}}
    with ProgressBars() if progress else nullcontext(silent) as report:
        for stage in ("before", "after"):
            metrics.reset()
            records: list[dict[str, Any]] = [{} for _ in requests]
            with result.as_made(stage == "after") as instead:
                unedited = None if stage == "before" else lambda: instead(False)
                metrics.measure(decoder, requests, records, unedited, report)
            measured[stage], measured["records"] = metrics.compute(), [record["wild"] for record in records]
            measured["wild"] |= metrics.section(stage)
    return measured
