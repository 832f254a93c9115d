"""QAEdit, WikiBigEdit, UltraEditBench, FEVER, EditEverything and HalluEditBench, and tests in a user's own records."""

import csv
import json

import pytest
from datasets import Dataset

from lightning_edit import Query, Ripple
from lightning_edit.datamodules import (
    FEVER,
    EditEverything,
    HalluEditBench,
    OwnEdits,
    QAEdit,
    UltraEditBench,
    UnKE,
    WikiBigEdit,
)
from lightning_edit.errors import EditError
from lightning_edit.request_texts import described

QA = {
    "id": 3,
    "source": "NQ",
    "prompt": "Who wrote the song of Anna Larsen?",
    "target": "Bo",
    "subject": "Anna Larsen",
    "rephrase": "By whom is Anna Larsen's song?",
    "locality": [{"loc": "Who sings?", "loc_ans": "Carl"}, {"loc": "Who?", "loc_ans": ""}],
}
WIKI = {
    "subject": "Anna Larsen",
    "update": "Which club does Anna Larsen play for?",
    "ans": "Ajax",
    "rephrase": "Anna Larsen is a member of which club?",
    "personas": "Pray tell, whom does Anna Larsen play for?",
    "loc": "Where is Rome?",
    "loc_ans": "Italy",
    "mhop": "In which town is the club of Anna Larsen?",
    "mhop_ans": "Amsterdam",
}
ULTRA = {"prompt": "Who is it?", "rephrase_prompt": "Who?", "ans": "Bo", "loc": "Where?", "loc_ans": "Rome"}
CLAIM = {"prompt": "Rome is in Italy.", "alt": "REFUTES", "equiv_prompt": ["Italy has Rome."]}
CLAIM |= {"unrel_prompt": "Snow is white.", "unrel_ans": "SUPPORTS"}
LONG = {"id": "a", "question": "How?", "answer": "So it is done.", "category": "code"}
HALLU = {
    "topic": "art_sculpture",
    "subject": "Tall Horse",
    "relation": "depicts",
    "object": "horse",
    "question": "What does Tall Horse depict?",
    "output_some_model": "Art",
    "multiple_choices": "['horse', 'Art']",
    "paraphrased_question": "What is depicted by Tall Horse?",
    "multiple_choice_with_letters": "A. Art  B. horse",
    "multiple_choice_labels": "B",
    "yes_question": "Does Tall Horse depict a horse?",
    "no_question": "Does Tall Horse depict Art?",
    "locality_question": "Where is Tall Horse?",
    "reversed_relation_question": "What depicts a horse?",
    "question_2hop": "Who made what Tall Horse depicts?",
    "answer_2hop": "Nobody, really",
    "question_3hop": "When?",
    "answer_3hop": "1974",
    "question_4hop": "Where?",
    "answer_4hop": "",
}


def data(kind, tmp_path, *records, **settings):
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return kind(str(path), **settings)


def one(axis, prompt, *forms, kept=False, choices=()):
    return Ripple(axis, (Query(prompt, (forms,) if forms else (), choices),), kept=kept)


def test_qaedit(tmp_path, caplog):
    (request,) = data(QAEdit, tmp_path, QA, QA | {"subject": "Carl"}).requests
    assert (request.subject, request.prompt, request.target_new) == ("Anna Larsen", "Who wrote the song of {}?", "Bo")
    assert (request.case_id, request.paraphrase_prompts) == ("3", ("By whom is Anna Larsen's song?",))
    assert request.locality == (("Who sings?", "Carl"),) and request.ripples == ()
    assert "1 record is left out: their question does not hold their subject" in caplog.text
    assert "1 locality prompt without an answer is left out ('Who?')." in caplog.text


def test_wikibigedit(tmp_path):
    bare = WIKI | {"update": "Who is Anna Larsen?", "mhop": None, "mhop_ans": None, "personas": None, "loc": None}
    first, second = data(WikiBigEdit, tmp_path, WIKI, bare).requests
    assert (first.subject, first.prompt, first.target_new) == ("Anna Larsen", "Which club does {} play for?", "Ajax")
    assert first.locality == (("Where is Rome?", "Italy"),) and second.locality == ()
    assert first.ripples == (one("personas", WIKI["personas"], "Ajax"), one("multi_hop", WIKI["mhop"], "Amsterdam"))
    assert second.ripples == () and second.case_id == "1"


def test_ultraeditbench_and_malmens_zsre(tmp_path):
    other = {"src": "Who was it?", "rephrase": "Whoever?", "ans": ["Carl", "Karl"], "loc": "nq question: where"}
    first, second = data(UltraEditBench, tmp_path, ULTRA, other).requests
    assert (first.subject, first.prompt, first.target_new) == ("", "Who is it?", "Bo")
    assert first.paraphrase_prompts == ("Who?",) and first.locality == (("Where?", "Rome"),)
    assert (second.prompt, second.target_new, second.paraphrase_prompts) == ("Who was it?", "Carl", ("Whoever?",))
    assert second.locality == ()


def test_fever(tmp_path):
    (request,) = data(FEVER, tmp_path, CLAIM).requests
    assert request.prompt == "Rome is in Italy. True or false? Answer:" and request.subject == ""
    assert (request.target_new, request.target_true) == ("False", "True")
    assert request.paraphrase_prompts == ("Italy has Rome. True or false? Answer:",)
    assert request.locality == (("Snow is white. True or false? Answer:", "True"),)
    own = {"asked": "Is it so that {}", "supports": "yes", "refutes": "no"}
    (request,) = data(FEVER, tmp_path, {"prompt": "Rome is.", "alt": "SUPPORTS"}, **own).requests
    assert (request.prompt, request.target_new, request.locality) == ("Is it so that Rome is.", "yes", ())
    for wrong in ({"asked": "so?"}, {"supports": "no", "refutes": "no"}, {"supports": " "}):
        with pytest.raises(EditError, match=r"`data\.(asked|supports)`"):
            data(FEVER, tmp_path, CLAIM, **wrong)


def test_editeverything(tmp_path, caplog):
    records = LONG, LONG | {"id": "b", "question": "Why?", "category": "poetry"}
    assert [r.case_id for r in data(EditEverything, tmp_path, *records).requests] == ["a", "b"]
    (request,) = data(EditEverything, tmp_path, *records, categories=["poetry"]).requests
    assert (request.prompt, request.target_new, request.subject) == ("Why?", "So it is done.", "")
    assert "1 record is left out: they are of another category" in caplog.text
    with pytest.raises(EditError, match="names no category"):
        data(EditEverything, tmp_path, categories=[])


@pytest.mark.parametrize("kind", [EditEverything, FEVER, UltraEditBench, UnKE])
def test_code_with_braces_in_a_question_is_plain_text(tmp_path, kind):
    asked = 'What does println!("{}", x) print in Rust?'
    record = {EditEverything: LONG, UnKE: LONG, FEVER: CLAIM, UltraEditBench: ULTRA}[kind]
    (request,) = data(kind, tmp_path, record | {"question": asked, "prompt": asked}).requests
    assert request.rewrite_prompt.startswith(asked)


def test_a_place_is_not_said_twice(tmp_path):
    with pytest.raises(EditError, match=r"\.json, record 2: `target_new` must be a text"):
        data(UnKE, tmp_path, LONG, {"question": "Why?", "answer": "\u200b"}).setup("fit")
    with pytest.raises(EditError, match=r"\.json, record 1: record 17: `target_new` must be a text"):
        data(UnKE, tmp_path, {"id": 17, "question": "Why?", "answer": "\u200b"}).setup("fit")


def test_parts_of_a_long_answer_are_tests(tmp_path):
    parts = {"sub_question": ["When?", "Where?"], "sub_answer": ["Now.", ""]}
    (request,) = data(UnKE, tmp_path, LONG | parts).requests
    assert request.ripples == (one("sub_questions", "When?", "Now."),)
    with pytest.raises(EditError, match="must be of one length, got 2 and 1"):
        data(UnKE, tmp_path, LONG | parts | {"sub_answer": ["Now."]}).setup("fit")


def test_halluedit_from_csv_and_a_folder(tmp_path):
    path = tmp_path / "art.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(HALLU))
        writer.writeheader()
        writer.writerow(HALLU)
    for source in (path, tmp_path):
        (request,) = HalluEditBench(str(source)).requests
        assert (request.subject, request.prompt, request.target_new) == ("Tall Horse", "What does {} depict?", "horse")
        assert request.paraphrase_prompts == ("What is depicted by Tall Horse?",)
        assert request.ripples[:2] == (
            one("yes_no", HALLU["yes_question"], "Yes", choices=("Yes", "No")),
            one("yes_no", HALLU["no_question"], "No", choices=("Yes", "No")),
        )
        assert request.ripples[2:] == (
            one("multiple_choice", "What does Tall Horse depict? A. Art  B. horse", "B", choices=tuple("ABCD")),
            one("reversed_relation", "What depicts a horse?", "Tall Horse"),
            one("multi_hop_2", HALLU["question_2hop"], "Nobody, really"),
            one("multi_hop_3", "When?", "1974"),
            one("unrelated", "Where is Tall Horse?", kept=True),
        )
        # Runs that were made before there were choices know their records.
        assert "choices" not in described(request)


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        (
            QAEdit,
            QA | {"locality": [["x", "y"]]},
            "`locality` must be a list of {'loc', 'loc_ans'}, got ['x', 'y'] in it.",
        ),
        (QAEdit, QA | {"target": None}, "`target` must hold a text that is not empty, got None."),
        (WikiBigEdit, WIKI | {"mhop": 3}, "`mhop` must be a text or a list of texts, got 3."),
        (UltraEditBench, {"ans": "x"}, "`prompt` must be a text that is not empty, got None."),
        (FEVER, CLAIM | {"alt": "NOT ENOUGH INFO"}, "`alt` must be SUPPORTS or REFUTES, got 'NOT ENOUGH INFO'."),
        (FEVER, CLAIM | {"unrel_ans": 1}, "`unrel_ans` must be SUPPORTS or REFUTES, got 1."),
        (EditEverything, LONG | {"category": 3}, "`category` must be a text, got 3."),
        (HalluEditBench, HALLU | {"object": " "}, "`object` must be a text that is not empty, got None."),
    ],
)
def test_bad_records_are_refused_by_name(tmp_path, kind, record, message):
    with pytest.raises(EditError) as error:
        data(kind, tmp_path, record).setup("fit")
    assert str(error.value).startswith(f"{tmp_path}/records.json, record 1: ") and message in str(error.value)


def test_own_records_bring_tests_too(tmp_path):
    edit = {"subject": "Anna", "prompt": "{} is a", "target_new": "cook"}
    condition = {"prompt": "Bo is a", "answers": "baker"}
    tests = {
        "Reasoning": [{"prompt": "Anna has a", "answers": ["pan", "wok"], "conditions": [condition]}],
        "forgetfulness": [{"prompt": "Carl is a", "kept": True}],
        "yes_no": [{"prompt": "Is Anna a cook?", "answers": "Yes", "choices": ["Yes", "No"]}],
        "multi_hop": [{"queries": [{"prompt": "A", "answers": [["x", "y"], ["z"]]}, condition], "passes": "any"}],
    }
    (request,) = data(OwnEdits, tmp_path, edit | {"ripples": tests}).requests
    known = Query("Bo is a", (("baker",),))
    assert request.ripples == (
        Ripple("reasoning", (Query("Anna has a", (("pan", "wok"),)),), conditions=(known,)),
        one("forgetfulness", "Carl is a", kept=True),
        one("yes_no", "Is Anna a cook?", "Yes", choices=("Yes", "No")),
        Ripple("multi_hop", (Query("A", (("x", "y"), ("z",))), known), "any"),
    )
    path = tmp_path / "own.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*edit, "ripples"])
        writer.writeheader()
        writer.writerow(edit | {"ripples": json.dumps(tests)})
    assert OwnEdits(str(path)).requests[0].ripples == request.ripples
    for wrong in (
        [1],
        {"a": {}},
        {"a": [{"answers": "x"}]},
        {"a": [{"prompt": "x", "answer": "y"}]},
        {"a": [{"queries": 3}]},
        {"a": [{"queries": [{"prompt": "x"}], "answers": "y", "kept": True}]},
        {"a": [{"prompt": "x", "kept": "false"}]},
        {"a": [{"prompt": "x", "kept": 0}]},
        {"a": [{"prompt": "x", "answers": "y", "conditions": {}}]},
    ):
        with pytest.raises(EditError, match=r"record 1: `ripples` must be \{axis: "):
            data(OwnEdits, tmp_path, edit | {"ripples": wrong}).setup("fit")
    for wrong in (
        {"queries": [{"prompt": "x", "answer": "y"}], "kept": True},
        {"prompt": "x", "answers": "y", "unknown": ["z"]},
    ):
        with pytest.raises(
            EditError, match=r"record 1: a question of `ripples` must be \{'prompt', 'answers', 'choices'\}, got "
        ):
            data(OwnEdits, tmp_path, edit | {"ripples": {"a": [wrong]}}).setup("fit")


def test_tests_are_read_from_parquet_where_they_have_different_fields(tmp_path):
    edit = {"subject": "Anna", "prompt": "{} is a", "target_new": "cook"}
    tests = {"a": [{"prompt": "x", "answers": "y"}, {"queries": [{"prompt": "z"}], "kept": True}]}
    Dataset.from_list([edit | {"ripples": tests}]).to_parquet(tmp_path / "own.parquet")
    (request,) = OwnEdits(str(tmp_path / "own.parquet")).requests
    assert request.ripples == (one("a", "x", "y"), one("a", "z", kept=True))
