"""zsRE in MEND's format, and where the subject stands in a question."""

import csv
import json

import pytest

from lightning_edit.datamodules import ZsRE
from lightning_edit.datamodules.subjects import cut_out
from lightning_edit.errors import EditError


def make_record(**changes):
    record = {
        "subject": "Anna",
        "src": "Which instrument does Anna play?",
        "pred": "piano",
        "rephrase": "What does Anna play?",
        "alt": "violin",
        "answers": ["piano", "grand piano"],
        "loc": "nq question: where is the louvre",
        "loc_ans": "Paris",
        "cond": "piano >> violin || Which instrument does Anna play?",
    }
    return {name: value for name, value in (record | changes).items() if value is not ...}


def data(tmp_path, *records, **settings):
    path = tmp_path / "zsre.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return ZsRE(str(path), **settings)


def table(tmp_path, **changes):
    path = tmp_path / "zsre.csv"
    record = {name: value if isinstance(value, str) else json.dumps(value) for name, value in make_record().items()}
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, record)
        writer.writeheader()
        writer.writerow(record | changes)
    return ZsRE(str(path))


def refusal(tmp_path, *records, **settings):
    with pytest.raises(EditError) as error:
        data(tmp_path, *records, **settings).setup("fit")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "subject", "found"),
    [
        ("Where is Rome?", "Rome", ("Where is {}?", "Rome")),
        ("Rome is not Rome?", "Rome", ("{} is not Rome?", "Rome")),
        ("Did Romeo see Rome?", "Rome", ("Did Romeo see {}?", "Rome")),
        ("Do rome and Rome differ?", "Rome", ("Do rome and {} differ?", "Rome")),
        ("Who sang in the beatles?", "The Beatles", ("Who sang in {}?", "the beatles")),
        ("Romans like rome?", "Rome", ("Romans like {}?", "rome")),
        ("When did the Simpsons start?", "Simpson", ("When did the {}s start?", "Simpson")),
        ("Is it Anna's?", "Anna", ("Is it {}'s?", "Anna")),
        ("Who wrote C++ (1985)?", "C++", ("Who wrote {} (1985)?", "C++")),
        ("Who is  Jean\nFoo?", " Jean  Foo ", ("Who is  {}?", "Jean\nFoo")),
        ("巴黎在哪里", "巴黎", ("{}在哪里", "巴黎")),
        ("Was Jose\u0301 a boy?", "Jos\u00e9", ("Was {} a boy?", "Jose\u0301")),
        ("Was Jos\u00e9 a boy?", "Jose\u0301", ("Was {} a boy?", "Jos\u00e9")),
        ("Was jos\u00e9 a boy?", "Jose\u0301", ("Was {} a boy?", "jos\u00e9")),
        ("{} is in Rome", "Rome", ("{} is in Rome", "Rome")),
        ("Where is the party?", "Art", None),
        ("Where is it?", "Rome", None),
    ],
)
def test_the_subject_is_found_where_it_stands(text, subject, found):
    assert cut_out(text, subject) == found


def test_the_fields_are_those_of_the_published_evaluation(tmp_path):
    (request,) = data(tmp_path, make_record()).requests
    assert (request.subject, request.prompt) == ("Anna", "Which instrument does {} play?")
    assert (request.target_new, request.target_true, request.case_id) == ("piano", None, "0")
    assert request.paraphrase_prompts == ("What does Anna play?",)
    assert request.locality == (("nq question: where is the louvre?", "Paris"),)
    assert request.neighborhood_prompts == ()


def test_the_alternative_can_be_written_instead(tmp_path):
    (request,) = data(tmp_path, make_record(), target="alt").requests
    assert (request.target_new, request.target_true) == ("violin", "piano")


@pytest.mark.parametrize("loc", ["where is it? ", "where is it ", "where is it?"])
def test_there_is_one_question_mark(tmp_path, loc):
    assert data(tmp_path, make_record(loc=loc)).requests[0].locality == (("where is it?", "Paris"),)


def test_a_question_mark_is_not_doubled_and_locality_may_be_absent(tmp_path):
    records = (
        make_record(loc="where is it?"),
        make_record(subject="Bo", src="Is Bo?", loc=..., loc_ans=..., rephrase=...),
    )
    first, second = data(tmp_path, *records).requests
    assert first.locality == (("where is it?", "Paris"),)
    assert (second.locality, second.paraphrase_prompts, second.case_id) == ((), (), "1")


def test_questions_without_their_subject_are_counted(tmp_path, caplog):
    absent = [make_record(subject=name) for name in ("Bo", "Cid", "Dan", "Eva")]
    module = data(tmp_path, *absent[:2], make_record(), *absent[2:])
    assert [request.case_id for request in module.requests] == ["2"]
    ((reason, names),) = module.left_out.items()
    assert reason == "their question does not hold their subject"
    assert names == [f"{tmp_path}/zsre.json, record {number}" for number in (1, 2, 4, 5)]
    assert "4 records are left out: their question does not hold their subject" in caplog.text
    assert "zsre.json, record 1, " in caplog.text
    assert "record 5" not in caplog.text


def test_positions_count_the_records_that_are_left_out(tmp_path):
    module = data(tmp_path, make_record(subject="Bo"), make_record(), indices=[1])
    assert [request.case_id for request in module.requests] == ["1"]
    assert module.left_out == {}


def test_lists_in_cells_are_json(tmp_path):
    (request,) = table(tmp_path, rephrase='["What is it?", "What does Anna play?"]', loc="[]").requests
    assert (request.target_new, request.locality) == ("piano", ())
    assert request.paraphrase_prompts == ("What is it?", "What does Anna play?")
    for cell in ("['a', 'b']", "['a']"):
        with pytest.raises(EditError, match="`rephrase` holds a list as Python writes it"):
            table(tmp_path, rephrase=cell).setup("fit")
    # Other files hold lists as such, and texts as they stand.
    (request,) = data(tmp_path, make_record(rephrase="['a'] is what of Anna?", answers="[1, 2]")).requests
    assert (request.target_new, request.paraphrase_prompts) == ("[1, 2]", ("['a'] is what of Anna?",))


@pytest.mark.parametrize("alt", ["", "piano", " piano "])
def test_alternatives_that_change_nothing_are_counted(tmp_path, alt):
    module = data(tmp_path, make_record(), make_record(subject="play", alt=alt), target="alt")
    assert len(module.requests) == 1
    assert [len(names) for names in module.left_out.values()] == [1]
    assert data(tmp_path, make_record(alt=alt)).requests[0].target_new == "piano"


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"src": ...}, {}, "the field 'src' is missing."),
        ({"answers": ...}, {}, "the field 'answers' is missing."),
        ({"alt": ...}, {"target": "alt"}, "the field 'alt' is missing, which `data.target: alt` writes."),
        ({"src": None}, {}, "`src` must be a text that is not empty, got None."),
        ({"subject": 3}, {}, "`subject` must be a text that is not empty, got 3."),
        ({"subject": " "}, {}, "`subject` must be a text that is not empty, got ' '."),
        ({"answers": []}, {}, "`answers` must hold a text that is not empty, got []."),
        ({"answers": [" "]}, {}, "`answers` must hold a text that is not empty"),
        ({"rephrase": [""]}, {}, "`rephrase` must be a text or a list of texts that are not empty"),
        ({"rephrase": 3}, {}, "`rephrase` must be a text or a list of texts, got 3."),
        ({"loc_ans": 3}, {}, "`loc_ans` must be a text or a list of texts, got 3."),
    ],
)
def test_bad_records_are_refused_by_name(tmp_path, changes, settings, message):
    good = make_record(subject="play")
    found = refusal(tmp_path, good, make_record(**changes), **settings)
    assert found.startswith(f"{tmp_path}/zsre.json, record 2: ")
    assert message in found


def test_records_of_another_format_get_a_hint(tmp_path):
    record = {"requested_rewrite": {"subject": "Anna", "prompt": "{} plays", "target_new": {"str": "a"}}}
    assert refusal(tmp_path, record).endswith("The record looks like one for CounterFact: give --data CounterFact.")
    record = {"subject": "Anna", "prompt": "Anna is", "target_new": "a", "ground_truth": "b"}
    assert refusal(tmp_path, record).endswith("give --data EasyEditCounterFact.")
    assert refusal(tmp_path, "text").endswith("expected an object with the fields subject, src, answers, got 'text'.")


def test_another_target_is_refused():
    with pytest.raises(EditError, match=r"`data\.target` must be answers or alt, got 'pred'"):
        ZsRE("zsre.json", target="pred")


@pytest.mark.parametrize(("target", "count"), [("answers", 1000), ("alt", 981)])
def test_real_records_are_read(shared, target, count):
    path = shared / "data" / "zsre_mend_1k.json"
    records = json.loads(path.read_text())
    requests = ZsRE(str(path), target=target).requests
    assert len(requests) == count
    for request in requests:
        record = records[int(request.case_id)]
        assert request.rewrite_prompt == record["src"]
        assert request.target_new == (record["alt"].strip() if target == "alt" else record["answers"][0])
        assert request.locality == ((record["loc"] + "?", record["loc_ans"]),)
    assert requests[0].prompt == "What is the product made by {}?"
    assert requests[0].paraphrase_prompts == ("What will be the product of UniFirst?",)


def test_a_record_without_a_name_of_its_own_has_its_position(tmp_path):
    for given in (..., None):
        (request,) = data(tmp_path, make_record(case_id=given)).requests
        assert request.case_id == "0"
    assert "`case_id` must be a text or a number" in refusal(tmp_path, make_record(case_id=["a"]))
