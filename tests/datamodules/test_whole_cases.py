"""Cases of several edits stay whole, however the edits of a run are chosen."""

import json

import pytest

from lightning_edit import Query, Ripple, stored_requests
from lightning_edit.datamodules import AKEW, MQuAKE
from lightning_edit.errors import EditError
from lightning_edit.requests import replaced_by
from lightning_edit.stored_requests import StoredRequests

KINDS = pytest.mark.parametrize("kind", [AKEW, MQuAKE], ids=["AKEW", "MQuAKE"])


def case(name, *edits):
    """A case of edits such as "Anna Syria", which asks one question that is its own."""
    rewrites = [
        {"prompt": "{} is a citizen of", "subject": subject, "target_new": {"str": new}, "target_true": {"str": "Oz"}}
        for subject, new in map(str.split, edits)
    ]
    return {"case_id": name, "requested_rewrite": rewrites, "questions": [f"Who is {name}?"], "new_answer": "x"}


# The second case shares an edit with the first one and contradicts it, the third contradicts the second.
CASES = (
    case("one", "Anna Syria", "Bo Chad"),
    case("two", "Anna Syria", "Bo Peru", "Carl Mali"),
    case("three", "Dora Togo", "Carl Cuba"),
    case("four", "Emil Fiji"),
)


def data(kind, tmp_path, *cases, **settings):
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(cases or CASES), encoding="utf-8")
    return kind(str(path), **settings)


def edits(made):
    return [f"{request.subject} {request.target_new}" for request in made.requests]


def asked(made):
    """For each test who brings it."""
    return {test.queries[0].prompt: request.subject for request in made.requests for test in request.ripples}


def left_out(made):
    return {reason.partition(" (")[0]: names for reason, names in made.left_out.items()}


@KINDS
def test_of_conflicting_cases_the_first_is_kept_whole(tmp_path, kind, caplog):
    made = data(kind, tmp_path, conflicts="keep_first")
    # What contradicts only a case that was left out is kept.
    assert edits(made) == ["Anna Syria", "Bo Chad", "Dora Togo", "Carl Cuba", "Emil Fiji"]
    assert asked(made) == {"Who is one?": "Bo", "Who is three?": "Carl", "Who is four?": "Emil"}
    assert left_out(made) == {"an edit of theirs contradicts an earlier one": ["record two"]}
    assert "1 record is left out: an edit of theirs contradicts an earlier one (`conflicts: keep_first`)" in caplog.text


@KINDS
def test_of_conflicting_cases_the_last_is_kept_whole(tmp_path, kind, caplog):
    made = data(kind, tmp_path, conflicts="replace")
    assert edits(made) == ["Anna Syria", "Bo Chad", "Dora Togo", "Carl Cuba", "Emil Fiji"]
    assert left_out(made) == {"an edit of theirs contradicts a later one": ["record two"]}
    assert made.measured == made.requests and not replaced_by(made.requests)
    made = data(kind, tmp_path, *CASES[:2], conflicts="replace")
    assert edits(made) == ["Anna Syria", "Bo Peru", "Carl Mali"]
    assert asked(made) == {"Who is two?": "Carl"}
    assert "1 record is left out: an edit of theirs contradicts a later one (`conflicts: replace`)" in caplog.text
    # A single edit is replaced, as in other data sets.
    made = data(kind, tmp_path, case("single", "Bo Togo"), CASES[0], case("last", "Anna Fiji"), conflicts="replace")
    assert edits(made) == ["Bo Togo", "Anna Fiji"]
    made = data(kind, tmp_path, case("single", "Bo Togo"), CASES[0], conflicts="replace")
    assert edits(made) == ["Bo Togo", "Anna Syria", "Bo Chad"]
    assert [request.subject for request in made.measured] == ["Anna", "Bo"]
    # What is not in the run replaces nothing.
    assert edits(data(kind, tmp_path, *CASES[:2], conflicts="replace", limit=2)) == ["Anna Syria", "Bo Chad"]


@KINDS
@pytest.mark.parametrize("conflicts", ["keep_first", "replace"])
def test_a_case_that_contradicts_itself_is_left_out(tmp_path, kind, conflicts):
    made = data(kind, tmp_path, case("none", "Bo Chad", "Bo Peru"), *CASES[:1], conflicts=conflicts)
    assert edits(made) == ["Anna Syria", "Bo Chad"] and list(made.left_out.values()) == [["record none"]]


@KINDS
@pytest.mark.parametrize("seed", range(6))
def test_in_a_random_order_too(tmp_path, kind, seed):
    made = data(
        kind, tmp_path, *CASES[:2], case("five", "Zoe Iran", "Yan Laos"), conflicts="replace", shuffle=True, seed=seed
    )
    first, second = {"Anna Syria", "Bo Chad"}, {"Anna Syria", "Bo Peru", "Carl Mali"}
    assert set(edits(made)) - {"Zoe Iran", "Yan Laos"} in (first, second)
    assert len(asked(made)) == 2 and list(map(len, made.left_out.values())) == [1]


@KINDS
def test_the_refusal_of_conflicts_says_what_happens_to_cases(tmp_path, kind):
    with pytest.raises(EditError) as error:
        data(kind, tmp_path).setup("fit")
    assert "record one and record two ask for different answers" in str(error.value)
    assert "`data.conflicts: keep_first` keeps the first of both, `replace` the last. A case of" in str(error.value)


@KINDS
def test_a_limit_ends_before_a_case_that_does_not_fit_in(tmp_path, kind, caplog):
    cases = CASES[0], CASES[2], CASES[3]
    for limit, expected in ((2, 2), (3, 2), (4, 4), (5, 5), (9, 5)):
        made = data(kind, tmp_path, *cases, limit=limit)
        assert len(made.requests) == expected
        assert list(made.left_out.values()) == ([["record three"]] if limit == 3 else [])
    assert caplog.text.count("1 record is left out: `limit` ends among their edits, and a case is edited as a") == 1
    with pytest.raises(EditError, match=r"`data\.limit` is 1, and record one has 2 edits.* Set it to 2 or more"):
        data(kind, tmp_path, *cases, limit=1).setup("fit")
    # Counted is what is left.
    assert len(data(kind, tmp_path, conflicts="keep_first", limit=4).requests) == 4


@KINDS
def test_nothing_behind_a_limit_is_looked_at(tmp_path, kind, caplog):
    bad = {"case_id": "bad", "requested_rewrite": "none"}
    assert edits(data(kind, tmp_path, CASES[0], bad, limit=2)) == ["Anna Syria", "Bo Chad"]
    made = data(kind, tmp_path, CASES[0], bad, limit=2, bad_records="leave_out")
    assert len(made.requests) == 2 and made.left_out == {}
    made = data(kind, tmp_path, *CASES[:2], limit=2, conflicts="keep_first")
    assert edits(made) == ["Anna Syria", "Bo Chad"] and made.left_out == {}
    assert "left out" not in caplog.text
    # What stands before the limit counts.
    with pytest.raises(EditError, match=r"record 2: `requested_rewrite` must be"):
        data(kind, tmp_path, CASES[0], bad, limit=3).setup("fit")


def test_cases_of_another_size_behind_a_limit_are_not_counted(tmp_path, caplog):
    singles = [case(str(number), f"S{number} Fiji") for number in range(5)]
    made = data(MQuAKE, tmp_path, CASES[0], *singles, edits_per_case=2, limit=2)
    assert edits(made) == ["Anna Syria", "Bo Chad"] and made.left_out == {} and "left out" not in caplog.text
    made = data(MQuAKE, tmp_path, *singles, CASES[0], singles[0], edits_per_case=2, limit=2)
    assert len(made.requests) == 2 and [len(names) for names in made.left_out.values()] == [5]


@KINDS
@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 2], "Those of record one are 0 to 1, and the list has only 0 together."),
        ([0, 1, 2, 4], "Those of record two are 2 to 4, and the list has only 2, 4 together."),
        ([5, 0, 6, 1], "Those of record three are 5 to 6, and the list has only 5 together."),
    ],
)
def test_positions_that_cut_a_case_are_refused(tmp_path, kind, indices, message):
    with pytest.raises(EditError) as error:
        data(kind, tmp_path, indices=indices).setup("fit")
    assert message in str(error.value) and "choose cases by `data.case_ids`" in str(error.value)


@KINDS
def test_positions_and_ids_of_whole_cases_are_taken_in_their_order(tmp_path, kind):
    assert edits(data(kind, tmp_path, indices=[7, 5, 6, 0, 1])) == [
        *("Emil Fiji", "Dora Togo", "Carl Cuba", "Anna Syria", "Bo Chad")
    ]
    made = data(kind, tmp_path, indices=[1, 0])
    assert edits(made) == ["Bo Chad", "Anna Syria"] and asked(made) == {"Who is one?": "Anna"}
    made = data(kind, tmp_path, case_ids=["three", "one", "two"], conflicts="keep_first")
    assert edits(made) == ["Dora Togo", "Carl Cuba", "Anna Syria", "Bo Chad"]
    with pytest.raises(EditError, match=r"`data\.indices`: 8: the data set has the records 0 to 7"):
        data(kind, tmp_path, indices=[8]).setup("fit")


def test_a_bad_edit_leaves_out_its_case(tmp_path):
    bad = case("bad", "Finn Oman", "Gus Iraq")
    bad["requested_rewrite"][1]["prompt"] = "He is"
    made = data(MQuAKE, tmp_path, CASES[0], bad, CASES[3], bad_records="leave_out", conflicts="keep_first")
    assert edits(made) == ["Anna Syria", "Bo Chad", "Emil Fiji"] and list(map(len, made.left_out.values())) == [1]


@KINDS
def test_many_cases_in_a_file_are_chosen_alike(tmp_path, kind, monkeypatch):
    cases = [case(f"c{i}", f"S{i} a", f"S{i + 1} {'ab'[i % 3 == 0]}") for i in range(12)]
    found = {how: edits(data(kind, tmp_path, *cases, conflicts=how)) for how in ("keep_first", "replace")}
    monkeypatch.setattr(stored_requests, "IN_MEMORY", 3)
    for how, expected in found.items():
        made = data(kind, tmp_path, *cases, conflicts=how)
        assert isinstance(made.requests, StoredRequests) and edits(made) == expected
        for request in made.requests:
            assert all(len(test.edits) == 2 for test in request.ripples)


def test_tests_need_all_edits_of_their_case_and_come_with_the_last(tmp_path):
    need = (("Anna", "{} is a citizen of"), ("Bo", "{} is a citizen of"))
    shared = case("again", "Hal Guam", "Anna Syria")
    made = data(MQuAKE, tmp_path, CASES[0], shared, CASES[3])
    # Its last edit is made with the first case, before its other one.
    assert edits(made) == ["Anna Syria", "Bo Chad", "Hal Guam", "Emil Fiji"]
    assert asked(made) == {"Who is one?": "Bo", "Who is again?": "Hal", "Who is four?": "Emil"}
    _, second, third, fourth = made.requests
    assert second.ripples == (Ripple("multi_hop", (Query("Who is one?", (("x",),)),), "any", edits=need),)
    assert third.ripples[0].edits == (("Hal", "{} is a citizen of"), need[0]) and fourth.ripples[0].edits == ()


def test_facts_of_a_text_need_its_own_edit_alone(tmp_path):
    one = case("one", "Anna Syria", "Bo Chad")
    facts = {"fact_new_uns": "Such is life.", "unsfact_triplets_GPT": [{"prompt": "Life is", "target": "such"}]}
    for rewrite, place in zip(one["requested_rewrite"], ("here", "there"), strict=True):
        rewrite |= facts | {"question": f"Who is {place}?"}
    first, second = data(AKEW, tmp_path, one, form="unstructured").requests
    assert [test.edits for test in first.ripples] == [()]
    assert [test.edits for test in second.ripples] == [(), (("", "Who is here?"), ("", "Who is there?"))]
