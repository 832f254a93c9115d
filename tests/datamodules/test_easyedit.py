"""EasyEdit's flat format."""

import json

import pytest

from lightning_edit.datamodules import EasyEditCounterFact
from lightning_edit.errors import EditError


def make_record(**changes):
    record = {
        "case_id": 7,
        "prompt": "The mother tongue of Anna is",
        "target_new": "English",
        "subject": "Anna",
        "ground_truth": "French",
        "rephrase_prompt": "Anna speaks",
        "locality_prompt": "Michel Rocard speaks",
        "locality_ground_truth": "French",
    }
    return {name: value for name, value in (record | changes).items() if value is not ...}


def data(tmp_path, *records, **settings):
    path = tmp_path / "flat.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return EasyEditCounterFact(str(path), **settings)


def test_the_flat_fields_are_read(tmp_path):
    (request,) = data(tmp_path, make_record()).requests
    assert (request.subject, request.prompt, request.case_id) == ("Anna", "The mother tongue of {} is", "7")
    assert (request.target_new, request.target_true) == ("English", "French")
    assert request.paraphrase_prompts == ("Anna speaks",)
    assert request.neighborhood_prompts == ("Michel Rocard speaks",)
    assert request.locality == (("Michel Rocard speaks", "French"),)


def test_another_answer_makes_no_neighborhood_prompt(tmp_path):
    (request,) = data(tmp_path, make_record(locality_prompt="The Louvre is in", locality_ground_truth="Paris")).requests
    assert request.neighborhood_prompts == ()
    assert request.locality == (("The Louvre is in", "Paris"),)


def test_fields_may_be_absent_or_null(tmp_path):
    names = ("case_id", "ground_truth", "rephrase_prompt", "locality_prompt", "locality_ground_truth")
    null = make_record(subject="mother", **dict.fromkeys(names[1:]))
    first, second = data(tmp_path, make_record(**dict.fromkeys(names, ...)), null).requests
    for request, case_id in ((first, "0"), (second, "7")):
        assert (request.target_true, request.case_id) == (None, case_id)
        assert request.paraphrase_prompts == request.neighborhood_prompts == request.locality == ()


def test_fields_may_be_lists_and_locality_of_several_kinds(tmp_path):
    record = make_record(
        ground_truth=["French", "français"],
        rephrase_prompt=["Anna speaks", "Anna talks in"],
        locality_prompt=["Bo speaks", "The Louvre is in"],
        locality_ground_truth=[["French", "français"], "Paris"],
        locality={
            "Relation_Specificity": [{"prompt": "Anna is", "ground_truth": [["a singer"]]}],
            "Forgetfulness": None,
        },
        portability={"Reasoning": [{"prompt": "x", "ground_truth": "y"}]},
    )
    (request,) = data(tmp_path, record).requests
    assert request.target_true == "French"
    assert request.paraphrase_prompts == ("Anna speaks", "Anna talks in")
    assert request.neighborhood_prompts == ("Bo speaks",)
    assert request.locality == (("Bo speaks", "French"), ("The Louvre is in", "Paris"), ("Anna is", "a singer"))


def test_prompts_without_their_subject_are_counted(tmp_path, caplog):
    module = data(tmp_path, make_record(subject="Bo"), make_record())
    assert len(module.requests) == 1
    assert "1 record is left out: their prompt does not hold their subject" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ...}, "the field 'prompt' is missing."),
        ({"target_new": None}, "`target_new` must hold a text that is not empty, got None."),
        ({"target_new": "French"}, "nothing to edit"),
        ({"locality_ground_truth": ["French", "Paris"]}, "must be of one length, got 1 and 2."),
        ({"rephrase_prompt": 3}, "`rephrase_prompt` must be a text or a list of texts, got 3."),
        ({"locality": [1]}, "`locality` must be {kind: [{'prompt', 'ground_truth'}, ...]}, got [1]."),
        ({"locality": {"kind": [{"prompt": "x"}]}}, "`locality` must be {kind: "),
    ],
)
def test_bad_records_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(EditError) as error:
        data(tmp_path, make_record(subject="mother"), make_record(**changes)).setup("fit")
    assert str(error.value).startswith(f"{tmp_path}/flat.json, record 2: ")
    assert message in str(error.value)


def test_real_records_are_read(shared):
    path = shared / "data" / "counterfact_easyedit_10k.json"
    records = json.loads(path.read_text())
    requests = EasyEditCounterFact(str(path), limit=1000).requests
    assert len(requests) == 1000
    for request, record in zip(requests, records, strict=False):
        assert (request.rewrite_prompt, request.subject) == (record["prompt"], record["subject"])
        assert (request.target_new, request.target_true) == (record["target_new"], record["ground_truth"])
        assert request.paraphrase_prompts == (record["rephrase_prompt"],)
        assert request.neighborhood_prompts == (record["locality_prompt"],)
        assert request.case_id == str(record["case_id"])
    assert requests[0].prompt == "The mother tongue of {} is"


@pytest.mark.parametrize("nothing", [[""], [], "", " ", None, [[]], ["", "x"]])
def test_a_true_target_that_is_empty_is_none(tmp_path, nothing):
    (request,) = data(tmp_path, make_record(ground_truth=nothing)).requests
    assert request.target_true is None
    assert request.locality == (("Michel Rocard speaks", "French"),)
    assert request.neighborhood_prompts == ()


def test_a_wrong_value_is_refused_under_the_name_it_has_in_the_file(tmp_path):
    with pytest.raises(EditError, match=r"record 1: `ground_truth` must be a text or a list of texts, got 5\."):
        data(tmp_path, make_record(ground_truth=5)).setup("fit")
    with pytest.raises(EditError, match=r"record 1: `rephrase_prompt` must be .*, got 5 in it\."):
        data(tmp_path, make_record(rephrase_prompt=[5])).setup("fit")


def test_locality_prompts_without_an_answer_are_left_out_and_counted(tmp_path, caplog):
    locality = {
        "Forgetfulness": [{"prompt": f"Q{i}", "ground_truth": answer} for i, answer in enumerate(("", [""], "a"))]
    }
    records = make_record(locality=locality), make_record(prompt="Anna is", locality_ground_truth="")
    first, second = data(tmp_path, *records).requests
    assert first.locality == (("Michel Rocard speaks", "French"), ("Q2", "a"))
    assert second.locality == ()
    assert caplog.messages == [
        "3 locality prompts without an answer are left out ('Q0', 'Q1', 'Michel Rocard speaks')."
    ]
