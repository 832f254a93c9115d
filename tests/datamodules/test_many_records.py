"""Many records: read one by one, chosen before they are looked at, and the same edits as before."""

import csv
import json
import random

import pytest

from lightning_edit import EditRequest, stored_requests
from lightning_edit.datamodules import CounterFact, OwnEdits, base
from lightning_edit.errors import EditError
from lightning_edit.storage import json_list
from lightning_edit.storage.user import json as user_json
from lightning_edit.storage.user.json import json_records
from lightning_edit.stored_requests import StoredRequests

RECORDS = [
    {"subject": f"subject {i}", "prompt": "{} lives in", "target_new": f"town {i % 7}", "case_id": i}
    for i in range(500)
]


def written(path, records=RECORDS):
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, RECORDS[0])
            table.writeheader()
            table.writerows(records)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    else:
        path.write_text(json.dumps(records), encoding="utf-8")
    return str(path)


@pytest.fixture
def made(monkeypatch):
    """The subjects of all requests that are made."""
    subjects, check = [], EditRequest.__post_init__

    def noted(request):
        check(request)
        subjects.append(request.subject)

    monkeypatch.setattr(EditRequest, "__post_init__", noted)
    return subjects


def few_in_memory(monkeypatch, number):
    for module in (stored_requests, base):
        monkeypatch.setattr(module, "IN_MEMORY", number)


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_random_few_are_drawn_before_records_are_looked_at(tmp_path, made, suffix):
    path = written(tmp_path / f"edits.{suffix}")
    requests = OwnEdits(path, shuffle=True, seed=5, limit=10).requests
    assert len(made) == 10
    # The same as where all are made and shuffled.
    shuffled = RECORDS[:]
    random.Random(5).shuffle(shuffled)
    assert [request.subject for request in requests] == [record["subject"] for record in shuffled[:10]]
    assert requests[0].where.endswith(f"{int(requests[0].case_id) + (2 if suffix == 'csv' else 1)}")


def test_positions_are_looked_at_alone(tmp_path, made):
    path = written(tmp_path / "edits.jsonl")
    assert [request.case_id for request in OwnEdits(path, indices=[300, 4]).requests] == ["300", "4"]
    assert len(made) == 2
    with pytest.raises(EditError, match="500: the data set has the records 0 to 499"):
        _ = OwnEdits(path, indices=[500]).requests


def test_who_may_leave_records_out_is_read_whole(tmp_path, made):
    class Odd(OwnEdits):
        """A reader that inherits from one whose records are all edits."""

    path = written(tmp_path / "edits.jsonl")
    wanted = [request.subject for request in OwnEdits(path, shuffle=True, limit=5).requests]
    made.clear()
    assert [request.subject for request in Odd(path, shuffle=True, limit=5).requests] == wanted
    assert len(made) == 500
    bad = [*RECORDS, {"subject": "x", "prompt": "no place", "target_new": "y"}]
    data = OwnEdits(written(tmp_path / "bad.jsonl", bad), shuffle=True, limit=5, bad_records="leave_out")
    assert [request.subject for request in data.requests] == wanted
    assert len(data.left_out) == 1


def test_a_bad_record_that_is_chosen_is_refused_with_its_place(tmp_path):
    records = [dict(record) for record in RECORDS]
    del records[3]["target_new"]
    path = written(tmp_path / "edits.jsonl", records)
    with pytest.raises(EditError, match=r"edits\.jsonl, line 4: .*'target_new' is missing"):
        _ = OwnEdits(path, indices=[3]).requests
    with pytest.raises(EditError, match=r"edits\.jsonl, line 4"):
        _ = OwnEdits(path, shuffle=True, limit=500).requests


SETTINGS = [
    {},
    {"limit": 300},
    {"shuffle": True, "seed": 2},
    {"shuffle": True, "limit": 200},
    {"unique_subjects": True, "shuffle": True, "limit": 150},
    {"conflicts": "keep_first"},
    {"separator": "", "limit": 120},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=[" ".join(map(str, settings.items())) for settings in SETTINGS])
def test_stored_edits_are_those_of_the_list(tmp_path, monkeypatch, settings):
    path = written(tmp_path / "edits.jsonl", [*RECORDS, RECORDS[9]])
    listed = OwnEdits(path, **settings).requests
    few_in_memory(monkeypatch, 100)
    data = OwnEdits(path, **settings)
    assert isinstance(data.requests, StoredRequests)
    assert list(map(vars, data.requests)) == list(map(vars, listed))
    assert list(data.measured) == listed
    assert [batch[0] for batch in data.train_dataloader()] == listed[:: data.batch_size]


def test_answers_and_questions_are_stored_as_well(tmp_path, monkeypatch):
    few_in_memory(monkeypatch, 100)
    data = OwnEdits(written(tmp_path / "edits.jsonl"))
    before = list(data.requests)
    data.learn(["In a town." if i == 3 else None for i in range(500)])
    assert isinstance(data.requests, StoredRequests)
    assert [request.said for request in data.requests[2:5]] == [None, "In a town.", None]
    assert list(data.requests[4:]) == before[4:]


def test_conflicts_among_stored_edits_are_refused(tmp_path, monkeypatch):
    few_in_memory(monkeypatch, 100)
    path = written(tmp_path / "edits.jsonl", [*RECORDS, {**RECORDS[7], "target_new": "elsewhere"}])
    with pytest.raises(EditError, match="record 7 and record 7 ask for different answers to 'subject 7 lives in'"):
        _ = OwnEdits(path).requests
    data = OwnEdits(path, conflicts="replace")
    assert len(data.requests) == 501
    assert [request.subject for request in data.measured][6:8] == ["subject 6", "subject 8"]


# -- long JSON lists ---------------------------------------------------------------------------------------------------

TEXTS = [
    "[]",
    " [ ]\n",
    "[1, 23, -4.5e3,null , true]",
    '[{"a": "x\\ud83d\\ude00y", "b": [1, {"c": "]"}]},\n  {"d": "ü\\n"}]\n',
    json.dumps(RECORDS[:20]),
    json.dumps(RECORDS[:20], indent=1),
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_long_list_is_read_entry_by_entry(tmp_path, monkeypatch, text, chunk):
    path = tmp_path / "list.json"
    path.write_text(text, encoding="utf-8")
    whole = list(json_records(path))
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    monkeypatch.setattr(user_json, "CHUNK", 0)
    assert list(json_records(path)) == whole
    assert [record for record, _ in json_records(path, wanted={1})][1:2] == [record for record, _ in whole][1:2]


WRONG = [
    "[1, 2",
    "[1 2]",
    "[1,]",
    '[{"a": 1},\n {"b" 2}]',
    '["a", "b]',
    "[1]\n x",
    "[1, tru]",
    '["\\ud800"]',
    f"[{'[' * 120}{']' * 120}]",
    "   ",
    "\ufeff[1, nul]",
]


@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_in_a_long_list_is_said_as_in_a_short_one(tmp_path, monkeypatch, text, chunk):
    path = tmp_path / "list.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EditError) as short:
        list(json_records(path))
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    monkeypatch.setattr(user_json, "CHUNK", 0)
    with pytest.raises(EditError) as long:
        list(json_records(path))
    assert str(long.value) == str(short.value)


def test_a_name_that_an_entry_gives_twice_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "list.json"
    path.write_text('[{"a": 1},\n {"a": {"b": 1, "b": 2}}]', encoding="utf-8")
    monkeypatch.setattr(user_json, "CHUNK", 0)
    with pytest.raises(EditError, match=r"list\.json, the entry that begins on line 2: 'b' is given twice. Keep one"):
        list(json_records(path))


def test_one_object_is_no_list(tmp_path, monkeypatch):
    path = tmp_path / "list.json"
    path.write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    monkeypatch.setattr(user_json, "CHUNK", 0)
    with pytest.raises(EditError, match=r"expected a list of records, got one object\. If it holds one record a line"):
        list(json_records(path))


def test_counterfact_is_drawn_alike(tmp_path, made):
    records = [
        {
            "case_id": i,
            "requested_rewrite": {"subject": f"s {i}", "prompt": "{} is in", "target_new": {"str": "Rome"}},
            "paraphrase_prompts": [],
        }
        for i in range(100)
    ]
    path = written(tmp_path / "records.json", records)
    drawn = CounterFact(path, shuffle=True, limit=3).requests
    assert len(made) == 3
    assert drawn == CounterFact(path, shuffle=True).requests[:3]
