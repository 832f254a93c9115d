"""Which files that are there already a command may write over."""

import pytest
from matplotlib.figure import Figure

from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison import compare
from lightning_edit.errors import EditError
from lightning_edit.report import write_report
from lightning_edit.storage.own_outputs import LOOKED_AT, check_replaced
from tests.run_folders import write

FACTS = "subject,prompt,target_new\nEiffel Tower,{} stands in,Rome\n"


def test_a_sign_counts_at_the_beginning_and_at_the_end(tmp_path):
    file = tmp_path / "file"
    check_replaced("--out", file, b"sign")
    file.touch()
    check_replaced("--out", file, b"sign")
    for content in (b"sign", b"x" * 2 * LOOKED_AT + b"sign", b"x" * (LOOKED_AT + 1) + b"sign"):
        file.write_bytes(content)
        check_replaced("--out", file, b"other", b"sign")
    for content in (b"x", b"x" * 2 * LOOKED_AT):
        file.write_bytes(content)
        with pytest.raises(EditError, match=r"`--out`: .*file is there already, and holds something else"):
            check_replaced("--out", file, b"sign")


@pytest.mark.parametrize("kind", ["csv", "md", "tex"])
def test_a_comparison_replaces_its_own_table_and_no_other_file(kind, tmp_path):
    runs, table = [str(write(tmp_path / "run"))], tmp_path / f"facts.{kind}"
    table.write_text(FACTS)
    with pytest.raises(EditError, match=f"`table`: .*facts.{kind} is there already"):
        compare(runs, output=str(tmp_path / "a.png"), table=str(table))
    assert table.read_text() == FACTS
    assert not (tmp_path / "a.png").exists()
    table.unlink()
    compare(runs, output=str(tmp_path / "a.png"), table=str(table))
    made = table.read_bytes()
    compare(runs, output=str(tmp_path / "a.png"), table=str(table))
    assert table.read_bytes() == made


@pytest.mark.parametrize("kind", ["pdf", "png", "svg"])
def test_a_comparison_replaces_its_own_figure_and_no_other(kind, tmp_path):
    runs, figure = [str(write(tmp_path / "run"))], tmp_path / f"photo.{kind}"
    Figure().savefig(figure)
    theirs = figure.read_bytes()
    with pytest.raises(EditError, match=f"`output`: .*photo.{kind} is there already"):
        compare(runs, output=str(figure))
    assert figure.read_bytes() == theirs
    figure.unlink()
    compare(runs, output=str(figure))
    compare(runs, output=str(figure))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["trace", "tiny", "--out", "my.png"], "my.png"),
        (["trace", "tiny", "--out", "my.png"], "my.json"),
        (["tune", "tiny", "--out", "my.yaml"], "my.yaml"),
        (["tune", "tiny", "--out", "my.yaml"], "my.png"),
        (["tune", "tiny", "--out", "my.yaml"], "my.trials.json"),
    ],
)
def test_tracing_and_tuning_refuse_before_they_load_a_model(words, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(FACTS)
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 2
    assert f"`--out`: {name} is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_report_replaces_a_report_and_no_other_page(finished, tmp_path):
    page = tmp_path / "index.html"
    page.write_text("<!DOCTYPE html><title>Mine</title>")
    with pytest.raises(EditError, match=r"`--output`: .*index.html is there already"):
        write_report([finished], page)
    assert "Mine" in page.read_text()
    page.unlink()
    write_report([finished], page)
    first = page.read_bytes()
    write_report([finished], page)
    assert page.read_bytes() == first
