"""What the command refuses, where it writes, and how it chooses examples."""

import json
import math
import shlex
import shutil

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.metrics.generated_text import generated_match
from lightning_edit.report.content import content_of
from lightning_edit.report.curves import read_rows
from lightning_edit.report.examples import MOST_FAILURES, SHOWN, chosen, rule, shown, spread
from lightning_edit.report.records import Edit, Loss
from tests.report.pages import Page
from tests.run_folders import write


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", *map(str, words)])
    assert ended.value.code == 2
    return capsys.readouterr().err


def page_of(run):
    cli.main(["report", str(run)])
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_the_page_lies_in_the_folder_of_a_single_run(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    cli.main(["report", str(tmp_path / "run")])
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert f"The report is in {tmp_path / 'run' / 'report.html'}" in capsys.readouterr().out


def test_the_same_run_gives_the_same_page(finished, tmp_path):
    for name in ("a.html", "b.html"):
        cli.main(["report", str(finished), "--output", str(tmp_path / name)])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_what_is_no_finished_run_is_refused_and_says_what_to_do(finished, tmp_path, capsys):
    assert "there is no folder" in refused(capsys, tmp_path / "none")
    (tmp_path / "file").write_text("x")
    assert "is a file, no folder" in refused(capsys, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "so it is no run. Give the folder of a finished run" in refused(capsys, tmp_path / "empty")
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    assert f"lightning-edit fit --ckpt_path {tmp_path / 'begun'}" in refused(capsys, tmp_path / "begun")
    (tmp_path / "begun").rename(tmp_path / "be gun")
    assert f"lightning-edit fit --ckpt_path '{tmp_path / 'be gun'}'" in refused(capsys, tmp_path / "be gun")
    write(tmp_path / "before")
    content = json.loads((tmp_path / "before" / "metrics.json").read_text())
    for name, change, words in (
        ("before", {"after": None}, "is not finished"),
        ("before", {"command": "test"}, "measured of another run"),
        ("before", {"collateral": {"worst": [{"prompt": "x"}]}}, "`collateral` is not as a run writes it"),
        ("before", {"after": {"S": "high"}}, "expected a number as S"),
    ):
        (tmp_path / name / "metrics.json").write_text(json.dumps({**content, **change}))
        assert words in refused(capsys, tmp_path / name)
    assert not (tmp_path / "before" / "report.html").exists()


@pytest.mark.parametrize("line", ['{"stage": "after"}', "[]", "7", '{"stage": "after", "efficacy": 3}'])
def test_damaged_records_are_refused(line, tmp_path, capsys):
    run = write(tmp_path / "run")
    (run / "records.jsonl").write_text(f"{line}\n")
    assert "not a record as a run writes it" in refused(capsys, run)
    assert "move it away to report without examples" in refused(capsys, run)


def test_commands_can_be_copied_into_a_shell(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "v 0; ls")
    page = page_of(tmp_path / "v 0; ls")
    commands = [one.text for one in page.section("How to undo it").all("code")]
    in_python, *of_shell = commands
    assert shlex.split(of_shell[1]) == ["lightning-edit", "updates", "remove", "v 0; ls", "1"]
    assert [shlex.split(one)[3] for one in of_shell] == ["v 0; ls"] * 3
    assert in_python == 'lightning_edit.ModelUpdate.load("v 0; ls/update.safetensors").remove(model)'


def broken(line):
    """A record of a model whose numbers are no finite ones: nothing is right, and log-probabilities are null."""
    if isinstance(line, list):
        return [broken(entry) for entry in line]
    if not isinstance(line, dict):
        return line
    null = {name: None for name in ("log_prob_new", "log_prob_true") if name in line}
    wrong = {"correct": False, "tokens_correct": 0} if "correct" in line else {}
    return {name: broken(value) for name, value in line.items()} | null | wrong


def test_a_run_whose_model_broke_has_a_report(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "records.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for place, record in enumerate(records):
        if record["stage"] == "after":
            records[place] = broken({name: record[name] for name in record if name != "continuation"})
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    page = page_of(tmp_path / "run")
    rows = list(page.section("Examples, before and after").all("tr"))[1:]
    assert len(rows) == 6
    assert all("probability of the new answer: not a number" in row.text for row in rows)
    assert "not a number" in page.section("What got worse").text
    (edits, *_) = content_of(tmp_path / "run", 100, [], None).tables
    assert {row[-1] for row in edits.rows} == {"not a number"}


@pytest.mark.parametrize("fall", [(0.9, math.nan), (math.nan, 0.9)])
def test_an_answer_that_became_no_number_fell_all_the_way(fall):
    assert Loss("question", "answer", (), *fall).fall == 1


def test_records_left_out_are_counted_and_no_folder_is_named(finished, tmp_path):
    (tmp_path / "run").mkdir()
    metrics = json.loads((finished / "metrics.json").read_text())
    named = [f"/home/someone/x.csv, line {line}: the edit of 'Bob'" for line in (3, 9)]
    metrics["records_left_out"] = {"bad (`data.bad_records: leave_out`)": named, "others": named[:1]}
    metrics["config"]["data"]["preservation"] = {"path": ["/home/someone/a.txt", "C:\\Users\\someone\\b.txt"]}
    metrics["config"]["data"]["path"] = "/home/someone/x.csv"
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    page = page_of(tmp_path / "run")
    [warning] = [one.text for one in page.all("div") if "Not all records" in one.text]
    assert "('bad (`data.bad_records: leave_out`)': 2, 'others': 1)" in warning
    assert "someone" not in page.source
    assert "['a.txt', 'b.txt']" in page.section("How it was made").text


@pytest.mark.parametrize("content", ["edits,x\n1,word\n", "update,x\n1,2\n", "edits\n1.5\n"])
def test_damaged_updates_are_refused(content, tmp_path, capsys):
    run = write(tmp_path / "run")
    (run / "updates.csv").write_text(content)
    assert "expected numbers and the number of `edits`" in refused(capsys, run)


def test_an_update_that_was_being_written_is_passed_over(tmp_path):
    (tmp_path / "updates.csv").write_text("update,edits\n1,2\n2,4\n3")
    assert [row["edits"] for row in read_rows(tmp_path)] == [2, 4]


@pytest.mark.parametrize("output", ["page.pdf", "page", "."])
def test_the_page_is_an_html_file(output, finished, tmp_path, capsys):
    assert "ends in .html" in refused(capsys, finished, "--output", tmp_path / output)


# -- the rule by which examples are chosen -----------------------------------------------------------------------------


def edits(failed, partly, fine):
    """Edits in turn: those not said, said but not in all wordings, and said everywhere."""
    kinds = [(False, (0, 2))] * failed + [(True, (1, 2))] * partly + [(True, (2, 2))] * fine
    return [
        Edit(str(place), "new", None, None, None, said, reworded, None, (None, 0.5))
        for place, (said, reworded) in enumerate(kinds)
    ]


@pytest.mark.parametrize(
    ("failed", "partly", "fine", "counts"),
    [
        (0, 0, 50, (0, 0, 10)),
        (3, 0, 50, (3, 0, 7)),
        (3, 20, 50, (3, None, None)),
        (40, 20, 50, (5, None, None)),
        (40, 0, 0, (10, 0, 0)),
        (40, 0, 2, (8, 0, 2)),
        (1, 1, 1, (1, 1, 1)),
    ],
)
def test_failures_come_first_and_leave_room_for_the_rest(failed, partly, fine, counts):
    given = edits(failed, partly, fine)
    found = chosen(given)
    assert len(found) == len({id(one) for one in found}) == min(SHOWN, len(given))
    said = [one.said for one in found]
    assert said == sorted(said)
    kinds = [(one.said, one.reworded == (2, 2)) for one in found]
    got = kinds.count((False, False)), kinds.count((True, False)), kinds.count((True, True))
    assert all(want is None or want == have for want, have in zip(counts, got, strict=True))
    if partly == 20:
        assert got[0] + got[1] >= MOST_FAILURES


def test_the_rule_is_said_with_its_numbers():
    assert "10 of 93" in rule(edits(23, 20, 50))
    assert "(5 of 23)" in rule(edits(23, 20, 50))
    assert "(there are none)" in rule(edits(0, 0, 50))
    assert "(3 in all)" in rule(edits(3, 0, 50))
    assert rule(edits(3, 0, 5)).startswith("These are all facts")


def test_examples_are_spread_from_the_first_to_the_last():
    assert spread(range(100), 4) == [0, 33, 66, 99]
    assert spread(range(3), 4) == [0, 1, 2]
    assert spread(range(100), 0) == []


@pytest.mark.parametrize(
    ("text", "new", "parts", "cut"),
    [
        (" Rome. It is large.", "Rome", (("Rome", True), (".", False)), False),
        ("It is old. It is in Rome.", "Rome", (("It is old. It is in ", False), ("Rome", True), (".", False)), False),
        ("It is in rome.", "Rome", (("It is in rome.", False),), False),
        ("\u7ebd\u7ea6\u5e02\u3002\u5927", "\u7ebd\u7ea6", (("\u7ebd\u7ea6", True), ("\u5e02\u3002", False)), False),
        ("Cafe\u0301 Rome", "Caf\u00e9", (("Caf\u00e9", True), (" Rome", False)), False),
        ("a " * 118 + "Romeo", "Rome", (("a " * 118 + "Rome", False),), True),
        ("Romeo.\nMore", "Rome", (("Romeo.", False),), False),
        (". The city.", "Rome", ((". The city.", False),), False),
        ("", "Rome", (), False),
        ("a" * 300, "Rome", (("a" * 240, False),), True),
    ],
)
def test_an_answer_is_its_first_sentence_with_the_new_answer_marked(text, new, parts, cut):
    answer = shown(text, new)
    assert (answer.parts, answer.cut) == (parts, cut)
    assert any(marked for _, marked in answer.parts) == generated_match(text, new)
