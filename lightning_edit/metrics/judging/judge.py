"""Right or wrong: by rule where that is clear, by what a judge said before, by a judge, and else by exact match."""

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal, NamedTuple

import torch

from lightning_edit.errors import EditError
from lightning_edit.messages import counted
from lightning_edit.metrics.judging.endpoint import Endpoint, NoReplyError, address
from lightning_edit.metrics.judging.local import LocalJudge
from lightning_edit.metrics.judging.prompt import verdict_of
from lightning_edit.metrics.judging.questions import Questions
from lightning_edit.metrics.judging.settings import JudgeSettings
from lightning_edit.metrics.wild.exact_match import exact_match
from lightning_edit.progress import Report, silent
from lightning_edit.storage.cache import Cache
from lightning_edit.storage.fingerprint import fingerprint

logger = logging.getLogger(__name__)

KIND = "judgement"
Verdicts = dict["Case", bool]


class Case(NamedTuple):
    """An answer to be judged.

    Args:
        question: What the model was asked.
        gold: The right answer.
        prediction: What it wrote.
    """

    question: str
    gold: str
    prediction: str


class Verdict(NamedTuple):
    """Whether an answer is right.

    Args:
        right: Whether it is.
        by: Who says so: the ``judge``; a ``rule``, as it is the right answer word for word, or one of both is empty;
            or ``exact match``, as the judge did not say.
    """

    right: bool
    by: Literal["judge", "rule", "exact match"]


class Judge:
    """Judges answers.

    Args:
        settings: The judge, of which there has to be one.

    Attributes:
        problem: Why the last question without an answer had none.
    """

    problem: str | None = None

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings, self._gave_up = settings, False
        self._cache = None if settings.cache_dir is None else Cache(settings.cache_dir)
        self._local: LocalJudge | None = None
        self._counts: Counter[str] = Counter()

    def check(self) -> None:
        """Asks the endpoint one question, so that a wrong key or name is known before anything is edited.

        Of a model on this machine it reads the configuration and the tokenizer.

        Raises:
            EditError: If there is no key, the endpoint refuses it, or does not know the model; or if there is no such
                model on this machine.
        """
        if self.settings.url is None:
            LocalJudge.check(str(self.settings.model))
            return
        endpoint = Endpoint(self.settings, threading.Event(), tries=1)
        try:
            endpoint(self._text(Case("What is the capital of France?", "Paris", "Paris")))
        except NoReplyError as error:
            if error.final:
                raise EditError(
                    f"`evaluation.judge`: {error}. Check `url`, `model` and the key that `key_variable` names."
                ) from None
            logger.warning("judge: %s. What it does not judge will be marked by exact match.", error)
        finally:
            endpoint.close()

    def reset(self) -> None:
        """Counts anew, and asks again a judge that had given up."""
        self._counts.clear()
        self.problem, self._gave_up = None, False

    def counts(self) -> dict[str, Any]:
        """How many answers were marked how since the last reset.

        Returns:
            ``judged``, of which ``from_cache``; ``by_rule``; ``exact_match``, of which the judge's reply was
            ``unreadable``; and the ``problem``, if there was none for another reason.
        """
        names = ("judged", "from_cache", "by_rule", "exact_match", "unreadable")
        return {**{name: self._counts[name] for name in names}, "problem": self.problem}

    def close(self) -> None:
        """Frees the memory of a judge on this machine."""
        self._local = None

    def __call__(
        self, cases: Sequence[Case], device: torch.device | str = "cpu", report: Report = silent
    ) -> list[Verdict]:
        """A verdict on each answer; equal ones are asked once.

        Args:
            cases: The answers.
            device: Where a judge on this machine is loaded.
            report: Called with the number of answers that the judge replied to.
        """
        clear = {case: _by_rule(case) for case in cases}
        asked = [case for case, verdict in clear.items() if verdict is None]
        judge = self._of_endpoint if self.settings.url is not None else self._of_local(torch.device(device), asked)
        model = str(self.settings.model) if self._local is None else self._local.name
        names = {case: self._name(model, case) for case in asked}
        known = self._remembered(names)
        new = judge([case for case in asked if case not in known], names, report)
        verdicts = [self._verdict(case, clear[case], known, new) for case in cases]
        self._counts["from_cache"] += sum(case in known for case in cases)
        return verdicts

    def _verdict(self, case: Case, clear: bool | None, known: Verdicts, new: Verdicts) -> Verdict:
        if clear is not None:
            self._counts["by_rule"] += 1
            return Verdict(clear, "rule")
        if case in known or case in new:
            self._counts["judged"] += 1
            return Verdict(known[case] if case in known else new[case], "judge")
        self._counts["exact_match"] += 1
        return Verdict(exact_match(case.prediction, case.gold), "exact match")

    def _text(self, case: Case) -> str:
        return self.settings.template.format(**case._asdict())

    def _name(self, model: str, case: Case) -> str:
        """What a judgement depends on; of an endpoint also its address, as local ones call any model what they like."""
        where = "" if self.settings.url is None else address(self.settings.url)
        settings = json.dumps([self.settings.arguments, self.settings.reply_tokens], sort_keys=True, default=str)
        return fingerprint("judgement 2", model, where, self.settings.template, settings, *case)

    def _remembered(self, names: Mapping[Case, str]) -> Verdicts:
        found = {} if self._cache is None else {case: self._cache.read(KIND, name) for case, name in names.items()}
        return {case: bool(kept["right"]) for case, kept in found.items() if kept is not None and "right" in kept}

    def _take(self, case: Case, name: str, reply: str | None, verdicts: Verdicts) -> None:
        """Keeps a reply at once: whatever happens next, it was paid for."""
        right = None if reply is None else verdict_of(reply)
        if right is None:
            self._counts["unreadable"] += 1
            return
        verdicts[case] = right
        if self._cache is not None:
            described = {"judge": str(self.settings.model), "answer": case.prediction[:80]}
            self._cache.write(KIND, name, {"right": torch.tensor(right)}, described)

    def _of_local(
        self, device: torch.device, asked: Sequence[Case]
    ) -> Callable[[Sequence[Case], Mapping[Case, str], Report], Verdicts]:
        if asked and self._local is None:
            self._local = LocalJudge.load(str(self.settings.model), device)

        def judge(cases: Sequence[Case], names: Mapping[Case, str], report: Report) -> Verdicts:
            verdicts: Verdicts = {}
            if self._local is not None:
                replies = self._local([self._text(case) for case in cases], self.settings.reply_tokens, report)
                for case, reply in zip(cases, replies, strict=True):
                    self._take(case, names[case], reply, verdicts)
            return verdicts

        return judge

    def _of_endpoint(self, cases: Sequence[Case], names: Mapping[Case, str], report: Report) -> Verdicts:
        verdicts: Verdicts = {}
        if not cases or self._gave_up:
            return verdicts
        questions = Questions(self.settings)
        with closing(questions.answers([self._text(case) for case in cases])) as answers:
            for done, (place, answer) in enumerate(answers, start=1):
                if isinstance(answer, NoReplyError):
                    self.problem = str(answer)
                else:
                    self._take(cases[place], names[cases[place]], answer, verdicts)
                report("judge (answers)", done, len(cases))
        report("judge (answers)", len(cases), len(cases))
        self._gave_up = questions.hopeless
        if self.problem is not None and len(verdicts) < len(cases):
            left = counted(len(cases) - len(verdicts), "answer is", "answers are")
            logger.warning("judge: %s; %s marked by exact match.", self.problem, left)
        return verdicts


def _by_rule(case: Case) -> bool | None:
    """Nobody has to be asked about an answer that is the right one, or about none, which is wrong."""
    if not (case.prediction.strip() and case.gold.strip()):
        return False
    return True if exact_match(case.prediction, case.gold) else None
