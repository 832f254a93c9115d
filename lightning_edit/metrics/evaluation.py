"""Measuring edits: batched passes over all prompts of a set of records, and what they found of each."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lightning_edit.asking.generation import Sampling, generate
from lightning_edit.asking.room import room_of
from lightning_edit.asking.tokenization import encode_prompt, separator_before, without_special
from lightning_edit.distributed.process_group import in_shares
from lightning_edit.metrics.edit_metrics import KINDS, LONG, EditMetrics, answers_of, figures_of, prompts_of
from lightning_edit.metrics.generated_text import generated_match, generation_entropy, reference_score, rouge_l
from lightning_edit.metrics.perplexity import essence_nll, perplexity_of
from lightning_edit.metrics.settings import EvaluationSettings, matched_paraphrases
from lightning_edit.metrics.token_scores import score_targets
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest

Record = dict[str, Any]
# A prompt, its answer, and what stands between them (None for what is usual).
Pair = tuple[str, str, str | None]


def evaluate(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    metrics: EditMetrics,
    settings: EvaluationSettings = EvaluationSettings(),  # noqa: B008  (frozen)
    unedited: Callable[[], AbstractContextManager[Any]] | None = None,
    report: Report = silent,
) -> list[Record]:
    """Measures records on the model as it is now, and updates the metrics.

    Each record is answered by one dictionary of plain values. Log-probabilities are length-normalized, -mean NLL over
    an answer's tokens, in nats; a broken model's are NaN. `figures_of` turns it into figures again. Of several
    processes, all of which must call it, each measures its share, and all know and count all records.

    - ``case_id``, ``subject``, ``prompt``, ``target_new``, ``target_true`` (None if unknown): as in the request.
    - ``efficacy``, ``paraphrase``, ``neighborhood``, ``attribute``: a list with, for each prompt, ``prompt``,
      ``log_prob_new`` and ``log_prob_true`` (None if unknown), and of the answer the edited model should give (the true
      one for neighbors, otherwise the new one) ``tokens``, how many of them are the argmax (``tokens_correct``) and
      whether all are (``correct``). Kinds without prompts or without an answer to give are left out.
    - ``locality``: a list with, for each pair, ``prompt``, ``answer``, ``log_prob``, ``tokens``, ``tokens_correct`` and
      ``predicted``, the text of the argmax in the place of each of the answer's tokens; with ``unedited`` also what
      the unedited model predicted, ``predicted_before``, and in how many places both agree, ``tokens_unchanged``.
    - With ``settings.generate``: ``generations``, a list of ``prompt`` and the ``text`` that follows it;
      ``generation_entropy`` (bits), ``reference_score`` and ``essence_score`` (perplexity) where there are texts.
    - With ``settings.generated_match``: ``continuation`` (the greedy one of the rewrite prompt), ``generated_match``;
      ``paraphrase_continuations``, a list of ``prompt``, ``text`` and ``match``, and ``generated_paraphrase``, the
      share of them that match. Answers of more than `LONG` tokens are continued to their own length, and there are
      ``generated_rouge_l``, and ``generated_paraphrase_rouge_l`` with ``rouge_l`` of each, see `rouge_l`.

    Args:
        decoder: The model as it is now.
        tokenizer: Its fast tokenizer.
        requests: The edits to measure, the same in every process; the more at once, the faster.
        metrics: Updated; compute them when all requests are through.
        settings: What is measured beyond teacher-forced answers.
        unedited: Makes a context in which the model is as before editing; without it nothing is compared with before.
        report: Called with the progress of each pass over this process's share.

    Returns:
        A dictionary for each request, in their order.

    Raises:
        EditError: If a prompt does not fit the model's context, or another process failed.
    """

    def measure(own: Sequence[EditRequest]) -> list[Record]:
        return _measure(decoder, tokenizer, own, settings, unedited, report)

    records = [record for share in in_shares(measure, requests, decoder.model) for record in share]
    for record in records:
        metrics.update(figures_of(record))
    return records


def _measure(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    settings: EvaluationSettings,
    unedited: Callable[[], AbstractContextManager[Any]] | None,
    report: Report,
) -> list[Record]:
    records: list[Record] = [
        {name: getattr(request, name) for name in ("case_id", "subject", "prompt", "target_new", "target_true")}
        for request in requests
    ]
    _add_answers(decoder, tokenizer, requests, records, unedited, report)
    if settings.generate:
        _add_generations(decoder, tokenizer, requests, records, settings, report)
        _add_essence(decoder, tokenizer, requests, records, settings, report)
    if settings.generated_match:
        _add_matches(decoder, tokenizer, requests, records, settings, report)
    return records


def _add_matches(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    records: Sequence[Record],
    settings: EvaluationSettings,
    report: Report,
) -> None:
    asked = [(request.rewrite_prompt, *matched_paraphrases(request, settings)) for request in requests]
    room: dict[str, int] = {}
    for request, prompts in zip(requests, asked, strict=True):
        for prompt in prompts:
            wanted = room_of(tokenizer, settings.match_tokens, request, prompt, request.target_new)
            room[prompt] = max(room.get(prompt, 0), wanted)
    written = generate(decoder, tokenizer, list(room), list(room.values()), report=report)
    texts = dict(zip(room, written, strict=True))
    for request, record, (rewrite, *paraphrases) in zip(requests, records, asked, strict=True):
        target = without_special(tokenizer, request.target_new)
        record |= {"continuation": texts[rewrite], "generated_match": generated_match(texts[rewrite], target)}
        if paraphrases:
            matches = [generated_match(texts[prompt], target) for prompt in paraphrases]
            record["paraphrase_continuations"] = [
                {"prompt": prompt, "text": texts[prompt], "match": match}
                for prompt, match in zip(paraphrases, matches, strict=True)
            ]
            record["generated_paraphrase"] = sum(matches) / len(matches)
        if _is_long(record):
            record["generated_rouge_l"] = rouge_l(texts[rewrite], target)
            for entry in record.get("paraphrase_continuations", ()):
                entry["rouge_l"] = rouge_l(entry["text"], target)
            if paraphrases:
                shares = [entry["rouge_l"] for entry in record["paraphrase_continuations"]]
                record["generated_paraphrase_rouge_l"] = sum(shares) / len(shares)


def _is_long(record: Record) -> bool:
    return record["efficacy"][0]["tokens"] > LONG


def _add_answers(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    records: Sequence[Record],
    unedited: Callable[[], AbstractContextManager[Any]] | None,
    report: Report,
) -> None:
    unrelated = [pair for request in requests for pair in _unrelated(request)]
    pairs = [pair for request in requests for pair in _pairs_of(request)]
    scores = _score(decoder, tokenizer, [*pairs, *unrelated], report, "score answers (tokens)")
    before: dict[Pair, Record] = {}
    if unedited is not None and unrelated:
        with unedited():
            before = _score(decoder, tokenizer, unrelated, report, "score answers before (tokens)")
    for request, record in zip(requests, records, strict=True):
        for kind in KINDS:
            prompts, wanted = prompts_of(request, kind), answers_of(request, kind)[0]
            if prompts and wanted is not None:
                record[kind] = [_answered(scores, request, prompt, wanted) for prompt in prompts]
        if request.locality:
            record["locality"] = [
                _compared(tokenizer, pair, scores[pair], before.get(pair)) for pair in _unrelated(request)
            ]


def _unrelated(request: EditRequest) -> list[Pair]:
    return [(prompt, answer, request.separator) for prompt, answer in request.locality]


def _pairs_of(request: EditRequest) -> list[Pair]:
    """Both answers to every prompt, where there is one that the edited model should give."""
    return [
        (prompt, answer, separator_before(request, prompt, answer))
        for kind in KINDS
        if answers_of(request, kind)[0] is not None
        for prompt in prompts_of(request, kind)
        for answer in answers_of(request, kind)
        if answer is not None
    ]


def _score(
    decoder: Decoder, tokenizer: Any, pairs: Sequence[Pair], report: Report, stage: str
) -> dict[Pair, dict[str, Any]]:
    """What `TargetScores` says of each pair, each asked once however many records need it."""
    distinct = list(dict.fromkeys(pairs))
    scores = score_targets(decoder, tokenizer, distinct, report, stage)
    columns = {
        "log_prob": scores.log_probs.tolist(),
        "correct": scores.correct.tolist(),
        "tokens_correct": scores.tokens_correct.tolist(),
        "tokens": scores.tokens.tolist(),
        "predicted": scores.predicted,
    }
    return {
        pair: dict(zip(columns, values, strict=True)) for pair, *values in zip(distinct, *columns.values(), strict=True)
    }


def _answered(scores: Mapping[Pair, Record], request: EditRequest, prompt: str, wanted: str) -> Record:
    true = request.target_true

    def score(answer: str) -> Record:
        return scores[prompt, answer, separator_before(request, prompt, answer)]

    return {
        "prompt": prompt,
        "log_prob_new": score(request.target_new)["log_prob"],
        "log_prob_true": None if true is None else score(true)["log_prob"],
        **{name: score(wanted)[name] for name in ("correct", "tokens_correct", "tokens")},
    }


def _compared(tokenizer: Any, pair: Pair, now: Record, before: Record | None) -> Record:
    entry = {
        "prompt": pair[0],
        "answer": pair[1],
        "log_prob": now["log_prob"],
        "predicted": tokenizer.decode(now["predicted"]),
        "tokens_correct": now["tokens_correct"],
        "tokens": now["tokens"],
    }
    if before is not None:
        entry["predicted_before"] = tokenizer.decode(before["predicted"])
        entry["tokens_unchanged"] = sum(a == b for a, b in zip(before["predicted"], now["predicted"], strict=True))
    return entry


def _add_generations(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    records: Sequence[Record],
    settings: EvaluationSettings,
    report: Report,
) -> None:
    uses: list[tuple[int, str, int]] = []
    for i, request in enumerate(requests):
        # A prompt that a record names twice is drawn twice, not repeated.
        drawn = [prompt for prompt in request.generation_prompts for _ in range(settings.texts_per_prompt)]
        uses += [(i, prompt, drawn[:place].count(prompt)) for place, prompt in enumerate(drawn)]
    prompts = [prompt for _, prompt, _ in uses]
    # As published, all texts have equally many tokens, prompts included, and go on where the model would end them:
    # entropy grows with length, and a model that ends early does not repeat itself.
    room = [max(1, settings.max_length - len(encode_prompt(tokenizer, prompt))) for prompt in prompts]
    sampling, draws = Sampling(settings.top_k, settings.seed), [draw for *_, draw in uses]
    texts = generate(decoder, tokenizer, prompts, room, sampling, draws, report, stop=False)
    written: dict[int, list[Record]] = {}
    for (i, prompt, _), text in zip(uses, texts, strict=True):
        written.setdefault(i, []).append({"prompt": prompt, "text": text})
    for i, generations in written.items():
        texts_of = [entry["prompt"] + entry["text"] for entry in generations]
        records[i] |= {"generations": generations, "generation_entropy": generation_entropy(texts_of)}
        if requests[i].reference_texts:
            records[i]["reference_score"] = reference_score(texts_of, requests[i].reference_texts)


def _add_essence(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    records: Sequence[Record],
    settings: EvaluationSettings,
    report: Report,
) -> None:
    chosen = [i for i, request in enumerate(requests) if request.essence_texts]
    nlls = essence_nll(decoder, tokenizer, [requests[i].essence_texts for i in chosen], settings.max_length, report)
    for i, nll in zip(chosen, nlls, strict=True):
        if len(nll):
            records[i]["essence_score"] = perplexity_of(nll)
