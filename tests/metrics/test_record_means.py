"""Means over records with their standard errors, and the metrics that bring nothing but a value for each record."""

import pickle
import statistics

import pytest
import torch

from lightning_edit.metrics import EditMetrics
from lightning_edit.metrics.answers import locality, token_accuracy
from lightning_edit.metrics.record_means import RecordMeans
from lightning_edit.metrics.ripples.figures import RippleMeans

SCORES = ("efficacy_score", "paraphrase_score", "neighborhood_score")


class Several(RecordMeans):
    def __init__(self):
        super().__init__(("a", "b"))

    def update(self, **values):
        self._add(values)


def plain(figures):
    return {name: float(value) for name, value in figures.items()}


def fed(records):
    metric = Several()
    for record in records:
        metric.update(**record)
    return metric


def random_scores(count, seed=0):
    """Scores of records that go together: a record that is easily learned is easily paraphrased."""
    generator = torch.Generator().manual_seed(seed)
    ease = torch.rand(count, 1, generator=generator, dtype=torch.float64)
    noise = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return [dict(zip(SCORES, row, strict=True)) for row in ((ease + noise) / 2).tolist()]


def scored(records):
    metrics = EditMetrics()
    for record in records:
        metrics.update(record)
    return metrics


def s_of(records):
    means = [statistics.mean(record[name] for record in records) for name in SCORES]
    return statistics.harmonic_mean(means)


def test_mean_standard_error_and_number_are_those_of_the_records():
    values = [0.25, 0.5, 1.0, 0.125]
    found = plain(fed([{"a": value} for value in values]).compute())
    expected = {"a": statistics.mean(values), "a_stderr": statistics.stdev(values) / 2, "a_n": 4}
    assert found == pytest.approx(expected)


def test_each_figure_counts_the_records_that_have_it():
    found = plain(fed([{"a": 1.0, "b": 2.0}, {"a": 3.0}]).compute())
    assert found == {"a": 2, "a_stderr": 1, "a_n": 2, "b": 2, "b_n": 1}


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.1])
def test_equal_values_have_no_spread(value):
    assert fed([{"a": value}] * 7).compute()["a_stderr"] == 0


def test_a_small_spread_of_large_values_is_seen():
    values = [1e4, 1e4 + 1, 1e4 + 2]
    found = fed([{"a": value} for value in values]).compute()["a_stderr"]
    assert float(found) == pytest.approx(statistics.stdev(values) / 3**0.5, rel=1e-6)


def test_a_nan_is_not_hidden():
    found = fed([{"a": float("nan")}, {"a": 1.0}]).compute()
    assert found["a"].isnan()
    assert found["a_stderr"].isnan()


def test_an_unknown_figure_is_refused():
    with pytest.raises(KeyError, match="no figure 'c'"):
        Several().update(c=1.0)


def test_states_can_be_put_away_and_started_anew():
    metrics = scored(random_scores(5))
    again = pickle.loads(pickle.dumps(metrics))  # noqa: S301
    assert plain(again.compute()) == plain(metrics.compute())
    again.reset()
    again.update(random_scores(1)[0])
    assert plain(again.compute()) == plain(scored(random_scores(1)).compute())


def test_sums_of_two_processes_are_those_of_one():
    records = random_scores(9)
    first, second, both = scored(records[:4]), scored(records[4:]), scored(records)
    for name in ("sums", "products"):
        setattr(first, name, getattr(first, name) + getattr(second, name))
    assert plain(first.compute()) == pytest.approx(plain(both.compute()))


def test_the_error_of_s_is_that_of_leaving_out_one_record_at_a_time():
    # The jackknife knows nothing of derivatives and covariances; both agree as the number of records grows.
    records = random_scores(400)
    left = [s_of(records[:i] + records[i + 1 :]) for i in range(len(records))]
    jackknife = (statistics.pvariance(left) * (len(records) - 1)) ** 0.5
    found = scored(records).compute()
    assert float(found["S"]) == pytest.approx(s_of(records))
    assert float(found["S_stderr"]) == pytest.approx(jackknife, rel=0.01)
    assert found["S_n"] == 400


def test_the_error_of_s_counts_that_scores_go_together():
    records = random_scores(400)
    errors = plain(scored(records).compute())
    slopes = [errors["S"] ** 2 / (3 * errors[name] ** 2) for name in SCORES]
    apart = sum((slope * errors[f"{name}_stderr"]) ** 2 for slope, name in zip(slopes, SCORES, strict=True)) ** 0.5
    assert errors["S_stderr"] > 1.2 * apart


def test_scores_of_different_records_are_independent():
    together = random_scores(50)
    metrics = EditMetrics()
    for record in together:
        for name, value in record.items():
            metrics.update({name: value})
    errors = plain(metrics.compute())
    slopes = [errors["S"] ** 2 / (3 * errors[name] ** 2) for name in SCORES]
    apart = sum((slope * errors[f"{name}_stderr"]) ** 2 for slope, name in zip(slopes, SCORES, strict=True)) ** 0.5
    assert errors["S_stderr"] == pytest.approx(apart)


def test_s_has_no_error_where_a_score_is_zero():
    found = scored([{**record, "paraphrase_score": 0.0} for record in random_scores(4)]).compute()
    assert found["S"] == 0
    assert "S_stderr" not in found


def test_token_accuracy_is_the_mean_over_prompts_of_shares_of_tokens():
    assert token_accuracy(torch.tensor([1, 3]), torch.tensor([2, 3])) == pytest.approx((1 / 2 + 1) / 2)
    assert token_accuracy(torch.tensor([0]), torch.tensor([5])) == 0


def test_locality_without_the_unedited_model_is_accuracy_alone():
    assert locality(torch.tensor([1, 2]), torch.tensor([2, 2])) == {"token_accuracy": 0.75}
    unchanged = locality(torch.tensor([0]), torch.tensor([4]), torch.tensor([3]))
    assert unchanged == {"token_accuracy": 0.0, "unchanged": 0.75}


def test_the_error_of_s_counts_what_each_pair_of_scores_has_in_common():
    records = random_scores(12)
    for i, record in enumerate(records):
        for j in range(2 * (i % 3 == 0)):
            del record[SCORES[1 - j]]
    rows = {name: {i: record[name] for i, record in enumerate(records) if name in record} for name in SCORES}
    mean = {name: statistics.mean(row.values()) for name, row in rows.items()}
    s, variance = statistics.harmonic_mean(mean.values()), 0.0
    for a in SCORES:
        for b in SCORES:
            both = rows[a].keys() & rows[b].keys()
            terms = [(rows[a][i] - mean[a]) * (rows[b][i] - mean[b]) for i in both]
            covariance = sum(terms) / (len(both) - 1) * len(both) / len(rows[a]) / len(rows[b])
            variance += covariance * s**4 / (9 * mean[a] ** 2 * mean[b] ** 2)
    found = scored(records).compute()
    assert len(rows[SCORES[0]]) == len(rows[SCORES[1]]) < len(rows[SCORES[2]])
    assert float(found["S_stderr"]) == pytest.approx(variance**0.5)
    assert found["S_n"] == len(rows[SCORES[1]])


def test_means_over_axes_and_their_error():
    records = [
        {"a": {"said": 1.0}, "b": {"said": 0.0}, "kept": {"said": 0.0}},
        {"a": {"said": 0.0}, "b": {"said": 0.0}},
        {"a": {"said": 1.0}, "b": {"said": 1.0}},
    ]
    means = RippleMeans()
    for record in records:
        means.update(record, {"kept"} & set(record))
    found = means.compute()
    assert found["ripple_portability_said"] == pytest.approx(0.5) and found["ripple_kept_said_n"] == 1
    # All records have both axes: the mean of their means, and its usual error.
    own = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)
    assert found["ripple_portability_said_stderr"] == pytest.approx(float(own.std() / 3**0.5))
    assert found["ripple_a_said_stderr"] == pytest.approx((2 / 9 / 2) ** 0.5)
    alone = RippleMeans()
    alone.update(records[0])
    assert "ripple_portability_said_stderr" not in alone.compute()
