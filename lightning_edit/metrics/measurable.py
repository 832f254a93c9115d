"""Which figures a run will have, told from its records before anything is measured."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lightning_edit.asking.tokenization import encode_target
from lightning_edit.metrics.edit_metrics import IN_SCORE, KINDS, LONG, answers_of, prompts_of
from lightning_edit.metrics.ripples.figures import OVER_AXES
from lightning_edit.metrics.settings import TEACHER_FORCED, EvaluationSettings, matched_paraphrases
from lightning_edit.metrics.ways import Way
from lightning_edit.requests import EditRequest
from lightning_edit.ripples import OF_AN_AXIS, PORTABILITY, Ripple, name_of

# Tells whether an answer after a prompt is a long one.
Long = Callable[[str, str], bool]


def measurable(
    requests: Sequence[EditRequest], settings: EvaluationSettings, tokenizer: Any = None, ways: Sequence[Way] = ()
) -> list[str]:
    """The names of the figures that some records will have, see `EditMetrics`.

    Args:
        requests: The records.
        settings: What is measured of them beyond teacher-forced answers.
        tokenizer: The model's, which tells the long answers; None takes for long what might be.
        ways: In which other ways they are asked, see `ways_of`.
    """

    def is_long(prompt: str, answer: str) -> bool:
        if tokenizer is None or len(answer.encode()) < LONG:
            # Hardly a tokenizer makes more tokens than there are bytes.
            return len(answer.encode()) > LONG
        ids, start = encode_target(tokenizer, prompt, answer)
        return len(ids) - start > LONG

    names = [*_of_answers(requests, is_long)]
    if any(request.locality for request in requests):
        names += ["locality_token_accuracy", "locality_unchanged"]
    names += _of_texts(requests, settings, is_long)
    names += _asked_freely(requests, settings) if settings.wild else []
    names += _of_tests(requests, is_long) if settings.ripples else []
    alone = replace(TEACHER_FORCED, ripples=False)
    for way in ways:
        names += [f"{way.name}_{name}" for name in measurable([*map(way.asked, requests)], alone, way.tokenizer)]
    return names


def _of_answers(requests: Sequence[EditRequest], is_long: Long) -> Iterator[str]:
    found = set()
    for kind in KINDS:
        asked = [request for request in requests if prompts_of(request, kind)]
        answers = [answers_of(request, kind) for request in asked]
        if any(wanted is not None for wanted, _ in answers):
            yield from (f"{kind}_accuracy", f"{kind}_token_accuracy")
        if any(None not in both for both in answers):
            found.add(kind)
            yield from (f"{kind}_score", f"{kind}_magnitude")
        if kind in ("efficacy", "paraphrase") and any(_is_long(request, is_long) for request in asked):
            yield f"{kind}_nll"
    if found >= set(IN_SCORE):
        yield "S"


def _of_texts(requests: Sequence[EditRequest], settings: EvaluationSettings, is_long: Long) -> list[str]:
    written = [request for request in requests if settings.generate and request.generation_prompts]
    names = ["generation_entropy"] * bool(written)
    names += ["reference_score"] * any(request.reference_texts for request in written)
    names += ["essence_score"] * (settings.generate and any(request.essence_texts for request in requests))
    names += ["generated_match"] * settings.generated_match
    reworded = [request for request in requests if matched_paraphrases(request, settings)]
    names += ["generated_paraphrase"] * bool(reworded)
    long = settings.generated_match and any(_is_long(request, is_long) for request in requests)
    names += ["generated_rouge_l"] * long
    return names + ["generated_paraphrase_rouge_l"] * any(_is_long(request, is_long) for request in reworded)


def _is_long(request: EditRequest, is_long: Long) -> bool:
    return is_long(request.rewrite_prompt, request.target_new)


def _asked_freely(requests: Sequence[EditRequest], settings: EvaluationSettings) -> list[str]:
    wild = settings.wild_settings
    there = {
        "reliability": bool(requests),
        "generalization": any(request.paraphrase_prompts[: wild.paraphrases] for request in requests),
        "locality": wild.unrelated > 0 and any(one.locality or one.neighborhood_prompts for one in requests),
    }
    marked = ["exact"] + ["judged"] * (settings.judge.model is not None)
    return [f"wild_{how}_{measure}" for how in marked for measure in there if there[measure]]


def _of_tests(requests: Sequence[EditRequest], is_long: Long) -> list[str]:
    """The figures of what follows from edits that some tests tell, and those of all axes together."""
    tests = [ripple for request in requests for ripple in request.ripples]
    kept = {test.axis for test in tests if test.kept}
    names, following = [], set()
    for axis in dict.fromkeys(test.axis for test in tests):
        told = {figure for test in tests if test.axis == axis for figure in _told_by(test, is_long)}
        names += [name_of(axis, figure) for figure in OF_AN_AXIS if figure in told]
        following |= told if axis not in kept else set()
    return names + [name_of(PORTABILITY, figure) for figure in OVER_AXES if figure in following]


def _told_by(test: Ripple, is_long: Long) -> Iterator[str]:
    answers = [query.answers for query in test.queries]
    # Whether a test counts is known once the model has been asked.
    yield "score"
    if all(answers):
        yield "said"
    if all(len(of_query) == 1 for of_query in answers):
        yield "exact"
    if any(answers):
        yield "token_accuracy"
    if test.kept:
        yield "unchanged"
    if any(len(query.answers) == 1 and is_long(query.prompt, query.answers[0][0]) for query in test.queries):
        yield "rouge_l"
