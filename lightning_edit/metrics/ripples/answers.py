"""What a model replies to queries, and how likely it finds their answers; each prompt is asked once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.asking.generation import generate
from lightning_edit.asking.room import room_of
from lightning_edit.asking.tokenization import separator_before, without_special
from lightning_edit.metrics.edit_metrics import LONG
from lightning_edit.metrics.generated_text import rouge_l
from lightning_edit.metrics.ripples.judging import chooses, is_exactly, reply_of, says_all
from lightning_edit.metrics.token_scores import score_targets
from lightning_edit.metrics.wild.exact_match import exact_match
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report
from lightning_edit.requests import EditRequest
from lightning_edit.ripples import Query
from lightning_edit.sentences import first_sentence

# A prompt, its answer, and what stands between them (None for what is usual).
Pair = tuple[str, str, str | None]
Of = tuple[EditRequest, Query]


@dataclass(frozen=True)
class Ask:
    """What is asked in one go.

    Args:
        queries: Each with the edit that brings it.
        scored: Those of them whose answers are scored too.
    """

    queries: Sequence[Of]
    scored: Sequence[Of]

    @classmethod
    def all_of(cls, queries: Iterable[Of], scored: Sequence[Of] | None = None) -> "Ask":
        """Asks queries.

        Args:
            queries: Each with the edit that brings it.
            scored: Those of them whose answers are scored too; None for all.
        """
        asked = list(queries)
        return cls(asked, asked if scored is None else scored)


@dataclass(frozen=True)
class Asked:
    """What a model replied, and how it scored answers.

    Args:
        tokenizer: The model's tokenizer.
        texts: What it wrote after each prompt.
        found: What is known of each pair of a prompt and an answer.
    """

    tokenizer: Any
    texts: Mapping[str, str]
    found: Mapping[Pair, dict[str, Any]]

    def reply(self, request: EditRequest, query: Query) -> str:
        """What the model replied, see `reply_of`."""
        return reply_of(self.texts[query.prompt], request.lead_ins.get(query.prompt, ""))

    def scores(self, request: EditRequest, query: Query) -> list[dict[str, Any]]:
        """Of each answer in its usual form ``answer``, ``log_prob``, ``tokens``, ``tokens_correct``, ``predicted``."""
        return [{"answer": pair[1], **self.found[pair]} for pair in pairs_of(request, query)]

    def right(self, request: EditRequest, query: Query) -> bool:
        """Whether the model says all answers, or names the right choice first; True without any answers."""
        if query.choices:
            return chooses(self.reply(request, query), query.answers, query.choices)
        return says_all(self.reply(request, query), self._plain_answers(query))

    def exact(self, request: EditRequest, query: Query) -> bool:
        """Whether it says the only answer and nothing else."""
        return is_exactly(self.reply(request, query), self._plain_answers(query))

    def same(self, request: EditRequest, query: Query, other: "Asked") -> bool | None:
        """Whether the first sentence of the reply is that of another one; None where that one is empty."""
        before = other.reply(request, query)
        return exact_match(first_sentence(self.reply(request, query)), first_sentence(before)) if before else None

    def rouge_l(self, request: EditRequest, query: Query) -> float | None:
        """ROUGE-L of the reply and the only answer, where that is a long one."""
        scores = self.scores(request, query)
        if len(scores) != 1 or scores[0]["tokens"] <= LONG:
            return None
        return rouge_l(self.reply(request, query), query.answers[0][0])

    def _plain_answers(self, query: Query) -> list[list[str]]:
        return [[without_special(self.tokenizer, form) for form in forms] for forms in query.answers]


@dataclass(frozen=True)
class Answering:
    """Asks a model.

    Args:
        decoder: The model as it is now.
        tokenizer: Its fast tokenizer.
        tokens: How many tokens a reply has at most, beside what leads in to it and the length of a long answer.
        report: Called with the progress of each pass.
    """

    decoder: Decoder
    tokenizer: Any
    tokens: int
    report: Report

    def __call__(self, ask: Ask) -> Asked:
        """Asks queries, and scores their answers.

        Args:
            ask: What is asked.

        Raises:
            EditError: If a prompt does not fit the model's context.
        """
        pairs = list(dict.fromkeys(pair for request, query in ask.scored for pair in pairs_of(request, query)))
        scores = score_targets(self.decoder, self.tokenizer, pairs, self.report, "score tests (tokens)")
        columns = (scores.log_probs.tolist(), scores.tokens.tolist(), scores.tokens_correct.tolist(), scores.predicted)
        names = ("log_prob", "tokens", "tokens_correct", "predicted")
        found = {pair: dict(zip(names, values, strict=True)) for pair, *values in zip(pairs, *columns, strict=True)}
        room: dict[str, int] = {}
        for request, query in ask.queries:
            for answer in [forms[0] for forms in query.answers] or [""]:
                wanted = room_of(self.tokenizer, self.tokens, request, query.prompt, answer)
                room[query.prompt] = max(room.get(query.prompt, 0), wanted)
        written = generate(self.decoder, self.tokenizer, list(room), list(room.values()), report=self.report)
        return Asked(self.tokenizer, dict(zip(room, written, strict=True)), found)


def pairs_of(request: EditRequest, query: Query) -> list[Pair]:
    """The prompt with each answer in its usual form.

    Args:
        request: The edit that brings the query.
        query: The query.
    """
    answers = (forms[0] for forms in query.answers)
    return [(query.prompt, answer, separator_before(request, query.prompt, answer)) for answer in answers]
