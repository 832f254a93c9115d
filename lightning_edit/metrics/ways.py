"""Further ways to ask what a chat is asked: in plain text, and under other system prompts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_edit.asking.chat import (
    ChatSettings,
    ChatTokenizer,
    chat_format,
    chat_of,
    in_plain_text,
    plain_tokenizer,
)
from lightning_edit.asking.tokenization import check_lengths, encode_target, separator_before
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.metrics.edit_metrics import KINDS, EditMetrics
from lightning_edit.metrics.evaluation import evaluate
from lightning_edit.metrics.settings import TEACHER_FORCED, EvaluationSettings
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest

PLAIN, SYSTEM = "plain", "system"
_NAMED = re.compile(rf"({PLAIN}|{SYSTEM}_\d+)_(.+)")


@dataclass(frozen=True)
class Way:
    """One way to ask.

    Args:
        name: With which its figures begin: ``plain``, or ``system_1`` and so on.
        tokenizer: A transformers tokenizer or a `ChatTokenizer`, which puts prompts into this form.
    """

    name: str
    tokenizer: Any

    def asked(self, request: EditRequest) -> EditRequest:
        """An edit with the prompts that are asked in this way: in plain text all kinds, else the edited prompt.

        Args:
            request: The edit as it is asked in the chat.
        """
        if self.name == PLAIN:
            return replace(request.original or request, attribute_prompts=(), locality=())
        return replace(request, paraphrase_prompts=(), neighborhood_prompts=(), attribute_prompts=(), locality=())


def ways_of(tokenizer: Any, settings: EvaluationSettings, chat: ChatSettings) -> list[Way]:
    """The ways in which the edits of a run are asked beside its own.

    Args:
        tokenizer: That of the run.
        settings: What is measured.
        chat: How the chat is asked.

    Returns:
        None in plain text.

    Raises:
        EditError: If there are system prompts and no chat, or the template knows no system prompt.
    """
    if chat_of(tokenizer) is None:
        if settings.systems:
            raise EditError(
                "`evaluation.systems` are system prompts of a chat, and this run is in plain text. Leave them out, or "
                "edit a model whose tokenizer has a chat template."
            )
        return []
    plain, informed = plain_tokenizer(tokenizer), tokenizer.informed
    ways = [Way(PLAIN, in_plain_text(tokenizer))] if settings.worlds is None or "plain" in settings.worlds else []
    for number, system in enumerate(settings.systems or (), start=1):
        ways.append(
            Way(f"{SYSTEM}_{number}", ChatTokenizer(plain, chat_format(plain, system, chat.arguments), informed))
        )
    return ways


def way_of(name: str) -> tuple[str, str]:
    """The way of a figure, empty for the run's own, and the figure.

    Args:
        name: A name in ``metrics.json``.

    Example:
        >>> way_of("plain_efficacy_score"), way_of("S")
        (('plain', 'efficacy_score'), ('', 'S'))
    """
    match = _NAMED.fullmatch(name)
    return ("", name) if match is None else (match[1], match[2])


def in_words(way: str) -> str:
    """A way as a reader knows it.

    Args:
        way: Its name.
    """
    return "plain text" if way == PLAIN else f"system prompt {way.rpartition('_')[2]}"


class WayMetrics:
    """Measures edits in further ways, by teacher forcing alone.

    Args:
        ways: See `ways_of`.
    """

    def __init__(self, ways: Sequence[Way] = ()) -> None:
        self._ways = [(way, EditMetrics(sync_on_compute=False)) for way in ways]

    def __len__(self) -> int:
        return len(self._ways)

    def check(self, requests: Sequence[EditRequest], context: int | None) -> None:
        """Refuses ways in which an edited prompt does not fit, such as under a long system prompt.

        Args:
            requests: The edits.
            context: The model's context in tokens, None where it has no fixed one.

        Raises:
            EditError: For the first that does not fit.
        """
        for way, _ in self._ways:
            name = f"Under {in_words(way.name)}" if way.name != PLAIN else "In plain text"
            for request in map(way.asked, requests):
                prompt, target = request.rewrite_prompt, request.target_new
                ids = encode_target(way.tokenizer, prompt, target, separator_before(request, prompt, target))[0]
                check_lengths([len(ids) - 1], [f"{name}, the prompt {quoted(prompt)}"], context)

    def reset(self) -> None:
        """Starts anew."""
        for _, metrics in self._ways:
            metrics.reset()

    def measure(
        self,
        decoder: Decoder,
        requests: Sequence[EditRequest],
        records: Sequence[dict[str, Any]],
        report: Report = silent,
    ) -> None:
        """Measures edits in each way, and adds to each record what was found, under the name of the way.

        Args:
            decoder: The model as it is now.
            requests: The edits as they are asked in the chat, the same in every process.
            records: What `evaluate` said of each.
            report: See `evaluate`.

        Raises:
            EditError: See `evaluate`.
        """
        for way, metrics in self._ways:
            asked = [way.asked(request) for request in requests]
            measured = evaluate(decoder, way.tokenizer, asked, metrics, TEACHER_FORCED, report=report)
            for record, found in zip(records, measured, strict=True):
                record[way.name] = {kind: found[kind] for kind in KINDS if kind in found}

    def compute(self) -> Mapping[str, float]:
        """All figures, each with the name of its way before its own."""
        return {
            f"{way.name}_{name}": float(value)
            for way, metrics in self._ways
            for name, value in metrics.compute().items()
        }
