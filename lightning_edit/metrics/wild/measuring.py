"""WILD's protocol on a set of edits: free answers, marked right or wrong."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

from lightning_edit.asking.chat import ChatSettings
from lightning_edit.asking.generation import generate
from lightning_edit.distributed.process_group import by_first, in_shares
from lightning_edit.messages import counted
from lightning_edit.metrics.judging.judge import Case, Judge
from lightning_edit.metrics.judging.settings import JudgeSettings
from lightning_edit.metrics.record_means import RecordMeans
from lightning_edit.metrics.wild.asked import Asked, Asking
from lightning_edit.metrics.wild.exact_match import NORMALIZATION, exact_match
from lightning_edit.metrics.wild.settings import WildSettings
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest

logger = logging.getLogger(__name__)

Entry = dict[str, Any]
Unedited = Callable[[], AbstractContextManager[Any]]
LOCALITY = "locality"
MEASURES = ("reliability", "generalization", LOCALITY)
EXACT, JUDGED = "wild_exact", "wild_judged"
FIGURES = tuple(f"{scored}_{measure}" for scored in (EXACT, JUDGED) for measure in MEASURES)


class WildMeans(RecordMeans):
    """Means over records of reliability, generalization and locality, by exact match and by a judge.

    Example:
        >>> means = WildMeans()
        >>> means.update({"wild_exact_reliability": 1.0})
        >>> means.update({"wild_exact_reliability": 0.0})
        >>> float(means.compute()["wild_exact_reliability"])
        0.5
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(FIGURES, **kwargs)

    def update(self, figures: Mapping[str, float]) -> None:
        """Adds one record.

        Args:
            figures: See `wild_figures`.
        """
        self._add(figures)


def wild_figures(found: Mapping[str, Sequence[Entry]]) -> dict[str, float]:
    """The figures of one record: the shares of its answers that are right.

    Args:
        found: Under each of `MEASURES` that the record has prompts for, an entry for each answer, with ``exact`` and,
            where there is a judge, ``judged``.
    """
    return {
        f"wild_{scored}_{measure}": sum(entry[scored] for entry in entries) / len(entries)
        for measure, entries in found.items()
        for scored in ("exact", "judged")
        if entries and scored in entries[0]
    }


class WildMetrics:
    """Asks edits freely, as WILD does, and marks the answers.

    Answers are greedy and end by themselves (see `WildSettings`). *Reliability* is the share of edited prompts that are
    answered with the new target, *generalization* that of other wordings, and *locality* the share of unrelated prompts
    that are answered as the unedited model answers them; those that it answers with nothing are left out. Each is
    marked by `exact_match`, and by a judge where there is one.

    Args:
        asking: How edits are asked; None measures nothing.
        judge: Who marks the answers beside exact match; None for nobody.
    """

    def __init__(self, asking: Asking | None = None, judge: JudgeSettings | None = None) -> None:
        self._asking, self._means = asking, WildMeans(sync_on_compute=False)
        self._judge = None if judge is None or judge.model is None or asking is None else Judge(judge)
        self._answers, self._left_out, self._marked = 0, 0, dict[str, Any]()

    @classmethod
    def of_run(
        cls, tokenizer: Any, wild: WildSettings | None, judge: JudgeSettings, chat: ChatSettings
    ) -> "WildMetrics":
        """What a run measures.

        Args:
            tokenizer: That of the run.
            wild: How answers are asked for; None measures nothing.
            judge: Who marks them.
            chat: How a chat is asked.

        Raises:
            EditError: See `Asking.of_run`.
        """
        return cls() if wild is None else cls(Asking.of_run(tokenizer, wild, chat), judge)

    @property
    def protocol(self) -> dict[str, Any]:
        """What figures depend on beside model and records; empty where nothing is measured.

        The endpoint's key is not part of it, nor is its address.
        """
        if self._asking is None:
            return {}
        asked = {**asdict(self._asking.settings), "input": self._asking.form, "decoding": "greedy"}
        protocol = {**asked, "exact_match": NORMALIZATION, "judge": None}
        if self._judge is not None:
            settings = self._judge.settings
            protocol["judge"] = {
                "model": str(settings.model),
                "prompt": settings.template,
                "reply_tokens": settings.reply_tokens,
                "arguments": settings.arguments,
            }
        return protocol

    def passes(self, requests: Sequence[EditRequest], edited: bool) -> int:
        """How many stages of work `measure` has, which report their progress.

        Args:
            requests: The edits.
            edited: Whether the model is edited.
        """
        if self._asking is None:
            return 0
        compared = edited and any(self._asking.asked(request).unrelated for request in requests)
        return 1 + compared + (self._judge is not None)

    def check(self, requests: Sequence[EditRequest], context: int | None) -> None:
        """Refuses what could not be measured, before anything is edited.

        Args:
            requests: The edits.
            context: The model's context in tokens, None where it has no fixed one.

        Raises:
            EditError: See `Asking.check` and `Judge.check`.
        """
        if self._asking is None:
            return
        self._asking.check(requests, context)
        stopped = [r for r in requests if any(stop in r.target_new for stop in self._asking.settings.stop)]
        if stopped and self._judge is None:
            logger.warning(
                "wild: %s a text at which answers end (`evaluation.wild_settings.stop`), the first is %s: exact match "
                "never finds such a target.",
                counted(len(stopped), "target holds", "targets hold"),
                stopped[0].name,
            )
        if self._judge is None and self._asking.form == "chat":
            logger.warning(
                "wild: in a chat a model answers in sentences, and exact match wants the bare answer; "
                "`evaluation.judge.model` names a judge, who understands both."
            )
        if self._judge is not None:
            by_first(self._judge.check)

    def reset(self) -> None:
        """Starts anew."""
        self._means.reset()
        self._answers, self._left_out, self._marked = 0, 0, {}
        if self._judge is not None:
            self._judge.reset()

    def measure(
        self,
        decoder: Decoder,
        requests: Sequence[EditRequest],
        records: Sequence[dict[str, Any]],
        unedited: Unedited | None,
        report: Report = silent,
    ) -> None:
        """Asks edits, and adds to each record under ``wild`` what was answered and how it was marked.

        Args:
            decoder: The model as it is now.
            requests: The edits as the run asks them, the same in every process.
            records: What `evaluate` said of each.
            unedited: Makes a context in which the model is as before editing; None if it is so already.
            report: See `evaluate`.

        Raises:
            EditError: If a prompt does not fit the model's context, or another process failed.
        """
        asking = self._asking
        if asking is None:
            return

        def answer(own: Sequence[Asked]) -> list[dict[str, list[Entry]]]:
            return _answers(decoder, asking, own, unedited, report)

        asked = [asking.asked(request) for request in requests]
        found = [one for share in in_shares(answer, asked, decoder.model) for one in share]
        entries = [entry for one in found for part in one.values() for entry in part]
        self._answers += len(entries)
        self._left_out += sum(
            len(one.unrelated) - len(part.get(LOCALITY, ())) for one, part in zip(asked, found, strict=True)
        )
        if self._judge is not None:
            self._mark(entries, decoder, report)
        for record, one in zip(records, found, strict=True):
            record["wild"] = one
            self._means.update(wild_figures(one))

    def _mark(self, entries: Sequence[Entry], decoder: Decoder, report: Report) -> None:
        """Lets the first process ask the judge, so that no question is asked twice."""
        judge = self._judge
        assert judge is not None
        cases = [Case(entry["prompt"], entry["gold"], entry["text"]) for entry in entries]

        verdicts, self._marked = by_first(lambda: (judge(cases, decoder.device, report), judge.counts()))
        for entry, verdict in zip(entries, verdicts, strict=True):
            entry |= {"judged": verdict.right, "by": verdict.by}

    def compute(self) -> dict[str, float]:
        """All figures; none where nothing is measured."""
        if self._asking is None:
            return {}
        return {name: float(value) for name, value in self._means.compute().items()}

    def section(self, stage: str) -> dict[str, Any]:
        """What ``metrics.json`` says of a stage beside its figures; a judge on this machine is let go.

        Args:
            stage: ``before`` or ``after``.

        Returns:
            The ``protocol``, and under the stage how many ``answers`` there were, how many unrelated prompts were
            ``left_out`` as the unedited model answers them with nothing, and how the judge marked the answers; empty
            where nothing is measured.
        """
        if self._asking is None:
            return {}
        if self._judge is not None:
            self._judge.close()
        return {
            "protocol": self.protocol,
            stage: {"answers": self._answers, "left_out": self._left_out, **self._marked},
        }


def _answers(
    decoder: Decoder, asking: Asking, asked: Sequence[Asked], unedited: Unedited | None, report: Report
) -> list[dict[str, list[Entry]]]:
    """For each edit its answers under each of `MEASURES`, marked by exact match.

    An unrelated prompt that the unedited model answers with nothing, such as a new line at once, is left out: that no
    more is said after an edit does not mean that anything was kept.
    """

    def write(prompts: Sequence[str]) -> dict[str, str]:
        distinct = list(dict.fromkeys(prompts))
        settings = asking.settings
        how: dict[str, Any] = {"until": settings.stop, "report": report}
        return dict(
            zip(distinct, generate(decoder, asking.tokenizer, distinct, settings.new_tokens, **how), strict=True)
        )

    unrelated = [prompt for one in asked for prompt in one.unrelated]
    texts = write([prompt for one in asked for prompt in (*one.edited, *one.unrelated)])
    before = texts
    if unedited is not None and unrelated:
        with unedited():
            before = write(unrelated)

    def entry(prompt: str, gold: str) -> Entry:
        text = texts[prompt].strip()
        return {"prompt": prompt, "text": text, "gold": gold, "exact": exact_match(text, gold)}

    found = []
    for one in asked:
        parts = (
            [entry(one.prompt, one.target)],
            [entry(prompt, one.target) for prompt in one.paraphrases],
            [entry(prompt, gold) for prompt in one.unrelated if (gold := before[prompt].strip())],
        )
        found.append({measure: part for measure, part in zip(MEASURES, parts, strict=True) if part})
    return found
