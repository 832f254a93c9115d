"""All figures of a set of edits in one torchmetrics object."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.metrics.answers import locality, preference, token_accuracy
from lightning_edit.metrics.record_means import RecordMeans, mean_and_error
from lightning_edit.requests import EditRequest
from lightning_edit.whole_words import find_whole

KINDS = ("efficacy", "paraphrase", "neighborhood", "attribute")
IN_SCORE = ("efficacy", "paraphrase", "neighborhood")
OF_A_KIND = ("score", "magnitude", "accuracy", "token_accuracy")
OF_TEXTS = ("generation_entropy", "reference_score", "essence_score", "generated_match", "generated_paraphrase")
# Of answers of more tokens than these.
LONG = 20
OF_LONG = ("efficacy_nll", "paraphrase_nll")
OF_LONG_TEXTS = ("generated_rouge_l", "generated_paraphrase_rouge_l")
FIGURES = (
    *(f"{kind}_{name}" for kind in KINDS for name in OF_A_KIND),
    "locality_token_accuracy",
    "locality_unchanged",
    *OF_TEXTS,
    *OF_LONG,
    *OF_LONG_TEXTS,
)


def prompts_of(request: EditRequest, kind: str) -> tuple[str, ...]:
    """The prompts of one kind that a record brings.

    Args:
        request: The edit.
        kind: One of `KINDS`.
    """
    return {
        "efficacy": (request.rewrite_prompt,),
        "paraphrase": request.paraphrase_prompts,
        "neighborhood": request.neighborhood_prompts,
        "attribute": request.attribute_prompts,
    }[kind]


def answers_of(request: EditRequest, kind: str) -> tuple[str | None, str | None]:
    """The answer the edited model should give to prompts of a kind, and the one it should not.

    Neighbors keep the true answer: there the roles are swapped.

    Args:
        request: The edit.
        kind: One of `KINDS`.
    """
    answers = (request.target_new, request.target_true)
    return answers[::-1] if kind == "neighborhood" else answers


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one record.

    Args:
        record: What `evaluate` says of it, or what was read back from a line of ``records.jsonl``, in which a
            log-probability that is no number, as of a broken model, is null.

    Returns:
        Those of `FIGURES` that the record can tell.
    """
    figures: dict[str, float] = {}
    record = _with_numbers(record)
    for kind in KINDS:
        if record.get(kind):
            figures |= {f"{kind}_{name}": value for name, value in _of_answers(record[kind], kind).items()}
    if record.get("locality"):
        rows: dict[str, Any] = {name: _column(record["locality"], name) for name in ("tokens_correct", "tokens")}
        unchanged = [entry.get("tokens_unchanged") for entry in record["locality"]]
        rows["tokens_unchanged"] = None if None in unchanged else torch.tensor(unchanged)
        figures |= {f"locality_{name}": value for name, value in locality(**rows).items()}
    if (record.get("efficacy") or [{}])[0].get("tokens", 0) > LONG:
        for kind in ("efficacy", "paraphrase"):
            if record.get(kind):
                figures[f"{kind}_nll"] = -float(_column(record[kind], "log_prob_new").mean())
    return figures | {name: float(record[name]) for name in (*OF_TEXTS, *OF_LONG_TEXTS) if record.get(name) is not None}


def _with_numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with each log-probability that was no finite number, a null in the file, as one again."""
    names = ("log_prob_new", *(["log_prob_true"] if record.get("target_true") is not None else []))

    def number(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {**entry, **{name: math.nan for name in names if name in entry and entry[name] is None}}

    return {**record, **{kind: [number(entry) for entry in record[kind]] for kind in KINDS if record.get(kind)}}


def has_failed(record: Mapping[str, Any]) -> bool:
    """Whether the model does not give the new answer by itself; if it was not asked, whether a token is not the argmax.

    A reply that gives the old answer and comes upon the new one later, as it goes on, has not given the new one; where
    the prompt itself holds the old answer, that says nothing.

    Args:
        record: What `evaluate` says of it.
    """
    if record.get("generated_match") is not None:
        return not record["generated_match"] or _says_old_first(record)
    return not all(entry["correct"] for entry in record.get("efficacy", ()))


def _says_old_first(record: Mapping[str, Any]) -> bool:
    names = ("continuation", "target_true", "target_new", "subject", "prompt")
    said, true, wanted, *asked = (unicodedata.normalize("NFC", record.get(name) or "") for name in names)
    if any(find_whole(text, true) for text in asked):
        return False
    old, new = find_whole(said, true), find_whole(said, wanted)
    return old is not None and new is not None and old[0] < new[0]


def name_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells a record from the others of a run.

    Args:
        record: What `evaluate` says of it, or the fields of its request.
    """
    return record["subject"], record["prompt"], record["target_new"]


def _of_answers(entries: Sequence[Mapping[str, Any]], kind: str) -> dict[str, float]:
    new, true = _column(entries, "log_prob_new"), None
    if entries[0]["log_prob_true"] is not None:
        true = _column(entries, "log_prob_true")
    wanted, other = (true, new) if kind == "neighborhood" else (new, true)
    assert wanted is not None
    figures = preference(wanted, other, _column(entries, "correct"))
    figures["token_accuracy"] = token_accuracy(_column(entries, "tokens_correct"), _column(entries, "tokens"))
    return figures


def _column(entries: Sequence[Mapping[str, Any]], name: str) -> Tensor:
    values = [entry[name] for entry in entries]
    return torch.tensor(values, dtype=torch.float64 if name.startswith("log_prob") else None)


def harmonic_mean(values: Tensor) -> Tensor:
    """The harmonic mean of shares, 0 as soon as one of them is 0.

    Args:
        values: ``(k,)`` between 0 and 1.
    """
    return values.new_zeros(()) if bool((values <= 0).any()) else len(values) / (1 / values).sum()


class EditMetrics(RecordMeans):
    """All figures of a set of edits: means over records, each with its standard error and number of records.

    The figures are `FIGURES` and S, the harmonic mean of efficacy, paraphrase and neighborhood scores; shares go from
    0 to 1. What the records cannot tell is left out. The standard error of S follows from the delta method: the scores'
    covariances (the same records tell them) weighted with the derivatives of S, ``S^2 / (3 score^2)``. It is good for
    many records, and left out where a score is 0, where S has no such derivative. ``S_n`` is the smallest of the three
    scores' numbers of records.

    Example:
        >>> metrics = EditMetrics()
        >>> metrics.update({"efficacy_score": 1.0, "paraphrase_score": 0.5, "neighborhood_score": 0.5})
        >>> {name: round(float(value), 3) for name, value in metrics.compute().items() if not name.endswith("_n")}
        {'efficacy_score': 1.0, 'paraphrase_score': 0.5, 'neighborhood_score': 0.5, 'S': 0.6}
    """

    products: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(FIGURES, **kwargs)
        count = len(IN_SCORE)
        # For each pair of scores, over the records that have both: their number, sum of the first, of the product.
        self.add_state("products", torch.zeros(3, count, count, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, figures: Mapping[str, float]) -> None:
        """Adds one record.

        Args:
            figures: See `figures_of`.
        """
        self._add(figures)
        scores = [figures.get(f"{kind}_score") for kind in IN_SCORE]
        present = torch.tensor([float(score is not None) for score in scores], dtype=torch.float64)
        values = torch.tensor([score or 0.0 for score in scores], dtype=torch.float64)
        added = torch.stack([present.outer(present), values.outer(present), values.outer(values)])
        self.products += added.to(self.products.device)

    def compute(self) -> dict[str, Tensor]:
        """All figures that can be measured."""
        figures = super().compute()
        rows = [self.names.index(f"{kind}_score") for kind in IN_SCORE]
        count, (means, errors) = self.sums[rows, 0], mean_and_error(self.sums[rows])
        if (count > 0).all():
            figures["S"] = harmonic_mean(means)
            if (count > 1).all() and figures["S"] > 0:
                slopes = figures["S"] ** 2 / (len(rows) * means**2)
                variance = slopes @ self._covariance(count, means, errors) @ slopes
                figures["S_stderr"] = variance.clamp(min=0).sqrt()
            figures["S_n"] = count.min()
        return figures

    def _covariance(self, count: Tensor, means: Tensor, errors: Tensor) -> Tensor:
        """Covariances ``(k, k)`` of the scores' means; records that have one score only say nothing of a pair."""
        both, first, product = self.products
        centered = product - first * means[None] - first.T * means[:, None] + both * means.outer(means)
        covariance = centered / (both - 1).clamp(min=1) * both / count.outer(count)
        # The diagonal without its rounding.
        return covariance - covariance.diag().diag() + errors.square().diag()
