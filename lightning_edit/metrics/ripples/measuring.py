"""Asking what follows from edits: all tests of a set of records, before and after, in few batched passes."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lightning_edit.asking.chat import chat_of, informed_prompt
from lightning_edit.asking.tokenization import encode_prompt
from lightning_edit.distributed.process_group import in_shares
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, quoted
from lightning_edit.metrics.edit_metrics import has_failed
from lightning_edit.metrics.ripples.answers import Answering, Ask, Asked
from lightning_edit.metrics.ripples.figures import (
    COUNTED,
    EDIT_FAILED,
    FAILED,
    PASSED,
    UNANSWERED,
    UNMET,
    RippleMeans,
    ripple_figures,
)
from lightning_edit.metrics.settings import EvaluationSettings
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest, fact_of
from lightning_edit.ripples import Query, Ripple
from lightning_edit.stored_requests import filled

Entry = dict[str, Any]
Unedited = Callable[[], AbstractContextManager[Any]]


class RippleMetrics:
    """Asks the tests that records bring, see `Ripple`; nothing is asked where they bring none.

    The model is asked greedily, and the answers are scored by teacher forcing. By RippleEdits' rule (Cohen et al.,
    2023) a test counts only if the edited model gives the new target, the unedited one answered all of its conditions,
    and none of what it must not have known. A test of several edits needs the new targets of all of them, also of those
    that were measured in an earlier part, and all of them in the model that is asked.

    Args:
        settings: What is measured; with ``ripples: false`` nothing is.
    """

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Starts anew."""
        self._means, self._tests = RippleMeans(), dict[str, Counter[str]]()
        self._failed: set[tuple[str, str]] = set()

    def passes(self, requests: Sequence[EditRequest], edited: bool) -> int:
        """How many stages of work `measure` has, which report their progress.

        Args:
            requests: The edits.
            edited: Whether the model is edited.
        """
        if not self._settings.ripples or not any(request.ripples for request in requests):
            return 0
        return 4 if edited else 2

    def check(self, requests: Sequence[EditRequest], tokenizer: Any, context: int | None) -> None:
        """Refuses tests that could not be asked, before anything is edited.

        Args:
            requests: The edits.
            tokenizer: The model's fast tokenizer.
            context: The model's context in tokens, None where it has no fixed one.

        Raises:
            EditError: For the first whose prompt leaves no room for an answer.
        """
        if not self._settings.ripples or context is None or not filled(requests, "ripples"):
            return
        for request in requests:
            for prompt in dict.fromkeys(prompt for ripple in request.ripples for prompt in ripple.prompts):
                length = _length(tokenizer, prompt, context)
                if length < context:
                    continue
                raise EditError(
                    f"{request.name}: the prompt {quoted(prompt)} of a test has {counted(length, 'token')}, which "
                    f"leaves nothing of a context of {context} for an answer. Shorten it, remove the test, or set "
                    "`evaluation.ripples` to false."
                )

    def measure(
        self,
        decoder: Decoder,
        tokenizer: Any,
        requests: Sequence[EditRequest],
        records: Sequence[Entry],
        unedited: Unedited | None,
        report: Report = silent,
        made: Collection[tuple[str, str]] | None = None,
    ) -> None:
        """Asks edits' tests, and adds to each record under ``ripples`` what was found.

        That is a list with, for each test, ``axis``, ``kept``, ``said`` and ``exact`` (None where that cannot be said),
        on an edited model ``counted`` (one of `COUNTED`), and ``queries``, each with ``prompt``, ``text`` (the reply),
        ``answers`` (of each the usual form, ``log_prob``, ``tokens`` and ``tokens_correct``), ``right``, and where it
        should be kept ``before`` (the unedited model's reply) and ``unchanged`` (None where it is compared with a reply
        that is empty).

        Args:
            decoder: The model as it is now.
            tokenizer: Its fast tokenizer.
            requests: The edits, the same in every process.
            records: What `evaluate` said of each.
            unedited: Makes a context in which the model is as before editing; None if it is so already.
            report: See `evaluate`.
            made: What the edits are about that are in the model, see `fact_of`; None for all that were measured.

        Raises:
            EditError: If a prompt does not fit the model's context, or another process failed.
        """
        if self._settings.ripples and unedited is not None:
            # A test of a later part may need them.
            failed = (request for request, record in zip(requests, records, strict=True) if has_failed(record))
            self._failed.update(map(_plain_fact, failed))
        if not self.passes(requests, unedited is not None):
            return

        def ask(own: Sequence[EditRequest]) -> list[list[Entry]]:
            return _tests(Answering(decoder, tokenizer, self._settings.ripple_tokens, report), own, unedited)

        found = [tests for share in in_shares(ask, requests, decoder.model) for tests in share]
        for request, record, tests in zip(requests, records, found, strict=True):
            if not tests:
                continue
            for ripple, test in zip(request.ripples, tests, strict=True):
                passed, met = test.pop("passed"), test.pop("conditions_met")
                if unedited is not None:
                    missing = made is not None and any(fact not in made for fact in ripple.edits)
                    failed_edit = missing or has_failed(record) or not self._failed.isdisjoint(ripple.edits)
                    test["counted"] = _counted(met, passed, failed_edit)
            record["ripples"] = tests
            self._add(tests)

    def _add(self, tests: Sequence[Entry]) -> None:
        self._means.update(ripple_figures(tests), {test["axis"] for test in tests if test["kept"]})
        for test in tests:
            counts = self._tests.setdefault(test["axis"], Counter())
            counts[test.get("counted", "asked")] += 1
            counts[UNANSWERED] += any(query.get("unchanged", True) is None for query in test["queries"])

    def compute(self) -> dict[str, float]:
        """All figures, see `RippleMeans`."""
        return self._means.compute()

    def section(self) -> dict[str, Any]:
        """What became of the tests of each axis on the edited model, in numbers of tests.

        Of those that do not count as a condition is not met, some were `UNANSWERED`: the unedited model replied to them
        with nothing, which cannot be kept.
        """
        return {
            axis: {
                "tests": sum(counts[name] for name in COUNTED),
                **{name: counts[name] for name in (*COUNTED, UNANSWERED)},
            }
            for axis, counts in self._tests.items()
            if not counts["asked"]
        }


def _length(tokenizer: Any, prompt: str, context: int) -> int:
    """Tokens of a prompt as it is asked, or a larger number that fits the context too."""
    chat, asked = chat_of(tokenizer), informed_prompt(tokenizer, prompt)
    # A tokenizer makes no more tokens than there are bytes, but for one or two at the start.
    most = len((asked if chat is None else chat(asked)).encode()) + 2
    return most if most < context else len(encode_prompt(tokenizer, prompt))


def _plain_fact(request: EditRequest) -> tuple[str, str]:
    """What an edit is about as tests name it, which is not how a chat model is asked."""
    return fact_of(request.original or request)


def _counted(conditions_met: bool, passed: bool, edit_failed: bool) -> str:
    if not conditions_met:
        return UNMET
    return EDIT_FAILED if edit_failed else PASSED if passed else FAILED


def _tests(answering: Answering, requests: Sequence[EditRequest], unedited: Unedited | None) -> list[list[Entry]]:
    """For each edit what is found of its tests."""
    tests = [(request, ripple) for request in requests for ripple in request.ripples]
    now = answering(Ask.all_of((request, query) for request, ripple in tests for query in ripple.queries))
    before: Asked | None = None
    if unedited is not None:
        earlier = [(request, query) for request, ripple in tests for query in (*ripple.conditions, *ripple.unknown)]
        kept = [(request, query) for request, ripple in tests if ripple.kept for query in ripple.queries]
        with unedited():
            before = answering(Ask.all_of([*earlier, *kept], scored=kept))
    return [[_test(request, ripple, now, before) for ripple in request.ripples] for request in requests]


def _test(request: EditRequest, ripple: Ripple, now: Asked, before: Asked | None) -> Entry:
    queries = [_query(request, ripple, query, now, before) for query in ripple.queries]
    passes = all if ripple.passes == "all" else any
    answered = all(query.answers for query in ripple.queries)
    single = all(len(query.answers) == 1 for query in ripple.queries)
    test: Entry = {
        "axis": ripple.axis,
        "kept": ripple.kept,
        "conditions_met": True,
        "passed": passes(query["right"] for query in queries),
        "said": passes(query["right"] for query in queries) if answered else None,
        "exact": passes(query.pop("exact") for query in queries) if single else None,
        "queries": queries,
    }
    if before is not None:
        knew = [before.right(request, query) for query in ripple.conditions]
        knew += [query["unchanged"] is not None for query in queries if "unchanged" in query]
        test["conditions_met"] = all(knew) and not any(before.right(request, query) for query in ripple.unknown)
    return test


def _query(request: EditRequest, ripple: Ripple, query: Query, now: Asked, before: Asked | None) -> Entry:
    reply, answers = now.reply(request, query), now.scores(request, query)
    entry: Entry = {"prompt": query.prompt, "text": reply, "right": now.right(request, query)}
    entry["exact"] = now.exact(request, query)
    if answers:
        entry["answers"] = [{name: one[name] for name in one if name != "predicted"} for one in answers]
    if (share := now.rouge_l(request, query)) is not None:
        entry["rouge_l"] = share
    if ripple.kept and before is not None:
        entry["before"] = before.reply(request, query)
        if answers:
            agree = zip(answers, before.scores(request, query), strict=True)
            shares = [_agreement(one["predicted"], other["predicted"]) for one, other in agree]
            entry["unchanged"] = sum(shares) / len(shares)
        else:
            # Of no answer nothing can be kept, so the test does not count.
            entry["unchanged"] = same = now.same(request, query, before)
            entry["right"] = bool(same)
    return entry


def _agreement(now: Sequence[int], before: Sequence[int]) -> float:
    return sum(a == b for a, b in zip(now, before, strict=True)) / len(now)
