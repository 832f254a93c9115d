"""Texts about subjects and targets, as the published evaluation chooses them."""

import json

import pytest

from lightning_edit.datamodules import CounterFact
from lightning_edit.errors import EditError


def sample(name, text):
    return {"name": name, "target": "x", "text": text}


SNIPPETS = [
    {
        "relation_id": "P1",
        "target_id": "Qnew",
        "samples": [sample("Bo", "Bo lives in Rome."), sample("Anna", "Anna?"), sample("Cid", " ")],
    },
    {
        "relation_id": "P1",
        "target_id": "Qtrue",
        "samples": [sample("Anna", "Anna of Paris."), sample("Bo", "Bo of Paris.")],
    },
    {"relation_id": "P2", "target_id": "Qnew", "samples": [sample("Dan", "Another relation.")]},
    {"relation_id": "P1", "target_id": "Qnew", "samples": [sample("Eva", "Eva lives in Rome.")]},
]


def make_record(subject="Anna", **changes):
    rewrite = {
        "prompt": "{} lives in",
        "relation_id": "P1",
        "target_new": {"str": "Rome", "id": "Qnew"},
        "target_true": {"str": "Paris", "id": "Qtrue"},
        "subject": subject,
    }
    rewrite = {name: value for name, value in (rewrite | changes).items() if value is not ...}
    return {"case_id": 1, "requested_rewrite": rewrite}


def data(tmp_path, records, snippets=SNIPPETS):
    for name, content in (("counterfact.json", records), ("snippets.json", snippets)):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    return CounterFact(str(tmp_path / "counterfact.json"), snippets=str(tmp_path / "snippets.json"))


def refusal(*args):
    with pytest.raises(EditError) as error:
        data(*args).setup("fit")
    return str(error.value)


def test_texts_are_chosen_as_published(tmp_path):
    anna, dan = data(tmp_path, [make_record(), make_record("Dan", target_true=...)]).requests
    assert anna.reference_texts == dan.reference_texts == ("Bo lives in Rome.", "Anna?", "Eva lives in Rome.")
    assert (anna.essence_texts, dan.essence_texts) == (("Anna of Paris.",), ())


def test_edits_without_texts_are_counted(tmp_path, caplog):
    records = [make_record(), make_record("Bo", relation_id="P9")]
    assert [len(request.reference_texts) for request in data(tmp_path, records).requests] == [3, 0]
    assert "1 of 2 edits are without reference texts" in caplog.text


def test_snippets_of_another_data_set_are_refused(tmp_path):
    assert "has no text for any of 1 edit." in refusal(tmp_path, [make_record(relation_id="P9")])


def test_records_without_ids_are_refused(tmp_path):
    assert refusal(tmp_path, [make_record(relation_id=...)]).endswith("record 1: the field 'relation_id' is missing.")
    assert refusal(tmp_path, [make_record(target_new={"str": "Rome"})]).endswith("the field 'id' is missing.")


@pytest.mark.parametrize(
    "entry", [{"relation_id": "P1"}, "text", {"relation_id": "P1", "target_id": "Q", "samples": [{"name": "Bo"}]}]
)
def test_another_format_is_refused(tmp_path, entry):
    message = refusal(tmp_path, [make_record()], [*SNIPPETS, entry])
    assert message.startswith(f"{tmp_path}/snippets.json, record 5: expected {{'relation_id', 'target_id', 'samples'")


def test_a_missing_file_is_refused(tmp_path):
    module = data(tmp_path, [make_record()])
    with pytest.raises(EditError, match=r"^`data\.snippets`: there is no file absent\.json\.$"):
        CounterFact(module.path, snippets="absent.json").setup("fit")
