"""CounterFact's original format, and what is said of a file that is not in it."""

import json

import pytest

from lightning_edit.datamodules import CounterFact
from lightning_edit.errors import EditError


def make_record(number=0, **changes):
    rewrite = {
        "prompt": "{} is located in the city of",
        "relation_id": "P131",
        "target_new": {"str": "Rome", "id": "Q220"},
        "target_true": {"str": "Paris", "id": "Q90"},
        "subject": f"Tower {number}",
    }
    record = {
        "case_id": number,
        "pararel_idx": 1,
        "requested_rewrite": rewrite,
        "paraphrase_prompts": ["You visit the tower in", "The tower stands in"],
        "neighborhood_prompts": ["The Louvre is in"],
        "attribute_prompts": ["The Colosseum is in"],
        "generation_prompts": ["The tower is known for"],
    }
    return record | changes


def rewritten(**changes):
    record = make_record(1)
    record["requested_rewrite"] = {
        name: value for name, value in (record["requested_rewrite"] | changes).items() if value is not ...
    }
    return record


def write(tmp_path, content):
    path = tmp_path / "counterfact.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def refusal(tmp_path, content, **settings):
    with pytest.raises(EditError) as error:
        CounterFact(write(tmp_path, content), **settings).setup("fit")
    return str(error.value)


def test_all_fields_of_the_original_format_are_read(tmp_path):
    (request,) = CounterFact(write(tmp_path, [make_record(5)])).requests
    assert (request.subject, request.prompt) == ("Tower 5", "{} is located in the city of")
    assert (request.target_new, request.target_true, request.case_id) == ("Rome", "Paris", "5")
    assert request.paraphrase_prompts == ("You visit the tower in", "The tower stands in")
    assert request.neighborhood_prompts == ("The Louvre is in",)
    assert request.attribute_prompts == ("The Colosseum is in",)
    assert request.generation_prompts == ("The tower is known for",)


def test_what_is_not_needed_may_be_absent(tmp_path):
    record = {"requested_rewrite": {"subject": "Anna", "prompt": "{} plays the", "target_new": {"str": "Łódź"}}}
    (request,) = CounterFact(write(tmp_path, [record])).requests
    assert (request.target_new, request.target_true, request.case_id) == ("Łódź", None, "")
    assert request.neighborhood_prompts == ()


def test_lists_may_be_null(tmp_path):
    lists = ("paraphrase_prompts", "neighborhood_prompts", "attribute_prompts", "generation_prompts")
    record = make_record(**dict.fromkeys((*lists, "paraphrase_questions")))
    (request,) = CounterFact(write(tmp_path, [record])).requests
    assert all(getattr(request, name) == () for name in (*lists, "paraphrase_questions"))


@pytest.mark.parametrize(("limit", "count"), [(None, 5), (2, 2), (5, 5), (9, 5)])
def test_the_first_records_up_to_the_limit_are_read_in_order(tmp_path, limit, count):
    data = CounterFact(write(tmp_path, [make_record(i) for i in range(5)]), limit=limit)
    assert [request.case_id for request in data.requests] == [str(i) for i in range(count)]


def test_bad_records_after_the_limit_do_not_matter(tmp_path):
    assert len(CounterFact(write(tmp_path, [make_record(), {}]), limit=1).requests) == 1


def test_batches_hold_the_records_in_order(tmp_path):
    data = CounterFact(write(tmp_path, [make_record(i) for i in range(5)]), batch_size=2, eval_batch_size=3)
    assert [[request.case_id for request in batch] for batch in data.train_dataloader()] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]
    assert [len(batch) for batch in data.test_dataloader()] == [3, 2]


def test_malformed_json_is_refused_by_line(tmp_path):
    text = json.dumps([make_record(0), make_record(1)], indent=1).replace('"case_id": 1,', '"case_id": 1')
    line = text.split("\n").index('  "case_id": 1') + 2
    message = refusal(tmp_path, text)
    assert f"counterfact.json, line {line}, column 3: not JSON" in message


def test_an_empty_file_is_refused(tmp_path):
    assert refusal(tmp_path, "").endswith("counterfact.json is empty.")


@pytest.mark.parametrize("text", ["[{", "case_id,subject\n1,Anna\n"])
def test_what_is_no_json_at_all_is_refused(tmp_path, text):
    assert "counterfact.json, line 1, column " in refusal(tmp_path, text)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "counterfact.json"
    path.write_bytes(json.dumps([make_record()], ensure_ascii=False).replace("Rome", "Málaga").encode("latin-1"))
    with pytest.raises(EditError, match=r"counterfact\.json"):
        CounterFact(str(path)).setup("fit")


@pytest.mark.parametrize("content", [{"data": []}, "null", '"text"', "3"], ids=str)
def test_a_file_that_is_no_list_is_refused(tmp_path, content):
    assert "expected a list of records, got " in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("record", "field"),
    [
        pytest.param({"case_id": 1}, "requested_rewrite", id="rewrite"),
        pytest.param(rewritten(subject=...), "subject", id="subject"),
        pytest.param(rewritten(prompt=...), "prompt", id="prompt"),
        pytest.param(rewritten(target_new=...), "target_new", id="target_new"),
        pytest.param(rewritten(target_new={"id": "Q220"}), "str", id="target_new.str"),
        pytest.param(rewritten(target_true={}), "str", id="target_true.str"),
    ],
)
def test_a_missing_field_is_named_with_its_record(tmp_path, record, field):
    message = refusal(tmp_path, [make_record(), record])
    assert message.endswith(f"counterfact.json, record 2: the field '{field}' is missing.")


@pytest.mark.parametrize(
    "record",
    [
        pytest.param([], id="a list"),
        pytest.param("text", id="a text"),
        pytest.param(None, id="null"),
        pytest.param({"requested_rewrite": "text"}, id="rewrite is a text"),
        pytest.param(rewritten(target_new="Rome"), id="target is a text"),
        pytest.param(rewritten(target_new=None), id="target is null"),
        pytest.param(make_record(1, paraphrase_prompts="The tower is in"), id="prompts are one text"),
        pytest.param(make_record(1, neighborhood_prompts=[{"prompt": "The Louvre is in"}]), id="prompts are objects"),
    ],
)
def test_a_wrong_structure_is_refused_with_its_record(tmp_path, record):
    assert "counterfact.json, record 2: " in refusal(tmp_path, [make_record(), record])


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (rewritten(prompt="no hole"), "exactly one {}"),
        (rewritten(subject=" "), "`subject` must be a text that is not empty"),
        (rewritten(target_new={"str": "Paris"}), "nothing to edit"),
    ],
)
def test_an_impossible_edit_is_refused_with_its_record(tmp_path, record, problem):
    message = refusal(tmp_path, [make_record(), record])
    assert "counterfact.json, record 2: " in message and "record 1" not in message
    assert problem in message


def test_contradicting_edits_are_refused_by_name(tmp_path):
    other = make_record(2)
    other["requested_rewrite"] = make_record(1)["requested_rewrite"] | {"target_new": {"str": "Berlin"}}
    assert refusal(tmp_path, [make_record(1), other]).startswith("record 1 and record 2 ask for different answers")


def test_an_empty_list_is_refused(tmp_path):
    assert refusal(tmp_path, []).startswith("CounterFact: there are no edits in ")


@pytest.mark.parametrize("name", ["absent.json", "folder/absent", "absent.jsonl"])
def test_a_missing_file_is_refused(tmp_path, name):
    path = str(tmp_path / name)
    with pytest.raises(EditError) as error:
        CounterFact(path).setup("fit")
    assert str(error.value) == f"`data.path`: there is no file {path}."


@pytest.mark.parametrize("setting", ["limit", "batch_size", "eval_batch_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_must_be_positive(setting, value):
    with pytest.raises(EditError, match=rf"^`data\.{setting}` must be a whole number of 1 or more.*, got {value}\.$"):
        CounterFact("counterfact.json", **{setting: value})


def test_real_records_are_read(shared):
    requests = CounterFact(str(shared / "data" / "counterfact_known.json"), limit=64).requests
    assert len(requests) == 64
    assert all(request.paraphrase_prompts and request.neighborhood_prompts for request in requests)
    assert all(request.target_true not in (None, request.target_new) for request in requests)
    assert all(request.subject in request.rewrite_prompt for request in requests)
    assert len({request.case_id for request in requests}) == 64
