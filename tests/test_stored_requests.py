"""Very many requests in a file: they are what they were, and hardly any of them is an object."""

import copy
import gc
import random
import tracemalloc

import pytest

from lightning_edit import EditRequest, stored_requests
from lightning_edit.errors import EditError
from lightning_edit.repetitions import distinct
from lightning_edit.request_texts import longest_text
from lightning_edit.requests import replaced_by, still_valid
from lightning_edit.ripples import Query, Ripple
from lightning_edit.stored_requests import (
    StoredRequests,
    filled,
    filled_in_all,
    fingerprint_of,
    kept,
    longer_than,
    some_of,
    without,
)


def made(count, **fields):
    return [EditRequest(f"subject {i}", "{} likes", f"answer {i}", case_id=str(i), **fields) for i in range(count)]


@pytest.fixture
def few(monkeypatch):
    """More than three requests are stored."""
    monkeypatch.setattr(stored_requests, "IN_MEMORY", 3)


RICH = EditRequest(
    "Ann",
    "{} lives in",
    "Rome",
    "Paris",
    case_id="7",
    paraphrase_prompts=("Ann's home is", "Ünï ß 𝛼 has"),
    locality=(("Bob lives in", "Oslo"),),
    ripples=(
        Ripple(
            "reasoning",
            (Query("The city of Ann is", (("Rome", "Roma"),)),),
            conditions=(Query("q", (("a",),), ("a", "b")),),
        ),
        Ripple("multi_hop", (Query("q", (("a",),)),), edits=(("Ann", "{} lives in"), ("", "Where?"))),
    ),
    question="Where does {} live?",
    answer="She lives in Rome.",
    where="edits.csv, line 3",
    separator="",
)
ASKED = EditRequest("Ann", "Where does {} live?", "Rome", original=RICH, said="In Rome.", lead_ins={"a prompt": "Ann"})


def test_all_of_a_request_comes_back():
    stored = StoredRequests([RICH, ASKED])
    for given, read in zip((RICH, ASKED), stored, strict=True):
        assert vars(read) == vars(given)
        assert read is not given
    assert vars(stored[1].original) == vars(RICH)
    assert stored[0] == RICH
    assert stored[-1].said == "In Rome."
    with pytest.raises(IndexError):
        stored[2]


def test_parts_are_those_of_a_list():
    requests = made(600)
    stored, order = StoredRequests(requests), list(range(600))
    random.Random(0).shuffle(order)
    shuffled = stored.take(order)
    for part in (slice(None), slice(5, 300), slice(500, None, 7), slice(None, None, -1), slice(9, 3)):
        assert list(stored[part]) == requests[part]
        assert list(stored[10:590][part]) == requests[10:590][part]
        assert list(shuffled[part]) == [requests[i] for i in order][part]
    assert list(shuffled.take([5, 1])) == [requests[order[5]], requests[order[1]]]
    assert copy.deepcopy(shuffled)[0] == requests[order[0]]
    changed = stored.take([2, 0], {2: RICH})
    assert list(changed) == [RICH, requests[0]]
    assert [changed[0], changed[1:][0]] == [RICH, requests[0]]


def test_few_stay_a_list(few):
    assert type(kept(iter(made(3)))) is list
    assert isinstance(kept(iter(made(4))), StoredRequests)
    assert list(kept(iter(made(9)))) == made(9)
    stored = StoredRequests(made(9))
    assert some_of(stored, [4, 2]) == [made(9)[4], made(9)[2]]
    assert list(some_of(stored, [4, 2, 8, 0])) == [made(9)[i] for i in (4, 2, 8, 0)]


def test_repetitions_are_found_without_objects():
    test = Ripple("reasoning", (Query("a prompt", (("an answer",),)),))
    requests = [*made(400), *made(2, ripples=(test,)), EditRequest("subject 3", "{} likes", "another")]
    stored = StoredRequests(requests)
    assert replaced_by(stored) == replaced_by(requests) == {0: 400, 1: 401, 3: 402}
    with pytest.raises(EditError, match="different answers to 'subject 3 likes'"):
        distinct(stored)
    wanted = distinct(requests, replace=True)
    assert len(wanted) == 401
    assert wanted[0].ripples == (test,)
    assert distinct(stored, replace=True) == wanted
    assert list(without(stored, replaced_by(stored))) == still_valid(requests)


def test_a_fingerprint_is_that_of_the_list():
    requests = [RICH, ASKED, *made(300)]
    stored = StoredRequests(requests)
    assert fingerprint_of(stored) == fingerprint_of(requests)
    assert fingerprint_of(stored[1:]) == fingerprint_of(requests[1:])
    assert fingerprint_of(stored[1:]) != fingerprint_of(stored)


def test_what_is_known_of_all_is_so():
    requests = [RICH, *made(5)]
    stored = StoredRequests(requests)
    for given in (requests, stored):
        assert filled(given, "ripples")
        assert not filled(given, "generation_prompts")
        assert filled_in_all(given, "subject")
        assert not filled_in_all(given, "ripples")
    assert filled_in_all(stored[:1], "ripples")
    assert list(longer_than(stored, 30)) == [RICH]
    assert list(longer_than(requests, 30)) == requests
    long = EditRequest("Ann", "{} likes", "Rome", paraphrase_prompts=("a very long prompt that says the same",))
    assert list(longer_than(StoredRequests([long]), 30)) == [long]
    assert not list(longer_than(StoredRequests([long]), 30, answered=True))
    assert longest_text(ASKED) == longest_text(RICH) >= len("Where does Ann live? She lives in Rome.")


def test_objects_are_made_only_for_who_looks():
    def many():
        for i in range(50_000):
            yield EditRequest(
                f"subject {i}", "{} likes", "an answer", paraphrase_prompts=[f"p {i} {j}" for j in range(10)]
            )

    gc.collect()
    tracemalloc.start()
    stored = kept(many())
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(stored, StoredRequests)
    assert len(stored) == 50_000
    alive = sum(isinstance(one, EditRequest) for one in gc.get_objects())
    assert alive < 1000
    # Three numbers for each; the first ones are objects until it is known that there are many.
    assert held < 50_000 * 40 + 2**21
    assert peak < 20_000 * 2_500 + held


def test_no_room_is_said(monkeypatch, tmp_path):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def flush(self):
            pass

    monkeypatch.setattr(stored_requests, "_temporary_file", Full)
    with pytest.raises(EditError, match=r"No space left on device\. Set the environment variable TMPDIR"):
        StoredRequests(made(1))
