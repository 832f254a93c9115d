"""Where ``lightning-edit survive`` refuses to write, before a model is loaded."""

import shutil

import pytest

from lightning_edit.cli import main as cli

pytest.importorskip("peft")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output=metrics.json"], "metrics.json holds no results of `survive`"),
        (["--output=new.json", "--figure=photo.png"], "`--figure`: photo.png is there already"),
        (["--output=photo.json"], "`--figure`: photo.png is there already"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_at_once(words, message, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(finished / "metrics.json", "metrics.json")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG of something else")
    monkeypatch.setattr(
        "lightning_edit.updates.base_model.load_base", lambda *_, **__: pytest.fail("a model was loaded")
    )
    with pytest.raises(SystemExit) as left:
        cli.main(["survive", str(finished), *words])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "photo.png").read_bytes().endswith(b"else")
