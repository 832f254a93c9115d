"""What is said to the user: short, in one reading, and never markup."""

import ast
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table

from lightning_edit.callbacks.measuring.examples import ShowExamples
from lightning_edit.callbacks.progress import EditProgressBar
from lightning_edit.cli.main import main
from lightning_edit.collateral.long_context import AFTER, BEFORE, RATIO
from lightning_edit.collateral.table import tables
from lightning_edit.downstream.table import table as downstream_table
from lightning_edit.errors import EditError
from lightning_edit.messages import LONGEST, bounded, cells, counted, listed, printable, quoted, readable, terminal
from lightning_edit.progress import ProgressBars
from lightning_edit.requests import EditRequest

HOSTILE = [
    "[/b]",
    "[/INST] x",
    "[red]",
    "[link=file:///x]y[/link]",
    ":smile:",
    "\x1b[31m",
    "\x07\x9b",
    "a\u202eb",
    "\\[",
]
ROOT = Path(__file__).parent.parent
SECTION = {
    "asked": {"general": 2, "old_object": 0, "other_subjects": 0, "same_subject": 0, "reworded": 0},
    "possible": {},
    "worst": [],
}


def shown(renderable, **options):
    stream = io.StringIO()
    terminal(file=stream, width=200, **options).print(renderable)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (0.12345, 3, "0.123"),
        (12.345, 3, "12.3"),
        (999.6, 3, "1,000"),
        (1234.4, 4, "1,234"),
        (-12345.6, 3, "-12,346"),
        (100.0, 2, "100"),
        (1e-7, 3, "1e-07"),
        (2.5e12, 3, "2.5e+12"),
        (float("nan"), 3, "nan"),
        (float("inf"), 3, "inf"),
    ],
)
def test_numbers_are_written_as_people_do(number, digits, text):
    assert readable(number, digits) == text


def test_tables_at_the_end_of_a_run_show_ordinary_numbers():
    figures = {"general_kl": 1234.5, BEFORE: 1234.4, AFTER: 1234.4, RATIO: 1.0}
    drawn, sentence = tables({**SECTION, "figures": figures})
    assert "1,234" in shown(drawn)
    assert sentence == "Perplexity behind long contexts: 1,234 before, 1,234 after."
    *_, sentence = tables({**SECTION, "figures": {**figures, AFTER: 3703.2, RATIO: 3.0}})
    assert sentence.endswith("3,703 after (3 times as high).")
    curves = [{"figures": {"downstream/a/invalid": share, "downstream/text": 1234.4}} for share in (0.05, 0.1)]
    text = shown(downstream_table(curves, ["a", "text"]))
    assert "5.0 -> 10.0" in text
    assert "text: perplexity 1,234 -> 1,234" in text


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("in_a_table", [False, True])
def test_a_text_of_the_users_is_shown_as_it_is(text, in_a_table):
    table = Table("heading", title=text, caption=text)
    table.add_row(*cells([text]))
    found = shown(table if in_a_table else text, force_terminal=True)
    assert printable(text) in found
    assert not {"\x07", "\x9b", "\u202e"} & set(found)
    assert "\x1b[31m" not in found


@pytest.mark.parametrize("text", HOSTILE)
def test_the_examples_show_what_a_model_answers(text, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    ShowExamples()._print([EditRequest(f"{text} x", "{} is", f"{text}x")], [text], [text], of_all=1)
    assert capsys.readouterr().out.count(printable(text)) == 4


def test_a_stage_is_shown_as_it_is_called():
    stream = io.StringIO()
    ProgressBars(terminal(file=stream, width=120))("[/b] \x1b[31m (rows)", 1, 1)
    assert "[/b] \\x1b[31m (rows)" in stream.getvalue()


def test_every_console_is_the_one_that_shows_texts_as_they_are():
    sources = [
        ROOT / "cli.py",
        *(path for room in ("lightning_edit", "callbacks") for path in (ROOT / room).rglob("*.py")),
    ]
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            name = getattr(node.func, "id", None) if isinstance(node, ast.Call) else None
            assert name != "Console", f"{source}, line {node.lineno}: use messages.terminal"
            if name == "TextColumn":
                assert any(keyword.arg == "markup" for keyword in node.keywords), f"{source}, line {node.lineno}"


def test_control_characters_are_written_as_escapes():
    assert printable("a\x1b[0m\r\u2028\ud800\tb\nc") == "a\\x1b[0m\\r\\u2028\\ud800\tb\nc"
    assert printable("Zoë 纽约 🙂") == "Zoë 纽约 🙂"
    assert str(EditError("got \x1b]0;title\x07.")) == "got \\x1b]0;title\\x07."


def test_a_message_has_a_longest_length_and_keeps_what_to_change():
    message = str(EditError(f"The subject is {'x' * 10**6}. Shorten it."))
    assert len(message) <= LONGEST
    assert message.startswith("The subject is xxx")
    assert message.endswith("xxx. Shorten it.")
    assert "characters are left out" in message
    assert bounded("short") == "short"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a'b", '"a\'b"'),
        ("x" * 10**6, f"'{'x' * 120}'... (1,000,000 characters)"),
        (None, "None"),
        (3, "3"),
        (["a"], "['a']"),
    ],
)
def test_a_value_is_quoted_in_short(value, expected):
    assert quoted(value) == expected


def test_a_deep_or_wide_value_is_quoted_in_short():
    deep = []
    for _ in range(5000):
        deep = [deep]
    for value in (deep, {str(i): ["x" * 1000] * 1000 for i in range(1000)}):
        assert len(quoted(value)) < 140


def test_numbers_and_their_nouns():
    assert [counted(n, "edit") for n in (0, 1, 2, 1000)] == ["0 edits", "1 edit", "2 edits", "1,000 edits"]
    assert counted(2, "entry", "entries") == "2 entries"
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(20000)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 19,990 more"


def test_bars_that_were_paused_go_on_in_a_line_of_their_own():
    stream, bar = io.StringIO(), EditProgressBar()
    bar._bars = ProgressBars(terminal(file=stream, width=120))
    bar._trainer = SimpleNamespace(is_global_zero=True)
    bar.report("values (edits)", 1, 3)
    bar.pause()
    stream.write("bars of others\n")
    bar._bars = ProgressBars(terminal(file=stream, width=120))
    bar.report("values (edits)", 3, 3)
    first, others, last = stream.getvalue().splitlines()
    assert (first.split()[3], others, last.split()[3]) == ("1/3", "bars of others", "3/3")


def test_a_file_gets_a_line_of_a_long_stage_every_minute():
    stream, clock = io.StringIO(), [0.0]
    bars = ProgressBars(terminal(file=stream, width=120))
    bars._progress.get_time = lambda: clock[0]
    # It goes on where it was stopped, so three edits took a minute and a half.
    for clock[0], done in ((0, 100), (30, 101), (90, 103), (100, 104), (3700, 190), (3710, 200)):
        bars("values (edits)", done, 200, loss=0.5)
    *lines, bar = stream.getvalue().splitlines()
    assert lines == [
        "values (edits) 103/200, 0:01:30 so far, about 0:48:30 to go, loss 0.5",
        "values (edits) 190/200, 1:01:40 so far, about 0:06:51 to go, loss 0.5",
    ]
    assert "200/200" in bar


def test_a_terminal_has_the_bar_alone():
    stream = io.StringIO()
    bars = ProgressBars(terminal(file=stream, width=120, force_terminal=True))
    bars._progress.get_time = iter(range(0, 10**6, 100)).__next__
    for done in (1, 2, 3):
        bars("values (edits)", done, 3)
    assert "to go" not in stream.getvalue()


@pytest.mark.parametrize("words", [["compare"], ["updates", "list"], ["cache", "list", "--folder"], ["edit", "tiny"]])
def test_a_name_that_no_file_can_have_is_not_shown_whole(words, capsys):
    with pytest.raises(SystemExit) as left:
        main([*words, "x" * 100_000])
    assert left.value.code == 2
    shown = capsys.readouterr().err
    assert "File name too long" in shown
    assert len(shown) < 800
