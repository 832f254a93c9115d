"""Which records become the edits of a run."""

import json
import random

import pytest

from lightning_edit import EditRequest
from lightning_edit.datamodules import EasyEditCounterFact, EditDataModule, OwnEdits
from lightning_edit.errors import EditError


class Edits(EditDataModule):
    """Edits given as (subject, target) pairs, with their position as id."""

    def __init__(self, pairs, **kwargs):
        super().__init__(**kwargs)
        self.pairs, self.read = pairs, 0

    def load_requests(self):
        for position, (subject, target) in enumerate(self.pairs):
            self.read += 1
            yield EditRequest(subject, "{} likes", target, case_id=f"c{position}")


PAIRS = [("a", "x"), ("b", "x"), ("a", "x"), ("c", "x"), ("b", "y"), ("d", "z"), ("e", "z")]
DISTINCT = [(letter, "x") for letter in "abcdefghij"]


def chosen(pairs, **settings):
    return [request.case_id for request in Edits(pairs, **settings).requests]


def refusal(pairs, **settings):
    with pytest.raises(EditError) as error:
        _ = Edits(pairs, **settings).requests
    return str(error.value)


def test_indices_are_taken_in_their_order_and_no_more_is_read():
    data = Edits(DISTINCT, indices=[4, 0, 2])
    assert [request.case_id for request in data.requests] == ["c4", "c0", "c2"]
    assert data.read == 5


def test_case_ids_are_taken_in_their_order():
    assert chosen(DISTINCT, case_ids=["c9", "c3"], limit=1) == ["c9"]


@pytest.mark.parametrize(("setting", "values"), [("indices", [7, 2]), ("case_ids", ["c7", "c2"])])
def test_they_may_stand_in_a_file(tmp_path, setting, values):
    files = tmp_path / "ids.json", tmp_path / "ids.txt"
    files[0].write_text(json.dumps(values))
    files[1].write_text("".join(f"{value}\n" for value in values))
    for file in files:
        assert chosen(DISTINCT, **{setting: str(file)}) == ["c7", "c2"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"indices": [0, 10, 99]}, "`data.indices`: 10, 99: the data set has the records 0 to 9."),
        ({"indices": list(range(5, 30))}, "19 and 10 more: the data set"),
        ({"indices": [-1]}, "`data.indices` must be a list (each a whole number of 0 or more)"),
        ({"indices": [True]}, "`data.indices` must be a list (each a whole number of 0 or more)"),
        ({"indices": []}, "`data.indices` names no record."),
        ({"indices": "absent.json"}, "`data.indices`: there is no file absent.json."),
        (
            {"case_ids": ["c1", "d", 3]},
            "`data.case_ids`: there is no record d, 3; the data set has ids such as c0, c1, c2.",
        ),
        ({"case_ids": [None]}, "`data.case_ids` must be a list (each a whole number or a text)"),
    ],
)
def test_records_that_are_not_there_are_refused(settings, message):
    assert message in refusal(DISTINCT, **settings)


def test_a_bad_line_of_a_list_is_named(tmp_path):
    (tmp_path / "ids.txt").write_text("1\n\none\n")
    assert refusal(DISTINCT, indices=str(tmp_path / "ids.txt")) == (
        f"{tmp_path}/ids.txt, line 3: expected a position in the data set, counted from 0, got 'one'."
    )


def test_ids_of_records_without_ids_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"subject": "Anna", "prompt": "{} plays the", "target_new": "violin"}]))
    with pytest.raises(EditError, match="there is no record 1; the records have no `case_id`"):
        OwnEdits(str(path), case_ids=[1]).setup("fit")


def test_both_choices_at_once_are_refused():
    with pytest.raises(EditError, match=r"`data\.case_ids` and `data\.indices` both choose records"):
        Edits(DISTINCT, case_ids=["c1"], indices=[1])


def test_shuffle_is_a_permutation_by_the_seed_before_the_limit():
    expected = [f"c{i}" for i in range(10)]
    random.Random(5).shuffle(expected)
    assert chosen(DISTINCT, shuffle=True, seed=5) == expected
    assert chosen(DISTINCT, shuffle=True, seed=5, limit=4) == expected[:4]
    assert chosen(DISTINCT, shuffle=True, seed=6) != expected
    assert chosen(DISTINCT, seed=6, limit=3) == ["c0", "c1", "c2"]


def test_unique_subjects_keeps_the_first_and_counts_the_others(caplog):
    data = Edits(PAIRS, unique_subjects=True)
    assert [request.case_id for request in data.requests] == ["c0", "c1", "c3", "c5", "c6"]
    assert list(data.left_out.values()) == [["record c2", "record c4"]]
    assert (
        "2 records are left out: their subject has an edit already (`unique_subjects`) (record c2, record c4)."
        in caplog.text
    )


def test_the_limit_counts_what_is_left():
    assert chosen(PAIRS, unique_subjects=True, limit=3) == ["c0", "c1", "c3"]
    # The first of a subject is the first in the data set, whatever the seed.
    assert "c4" not in chosen(PAIRS, unique_subjects=True, shuffle=True, seed=1)


def test_conflicts_are_refused_with_the_way_out():
    message = refusal(PAIRS)
    assert message.startswith("record c1 and record c4 ask for different answers to 'b likes': 'x' and 'y'.")
    assert "`data.conflicts: keep_first` keeps the first of them" in message
    assert message.endswith("`replace` makes both, the later one replaces the earlier.")
    assert chosen(PAIRS, limit=4) == ["c0", "c1", "c3"]  # records that are not in the run cannot contradict it


def test_conflicts_can_be_left_out(caplog):
    data = Edits(PAIRS, conflicts="keep_first")
    assert [request.case_id for request in data.requests] == ["c0", "c1", "c3", "c5", "c6"]
    assert list(data.left_out.values()) == [["record c4"]]
    assert "1 record is left out: they contradict an earlier record" in caplog.text
    assert "1 edit was given more than once" in caplog.text
    # Which one is kept does not depend on the order in which they are made.
    assert "c4" not in chosen(PAIRS, conflicts="keep_first", shuffle=True, seed=2)


def of(loader):
    return [request.case_id for batch in loader for request in batch]


def test_later_records_can_replace_earlier_ones(caplog):
    data = Edits([*PAIRS, ("b", "z"), ("d", "y"), ("b", "x")], conflicts="replace", batch_size=2)
    edits = ["c0", "c1", "c3", "c4", "c5", "c6", "c7", "c8", "c9"]
    assert of(data.train_dataloader()) == edits  # all but the repetition, in their order
    assert of(data.test_dataloader()) == ["c0", "c3", "c6", "c8", "c9"]  # what holds at the end
    assert [request.case_id for request in data.measured] == of(data.test_dataloader())
    assert not data.left_out
    assert "4 edits are replaced by later ones of the same subject and prompt, `conflicts: replace`" in caplog.text
    assert "(record c1 by record c4, record c4 by record c7, record c5 by record c8 and 1 more)." in caplog.text


def test_the_order_of_the_run_decides_what_replaces_what():
    data = Edits([("a", "x"), ("a", "y")], conflicts="replace", indices=[1, 0])
    assert [request.target_new for request in data.measured] == ["x"]
    shuffled = [Edits([("a", "x"), ("a", "y")], conflicts="replace", shuffle=True, seed=s).measured for s in range(8)]
    assert {request.target_new for (request,) in shuffled} == {"x", "y"}
    # What is not in the run replaces nothing.
    assert [r.target_new for r in Edits([("a", "x"), ("a", "y")], conflicts="replace", limit=1).measured] == ["x"]


def test_runs_without_conflicts_measure_all_their_edits():
    data = Edits(DISTINCT, conflicts="replace")
    assert data.measured == data.requests == Edits(DISTINCT).measured


def test_keeping_the_first_subject_and_replacing_it_exclude_each_other():
    with pytest.raises(EditError, match=r"`data\.unique_subjects` keeps the first .* `data\.conflicts: replace` lets"):
        Edits(PAIRS, conflicts="replace", unique_subjects=True)


def test_another_rule_for_conflicts_is_refused():
    with pytest.raises(EditError, match=r"`data\.conflicts` must be one of refuse, keep_first or replace, got 'last'"):
        Edits(PAIRS, conflicts="last")


def test_settings_are_recorded_for_the_checkpoint():
    data = OwnEdits("edits.csv", limit=3, shuffle=True)
    assert {"path", "subset", "split", "limit", "batch_size", "seed", "conflicts", "indices"} <= set(data.hparams)
    assert (data.hparams.path, data.hparams.limit, data.hparams.shuffle, data.hparams.seed) == ("edits.csv", 3, True, 0)


@pytest.mark.slow
def test_real_records_contradict_each_other(shared):
    path = str(shared / "data" / "counterfact_easyedit_10k.json")
    records = json.loads((shared / "data" / "counterfact_easyedit_10k.json").read_text())
    first = {}
    for record in records:
        first.setdefault(record["prompt"], record["target_new"])
    contradicting = sum(first[record["prompt"]] != record["target_new"] for record in records)
    data = EasyEditCounterFact(path, conflicts="keep_first")
    assert len(data.requests) == len(first) == 9917
    assert [len(names) for names in data.left_out.values()] == [contradicting] == [79]
    with pytest.raises(EditError, match="ask for different answers"):
        EasyEditCounterFact(path, limit=2400).setup("fit")
    changing = EasyEditCounterFact(path, conflicts="replace")
    latest = {record["prompt"]: record["target_new"] for record in records}
    assert {request.rewrite_prompt: request.target_new for request in changing.measured} == latest
    assert len(changing.measured) == len(first) < len(changing.requests)
