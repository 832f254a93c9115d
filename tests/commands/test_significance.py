"""Paired tests over records: exact ones against sums written out, and what is refused."""

import json
from math import comb

import pytest

from lightning_edit.commands.comparison import compare
from lightning_edit.commands.comparison.lines import lines_of
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.commands.comparison.seeds import joined_seeds
from lightning_edit.commands.comparison.significance import holm, mcnemar, paired_tests, signed_rank
from lightning_edit.errors import EditError
from tests.run_folders import write


def record(number, right, paraphrases=(), stage="after"):
    def entry(correct):
        logs = (-0.1, -2.0) if correct else (-2.0, -0.1)
        kinds = dict(zip(("log_prob_new", "log_prob_true"), logs, strict=True))
        return {"prompt": "p", **kinds, "tokens": 1, "tokens_correct": int(correct), "correct": correct}

    said = {"stage": stage, "edits": 4, "case_id": str(number), "subject": f"s{number}", "prompt": "{} is"}
    said |= {"target_new": "x", "target_true": "y", "efficacy": [entry(right)]}
    return said | ({"paraphrase": list(map(entry, paraphrases))} if paraphrases else {})


def with_records(folder, records, **settings):
    write(folder, len(records), **settings)
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder


def paired(folders, *metrics):
    return paired_tests(lines_of(joined_seeds(read_runs(folders)[0]), "edits"), metrics)


def binomial(k, n):
    """Twice the smaller tail of n tosses, at most 1."""
    return min(1.0, 2 * sum(comb(n, i) for i in range(min(k, n - k) + 1)) / 2**n)


@pytest.mark.parametrize(("first", "second", "both"), [(9, 1, 5), (3, 3, 0), (6, 0, 100), (0, 0, 7), (12, 4, 2)])
def test_mcnemar_is_the_binomial_test_of_the_records_that_differ(first, second, both):
    values = [(1.0, 0.0)] * first + [(0.0, 1.0)] * second + [(1.0, 1.0)] * both
    assert mcnemar(values) == pytest.approx(binomial(first, first + second) if first + second else 1.0)


def test_signed_ranks_of_few_records_are_exact():
    # All of five differences have one sign: 2 of 2^5 ways to choose signs are as extreme.
    assert signed_rank([(i, 0.0) for i in (0.1, 0.2, 0.3, 0.4, 0.5)]) == pytest.approx(2 / 2**5)
    assert signed_rank([(0.5, 0.5)] * 4) == 1.0


def test_holm_multiplies_by_how_many_are_left_and_never_falls():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_methods_are_compared_record_by_record(tmp_path):
    better = [record(i, True, [True, i % 2 == 0]) for i in range(12)]
    worse = [record(i, i < 3, [i < 6, False]) for i in range(14)]
    before = [record(i, False, stage="before") for i in range(12)]
    folders = [with_records(tmp_path / "a", [*before, *better]), with_records(tmp_path / "b", worse, solver="MEMIT")]
    with (tmp_path / "a" / "records.jsonl").open("a") as file:
        file.write('{"stage": "after", "case_')  # where the run was killed
    one, other = paired(folders, "efficacy_score", "paraphrase_score")
    assert (one.first, one.second, one.n, one.name) == ("EMMET", "MEMIT", 12, "McNemar")
    assert one.means == (1.0, 3 / 12)
    assert one.p == pytest.approx(binomial(0, 9))
    assert other.name == "Wilcoxon"
    assert other.means == (0.75, 0.25)
    smaller, larger = sorted([one, other], key=lambda test: test.p)
    assert smaller.corrected == pytest.approx(2 * smaller.p)
    assert larger.corrected == pytest.approx(max(2 * smaller.p, larger.p))


def test_of_several_seeds_each_record_counts_with_its_mean(tmp_path):
    folders = [
        with_records(tmp_path / f"{seed}", [record(i, i < 2 + seed) for i in range(6)], seed=seed) for seed in (0, 1)
    ]
    folders.append(with_records(tmp_path / "b", [record(i, False) for i in range(6)], solver="MEMIT"))
    [test] = paired(folders, "efficacy_score")
    assert (test.n, test.name) == (6, "Wilcoxon")
    assert test.means == (pytest.approx((1 + 1 + 0.5) / 6), 0)


def test_of_equal_runs_the_last_is_tested_which_is_the_one_that_is_shown(tmp_path):
    folders = [
        with_records(tmp_path / name, [record(i, i < right) for i in range(8)]) for name, right in (("a", 0), ("b", 8))
    ]
    folders.append(with_records(tmp_path / "c", [record(i, False) for i in range(8)], solver="MEMIT"))
    [test] = paired(folders, "efficacy_score")
    assert test.means == (1, 0)


def test_a_broken_model_is_compared_where_it_has_numbers(tmp_path):
    broken = [record(i, True) for i in range(4)]
    broken[0]["efficacy"][0]["log_prob_new"] = None
    folders = [with_records(tmp_path / "a", broken), with_records(tmp_path / "b", broken[1:], solver="MEMIT")]
    [test] = paired(folders, "efficacy_score")
    assert test.n == 3


def test_the_command_shows_the_tests(tmp_path, capsys):
    folders = [
        with_records(tmp_path / name, [record(i, i < right) for i in range(10)], solver=name)
        for name, right in (("EMMET", 10), ("MEMIT", 1), ("AlphaEdit", 9))
    ]
    compare([str(one) for one in folders], output=str(tmp_path / "out" / "c.png"), significance=True)
    shown = " ".join(capsys.readouterr().out.split())
    assert "paired tests, corrected by Holm for 3" in shown
    assert "EMMET / MEMIT McNemar 10 100.0 / 10.0 0.0039 0.012" in shown


def test_what_cannot_be_tested_is_refused(tmp_path):
    records = [record(i, True) for i in range(3)]
    one, other = with_records(tmp_path / "a", records), write(tmp_path / "b", 3, solver="MEMIT")

    def refused(message, **settings):
        with pytest.raises(EditError, match=message):
            compare([str(one), str(other)], output=str(tmp_path / "c.png"), significance=True, **settings)
        assert not (tmp_path / "c.png").exists()

    refused(r"there is no .*b/records\.jsonl. Runs keep it where")
    (other / "records.jsonl").write_text(json.dumps(record(9, True)) + "\n")
    refused("no two methods have records in common")
    (other / "records.jsonl").write_text(json.dumps({"stage": "after"}) + "\n")
    refused("this is not what a run says of a record")
    (other / "records.jsonl").write_text(json.dumps(record(1, True, stage="before")) + "\n")
    refused("holds no records of the edited model")
    refused("needs figures that single records have, such as efficacy_score, got S", metric="S")
