"""Judges: an endpoint that answers, refuses, fails, or talks nonsense, and a model on this machine."""

import json
import logging
import shutil
import threading
import time

import pytest
import torch
from transformers import T5Config

from lightning_edit.errors import EditError
from lightning_edit.metrics.judging.endpoint import Endpoint, NoReplyError
from lightning_edit.metrics.judging.judge import Case, Judge, Verdict
from lightning_edit.metrics.judging.local import LocalJudge
from lightning_edit.metrics.judging.prompt import PROMPT, verdict_of
from lightning_edit.metrics.judging.questions import AHEAD
from lightning_edit.metrics.judging.settings import JudgeSettings
from lightning_edit.tiny import MODEL_PATH
from tests.judges import by_letter, content, dead_url, served

KEY = "sk-very-secret-0123456789"
# By letter right, wrong, and right; the last two are clear without a judge.
CASES = [
    Case("Where is it?", "Rome", "Rom, in Italy"),
    Case("Where is it?", "Rome", "Paris"),
    Case("Who is it?", "Anna", "a woman called Anna"),
    Case("Who is it?", "Anna", "the  ANNA!"),
    Case("Who is it?", "Anna", " "),
]
EXPECTED = [
    Verdict(True, "judge"),
    Verdict(False, "judge"),
    Verdict(True, "judge"),
    Verdict(True, "rule"),
    Verdict(False, "rule"),
]
# What exact match says of the first three.
BY_MATCH = [Verdict(False, "exact match")] * 3


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def judge_of(url, folder, **settings):
    settings = {"wait": 0.01, "tries": 3, "cache_dir": None if folder is None else str(folder), **settings}
    return Judge(JudgeSettings(model="marker", url=url, **settings))


def counts(judge, *names):
    said = judge.counts()
    return tuple(said[name] for name in names or ("judged", "from_cache", "by_rule", "exact_match", "unreadable"))


def test_an_endpoint_marks_answers_and_the_key_is_in_the_header_alone(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    told = []
    with served() as server, caplog.at_level(logging.DEBUG):
        judge = judge_of(
            server.url, tmp_path / "cache", key_variable="MY_KEY", arguments={"seed": 1, "max_tokens": None}
        )
        judge.check()
        server.seen.clear()
        # Equal answers are asked once.
        assert judge([*CASES, CASES[0]], report=lambda *said: told.append(said)) == [*EXPECTED, EXPECTED[0]]
    assert counts(judge) == (4, 0, 2, 0, 0) and judge.counts()["problem"] is None
    assert told[-1] == ("judge (answers)", 3, 3)
    assert len(server.seen) == 3
    for request in server.seen:
        assert request["path"] == "/v1/chat/completions"
        assert request["headers"]["Authorization"] == f"Bearer {KEY}"
        assert KEY not in request["body"]
        body = json.loads(request["body"])
        assert body["model"] == "marker" and body["temperature"] == 0 and body["seed"] == 1
        assert "max_tokens" not in body and len(body["messages"]) == 1
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert written and KEY.encode() not in written
    assert KEY not in caplog.text and KEY not in repr(vars(judge.settings))


def test_without_a_key_variable_nothing_is_sent(monkeypatch, tmp_path):
    # What requests would send by itself.
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with served() as server:
        judge_of(server.url, None)(CASES)
    assert len(server.seen) == 3 and not any("Authorization" in request["headers"] for request in server.seen)


def test_what_was_judged_is_not_asked_again(tmp_path):
    with served() as server:
        judge_of(server.url, tmp_path)(CASES[:2])
        assert len(server.seen) == 2
        second = judge_of(server.url + "/", tmp_path, at_once=1)
        assert second(CASES) == EXPECTED
        assert len(server.seen) == 3 and counts(second) == (3, 2, 2, 0, 0)
        # Another judge, or another question to it, knows nothing of these.
        for changed in ({"prompt": PROMPT + " "}, {"arguments": {"seed": 1}}, {"reply_tokens": 99}):
            judge_of(server.url, tmp_path, **changed)(CASES)
        Judge(JudgeSettings(model="other", url=server.url, cache_dir=str(tmp_path)))(CASES)
        assert len(server.seen) == 3 + 4 * 3
    # Elsewhere another model may have the same name.
    with served() as elsewhere:
        judge_of(elsewhere.url, tmp_path)(CASES)
        assert len(elsewhere.seen) == 3
    # Nobody is needed any more.
    third = judge_of(server.url, tmp_path)
    assert third(CASES) == EXPECTED and counts(third) == (3, 3, 2, 0, 0)


def test_no_answer_is_wrong_whatever_it_is_compared_with():
    with served() as server:
        nothing = [Case("Who is it?", "", ""), Case("Who is it?", "", "Anna"), Case("Who is it?", " ", "\n")]
        assert judge_of(server.url, None)(nothing) == [Verdict(False, "rule")] * 3
        assert not server.seen


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_is_refused_for_now_is_asked_again(status):
    refused = {1: status, 2: status, 4: status}

    def reply(number, gold, prediction):
        return (refused[number], "slow down", {}) if number in refused else by_letter(gold, prediction)

    with served(reply) as server:
        judge = judge_of(server.url, None, at_once=1)
        assert judge(CASES) == EXPECTED
        assert len(server.seen) == 3 + 3 and counts(judge) == (3, 0, 2, 0, 0)


def test_retry_after_is_waited_for():
    def reply(number, gold, prediction):
        return (429, "", {"Retry-After": "1"}) if number == 1 else by_letter(gold, prediction)

    with served(reply) as server:
        start = time.monotonic()
        assert judge_of(server.url, None, at_once=1)(CASES[:1]) == EXPECTED[:1]
        assert time.monotonic() - start > 0.9


@pytest.mark.parametrize("status", [429, 500])
def test_what_was_judged_before_an_endpoint_fails_is_kept(status, tmp_path, caplog):
    cases, mended = [Case("Where?", "Rome", f"R, said {number}") for number in range(40)], []

    def reply(number, gold, prediction):
        return by_letter(gold, prediction) if number <= 5 or mended else (status, f"no {KEY}", {})

    with served(reply) as server:
        judge = judge_of(server.url, tmp_path, at_once=1, tries=2)
        verdicts = judge(cases)
        asked = len(server.seen)
        # Nothing more is asked of it.
        judge([Case("Where?", "Rome", "Paris")])
        assert len(server.seen) == asked == 5 + 3 * 2
        assert sorted(verdict.by for verdict in verdicts) == ["exact match"] * 35 + ["judge"] * 5
        assert all(verdict.right == (verdict.by == "judge") for verdict in verdicts)
        assert counts(judge, "judged", "exact_match") == (5, 36) and str(status) in judge.counts()["problem"]
        assert "35 answers are marked by exact match" in caplog.text
        # A later stage asks again, what is missing alone.
        mended.append(True)
        judge.reset()
        again = judge_of(server.url, tmp_path)
        assert [verdict.by for verdict in again(cases)] == ["judge"] * 40 and len(server.seen) == asked + 35
    assert counts(judge, "judged", "exact_match", "problem") == (0, 0, None)


def test_a_failure_now_and_then_stops_nobody():
    cases = [Case("Where?", "Rome", f"R, said {number}") for number in range(9)]

    def reply(number, gold, prediction):
        return (400, "too long", {}) if number % 3 == 0 else by_letter(gold, prediction)

    with served(reply) as server:
        judge = judge_of(server.url, None, at_once=1)
        assert sorted(verdict.by for verdict in judge(cases)) == ["exact match"] * 3 + ["judge"] * 6
        assert len(server.seen) == 9 and "400: too long" in judge.counts()["problem"]


def test_a_dead_port_leaves_exact_match(caplog):
    judge = judge_of(dead_url(), None, tries=2)
    judge.check()
    assert "What it does not judge will be marked by exact match" in caplog.text
    assert judge(CASES) == [*BY_MATCH, *EXPECTED[3:]]
    assert counts(judge) == (0, 0, 2, 3, 0) and "refused" in judge.counts()["problem"]


def test_a_dead_port_is_said_at_once_and_in_words(caplog):
    url = dead_url()
    # As long waits as by default.
    judge, start = judge_of(url, None, tries=6, wait=1.0), time.monotonic()
    judge.check()
    assert judge(CASES)[:3] == BY_MATCH
    assert time.monotonic() - start < 3
    assert judge.counts()["problem"] == f"no server answers at {url} (connection refused)"
    assert f"judge: no server answers at {url} (connection refused). What it does not" in caplog.text
    assert "HTTPConnectionPool" not in caplog.text


def test_a_server_that_has_answered_is_waited_for_when_it_starts_anew():
    endpoint = Endpoint(JudgeSettings(model="marker", url=dead_url(), wait=0.1), threading.Event(), tries=3)
    start = time.monotonic()
    with pytest.raises(NoReplyError, match="no server answers"):
        endpoint("?")
    assert time.monotonic() - start < 0.1
    endpoint._answered.set()
    start = time.monotonic()
    with pytest.raises(NoReplyError, match="no server answers"):
        endpoint("?")
    assert time.monotonic() - start > 0.25
    endpoint.close()


def test_a_host_that_does_not_exist_is_said_in_words():
    judge = judge_of("http://no-such-host.invalid:8000/v1", None, tries=1)
    assert judge(CASES[:1]) == BY_MATCH[:1]
    assert judge.counts()["problem"] == "the host of http://no-such-host.invalid:8000/v1 is not known here"


def test_a_server_that_keeps_silent_is_said_in_words():
    def reply(number, gold, prediction):
        time.sleep(0.5)
        return by_letter(gold, prediction)

    with served(reply) as server:
        judge = judge_of(server.url, None, tries=1, timeout=0.1)
        assert judge(CASES[:1]) == BY_MATCH[:1]
        assert judge.counts()["problem"] == f"no answer from {server.url} within 0.1 s"


def test_nobody_waits_for_an_endpoint_that_was_given_up():
    cases = [Case("Where?", "Rome", f"R, said {number}") for number in range(200)]
    with served(lambda *_: (503, "", {})) as server:
        judge = judge_of(server.url, None, tries=3, wait=0.2, at_once=16)
        start = time.monotonic()
        assert {verdict.by for verdict in judge(cases)} == {"exact match"}
        assert time.monotonic() - start < 5
    assert not any(thread.name.startswith("judge") and thread.is_alive() for thread in threading.enumerate())


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_endpoint_that_will_never_answer_is_known_before_the_run(status, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with served(lambda *_: (status, {"error": f"no {KEY}"}, {})) as server:
        judge = judge_of(server.url, None, key_variable="MY_KEY", at_once=1)
        with pytest.raises(EditError, match=rf"answered {status}.*Check `url`") as raised:
            judge.check()
        assert KEY not in str(raised.value) and "***" in str(raised.value)
        # In the middle of a run it stops nothing.
        assert judge(CASES)[:3] == BY_MATCH
        assert len(server.seen) == 2 and KEY not in judge.counts()["problem"]


def test_the_key_follows_no_redirection(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with served() as other, served(lambda *_: (307, "", {"Location": f"{other.url}/chat/completions"})) as server:
        judge = judge_of(server.url, None, key_variable="MY_KEY", at_once=1)
        assert judge(CASES)[:3] == BY_MATCH and "307" in judge.counts()["problem"]
        assert not other.seen


MALFORMED = [
    (200, "<html>Sign in</html>", {}),
    (200, {"choices": []}, {}),
    (200, [], {}),
    (200, {"choices": [{"message": {"content": None}}]}, {}),
    (200, "[" * 100_000, {}),
    content("A and B"),
    content("I cannot tell."),
    content(""),
    content("A, but B is right too"),
]


@pytest.mark.parametrize("answer", MALFORMED, ids=lambda answer: str(answer[1])[:40])
def test_a_reply_that_says_nothing_is_counted_and_not_kept(answer, tmp_path):
    with served(lambda *_: answer) as server:
        judge = judge_of(server.url, tmp_path)
        assert judge(CASES) == [*BY_MATCH, *EXPECTED[3:]]
        assert counts(judge) == (0, 0, 2, 3, 3)
        judge(CASES)
        assert len(server.seen) == 6


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("A", True),
        (" b.\n", False),
        ("**A**", True),
        ("(B)", False),
        ("Answer: A", True),
        ("The final answer is B.", False),
        ("A: correct", True),
        ("B (incorrect)", False),
        ("<think>B? No, A.\nA or B?</think>\n\nA", True),
        ("A\nB", None),
        ("B: correct", None),
        ("A wrong", None),
        ("A man", None),
        ("AB", None),
        ("AA", None),
        ("C", None),
    ],
)
def test_a_verdict_is_one_letter(reply, verdict):
    assert verdict_of(reply) is verdict


def test_the_prompt_holds_texts_as_they_are():
    case = Case("What is {gold}?", "{0} {}", "A } B {question}")
    seen = []

    def reply(number, gold, prediction):
        seen.append((gold, prediction))
        return content("A")

    with served(reply) as server:
        assert judge_of(server.url, None)([case]) == [Verdict(True, "judge")]
    assert seen == [("{0} {}", "A } B {question}")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://127.0.0.1/v1"}, r"`evaluation\.judge\.model` must say"),
        ({"model": "m", "key_variable": "KEY"}, r"give `evaluation\.judge\.url` too"),
        ({"model": "m", "url": "http://127.0.0.1/v1", "key_variable": KEY}, "name of an environment variable"),
        ({"model": "m", "url": "http://127.0.0.1/v1", "key_variable": f" {KEY.upper()}"}, "in capitals, such as"),
        ({"model": "m", "url": KEY}, "must be an address such as"),
        ({"model": "m", "url": "file:///etc/passwd"}, "must be an address such as"),
        ({"model": "m", "url": "https://[half"}, "must be an address such as"),
        ({"model": "m", "url": f"https://me:{KEY}@host/v1"}, "settings are written to files"),
        ({"model": "m", "url": f"https://host/v1?api_key={KEY}"}, "settings are written to files"),
        ({"model": "m", "prompt": "Is {gold} {prediction}?"}, r"must hold \{question\}, \{gold\}"),
        ({"model": "m", "prompt": "{question} {gold} {prediction} {0}"}, "no other braces"),
        ({"model": "m", "prompt": "{question} {gold} {prediction} {"}, "no other braces"),
        ({"model": "m", "tries": 0}, r"`evaluation\.judge\.tries` must be a whole number of 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused_and_keys_not_shown(settings, message):
    with pytest.raises(EditError, match=message) as raised:
        JudgeSettings(**settings)
    assert KEY not in str(raised.value)


def test_a_key_that_is_not_there_is_said_at_once(monkeypatch):
    monkeypatch.setenv("EMPTY_KEY", " ")
    for name in ("EMPTY_KEY", "NO_SUCH_KEY_HERE"):
        judge = judge_of("http://127.0.0.1:9/v1", None, key_variable=name)
        with pytest.raises(EditError, match="no variable of this name, or an empty one"):
            judge.check()


def test_an_interrupt_keeps_what_was_paid_for(tmp_path):
    cases = [Case("Where?", "Rome", f"R, said {number}") for number in range(30)]

    def stop(stage, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with served() as server:
        with pytest.raises(KeyboardInterrupt):
            judge_of(server.url, tmp_path, at_once=1)(cases, report=stop)
        # However fast the endpoint is, few answers lie unread when the interrupt comes.
        assert 4 <= len(server.seen) <= 4 + AHEAD
        judge = judge_of(server.url, tmp_path)
        judge(cases)
        assert judge.counts()["from_cache"] >= 4


def test_a_model_on_this_machine_judges(tmp_path):
    settings = JudgeSettings(model=str(MODEL_PATH), cache_dir=str(tmp_path), prompt="{question} {gold} {prediction} is")
    judge, told = Judge(settings), []
    judge.check()
    verdicts = judge(CASES, report=lambda *said: told.append(said))
    # The embedded model knows no letters of marks.
    assert verdicts == [*BY_MATCH, *EXPECTED[3:]] and counts(judge) == (0, 0, 2, 3, 3)
    assert told[-1] == ("generate (texts)", 3, 3)
    judge.close()
    assert judge._local is None


def test_a_wrong_model_on_this_machine_is_known_before_the_run(tmp_path):
    T5Config().save_pretrained(tmp_path)
    for file in MODEL_PATH.glob("tokenizer*.json"):
        shutil.copy(file, tmp_path)
    for model, why in ((f"{tmp_path}/none", "there is no folder"), (str(tmp_path), "no causal language model")):
        with pytest.raises(EditError, match=rf"^`evaluation\.judge\.model`: {why}"):
            Judge(JudgeSettings(model=model)).check()
    (tmp_path / "tokenizer.json").unlink()
    shutil.copy(MODEL_PATH / "config.json", tmp_path)
    with pytest.raises(EditError, match=r"^`evaluation\.judge\.model`: .* holds no tokenizer"):
        Judge(JudgeSettings(model=str(tmp_path))).check()


def test_a_model_on_this_machine_is_known_by_its_weights(tmp_path):
    local = LocalJudge.load(str(MODEL_PATH), torch.device("cpu"))
    assert local.name == LocalJudge.load(str(MODEL_PATH), torch.device("cpu")).name
    replies = local(["Belmur lives in", "word " * 5000], 4)
    assert isinstance(replies[0], str) and replies[1] is None
    with pytest.raises(EditError, match="no-such-folder"):
        Judge(JudgeSettings(model=str(tmp_path / "no-such-folder"), cache_dir=None))(CASES)
