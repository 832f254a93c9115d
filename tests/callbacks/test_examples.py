"""The table of edits in the model's own words."""

import pytest

from lightning_edit.callbacks.measuring.examples import ShowExamples, said
from lightning_edit.datamodules import TinyWorld
from lightning_edit.metrics.edit_metrics import has_failed
from tests.small_runs import Requests, module
from tests.trainers import quiet_trainer


def shown(folder, requests, callback, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    data, made = Requests(requests), module(edits_per_update=None)
    runner = quiet_trainer(folder, callback)
    runner.fit(made, datamodule=data)
    runner.test(made, datamodule=data, verbose=False)
    return made, capsys.readouterr().out


def test_all_edits_are_shown_or_else_those_that_failed(tmp_path, monkeypatch, capsys):
    requests = TinyWorld(edits=6).requests
    made, everything = shown(tmp_path, requests, ShowExamples(), monkeypatch, capsys)
    rows = [line for line in everything.splitlines() if line.startswith("│")]
    assert [request.rewrite_prompt in row for request, row in zip(requests, rows, strict=True)] == [True] * 6
    # What the model said before the run is asked of the model as the run found it.
    assert all(request.target_true in row for request, row in zip(requests, rows, strict=True))

    records = [{"subject": r.subject, "prompt": r.prompt, "target_new": r.target_new} for r in requests]
    for record, match in zip(records, (True, True, False, True, False, True), strict=True):
        record["generated_match"] = match
    callback = ShowExamples(count=3)
    callback.on_test_batch_end(made.trainer, made, {"records": records}, None, 0)
    callback.on_test_end(made.trainer, made)
    few = capsys.readouterr().out
    rows = [line for line in few.splitlines() if line.startswith("│")]
    assert all(requests[i].rewrite_prompt in row for i, row in zip((2, 4, 0), rows, strict=True))
    assert "3 of 6 edits, failures first; 2 edits of 6 failed" in few


def test_what_the_test_has_written_is_not_written_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    data, made, asked = Requests(TinyWorld(edits=4).requests), module(edits_per_update=None), []
    written = ShowExamples._answers

    def answers(self, *given):
        asked.append(self.tokens)
        return written(self, *given)

    monkeypatch.setattr(ShowExamples, "_answers", answers)
    # Of other length than what the test writes.
    callbacks = ShowExamples(), ShowExamples(tokens=19)
    runner = quiet_trainer(tmp_path, *callbacks)
    runner.test(made, datamodule=data, verbose=False)
    runner.fit(made, datamodule=data)
    capsys.readouterr()
    runner.test(made, datamodule=data, verbose=False)
    assert asked == [19, 19]
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert len(rows) == 8
    assert rows[:4] == rows[4:]
    # Another model's answers to the same edits are no answers of this one.
    other, runner = module(edits_per_update=None), quiet_trainer(tmp_path / "other", *callbacks)
    runner.fit(other, datamodule=data)
    runner.test(other, datamodule=data, verbose=False)
    assert asked == [19, 19, 20, 19, 19]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Rome. It is big. Rome", "Rome"),
        (" a big city. Its name is\nRome. It is", "a big city. Its name is Rome"),
        (" Paris. It is big. It is", "Paris"),
        ("", ""),
    ],
)
def test_an_answer_is_shown_up_to_the_target(text, expected):
    assert said(text, "Rome") == expected


def test_without_generated_answers_an_edit_fails_where_a_token_is_wrong():
    assert has_failed({"efficacy": [{"correct": False}]})
    assert not has_failed({"efficacy": [{"correct": True}]})
    reply = {"generated_match": True, "target_new": "Rome", "target_true": "Paris"}
    assert not has_failed({**reply, "continuation": "Rome. Paris is far."})
    # It comes upon the new answer as it goes on, about something else.
    assert has_failed({**reply, "continuation": "Paris. The Colosseum is in Rome."})
    # A sentence that repeats its prompt says nothing by that.
    assert not has_failed({**reply, "subject": "Paris FC", "continuation": "Paris FC plays in Rome."})
