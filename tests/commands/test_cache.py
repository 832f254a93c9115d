"""The command `cache`: what it shows, finds and deletes."""

import os
import re
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from lightning_edit import ContextTemplates, SecondMomentSettings, ValueSettings
from lightning_edit.commands.cache import main
from lightning_edit.errors import EditError
from lightning_edit.keys import moment_pass
from lightning_edit.keys.layer_stats import second_moments
from lightning_edit.keys.moment_pass import PartialSums
from lightning_edit.models.decoder import find_decoder
from lightning_edit.storage.cache import LEFTOVER_SECONDS, Cache
from lightning_edit.values.cache import cached_values, edited_part, value_parts, weights_of
from lightning_edit.values.optimize import optimize_values
from tests.small_models import SENTENCES, make_gpt2, make_request, make_tokenizer

DAY = 24 * 3600


@pytest.fixture
def folder(tmp_path):
    """A cache as a run leaves it: two second moments, then the values of one edit."""
    model, tokenizer, path = make_gpt2(), make_tokenizer(), tmp_path / "cache"
    model.name_or_path = "/somewhere/models/random"
    decoder, templates, settings = find_decoder(model), ContextTemplates(), ValueSettings(steps=2)
    second_moments(decoder, tokenizer, SENTENCES, [0, 1], SecondMomentSettings(tokens=60, cache_dir=str(path)))
    time.sleep(0.01)
    parts = value_parts(decoder, tokenizer, templates, 1, settings)
    parts |= edited_part(decoder, [1], weights_of(decoder, [1]))
    requests = [make_request()]
    cached_values(
        [Cache(path)],
        parts,
        requests,
        lambda report: optimize_values(decoder, tokenizer, requests, templates, 1, settings, report),
    )
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def run(*args, folder):
    main([*args, "--folder", str(folder)])


def clear(*args, folder):
    run("clear", "--yes", *args, folder=folder)


def leave_behind(folder, age):
    """What a writer leaves that was killed."""
    scratch = folder / f".values-{'0' * 32}.safetensors.x{age}"
    scratch.mkdir()
    (scratch / "half").write_text("half")
    for path in (scratch / "half", scratch):
        os.utime(path, (time.time() - age, time.time() - age))
    return scratch


def old_format(folder):
    path = folder / f"second-moment-{'1' * 32}.safetensors"
    save_file({"second_moment": torch.eye(2)}, path, {"second_moment": '{"layer": 1}'})
    return path


def test_list_shows_what_there_is_the_newest_first_and_the_total(folder, capsys):
    old_format(folder)
    os.utime(folder / f"second-moment-{'1' * 32}.safetensors", (time.time() - 5 * DAY,) * 2)
    run("list", folder=folder)
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.strip().split("\n")]
    assert lines[0] == ["kind", "what", "size", "age"]
    assert lines[1][:2] == ["values", "models/random, transformer.h.1.mlp.c_proj, 1 edit, Eiffel Tower -> Rome"]
    modules = ["transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"]
    assert sorted(line[:2] for line in lines[2:4]) == [
        ["second-moment", f"models/random, {module}, 60 tokens"] for module in modules
    ]
    assert lines[4][:2] == ["second-moment", "old format"]
    assert lines[4][3] == "5 days"
    assert all(re.fullmatch(r"[\d.]+ (bytes|kB)", line[2]) for line in lines[1:5])
    assert re.fullmatch(rf"4 files \([\d.]+ kB\) in {folder}", lines[5][0])


def test_list_tells_of_what_killed_writers_left_and_of_damage(folder, capsys):
    leave_behind(folder, LEFTOVER_SECONDS + 10)
    leave_behind(folder, 10)
    next(folder.glob("values-*")).write_bytes(b"")
    run("list", folder=folder)
    shown = capsys.readouterr().out
    assert "1 unfinished file of killed runs, which `cache clear` deletes" in shown
    assert "damaged: its header is damaged" in shown


def test_list_of_no_cache_at_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["list"])
    assert capsys.readouterr().out == f"0 files (0 bytes) in {tmp_path / '.cache' / 'lightning_edit'}\n"


def test_verify_finds_nothing_wrong_with_sound_files_and_old_ones(folder, capsys):
    run("verify", folder=folder)
    assert capsys.readouterr().out == "3 sound\n"
    path = old_format(folder)
    leave_behind(folder, LEFTOVER_SECONDS + 10)
    run("verify", folder=folder)
    shown = capsys.readouterr().out.split("\n")
    assert shown == [f"{path}: it is of an older format, without a checksum", "3 sound, 1 old format", ""]


def test_verify_names_damaged_and_foreign_files_and_fails(folder, capsys):
    path = next(folder.glob("values-*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SystemExit) as left:
        run("verify", folder=folder)
    assert left.value.code == 1
    assert capsys.readouterr().out.split("\n") == [
        f"{path}: its content is not what was written: the checksum differs",
        "2 sound, 1 damaged",
        "",
    ]
    path.rename(folder / "notes.txt")
    with pytest.raises(SystemExit) as left:
        run("verify", folder=folder)
    assert left.value.code == 1
    assert capsys.readouterr().out.split("\n") == [
        f"{folder / 'notes.txt'}: it is not a file of the cache",
        "2 sound, 1 foreign",
        "",
    ]


def test_clear_deletes_all_that_is_the_caches_and_nothing_else(folder, capsys):
    old_format(folder)
    next(folder.glob("values-*")).write_bytes(b"")
    leave_behind(folder, LEFTOVER_SECONDS + 10)
    young = leave_behind(folder, 10)
    (folder / "notes.txt").write_text("mine")
    clear(folder=folder)
    assert names(folder) == sorted([young.name, "notes.txt"])
    assert re.fullmatch(r"Deleted: 4 files \([\d.]+ kB\) and 1 unfinished file\n", capsys.readouterr().out)
    clear(folder=folder)
    assert capsys.readouterr().out == f"Nothing to delete in {folder}\n"


@pytest.mark.parametrize(("kind", "left"), [("values", "second-moment"), ("second-moment", "values")])
def test_clear_of_one_kind_leaves_the_other(folder, kind, left):
    clear("--kind", kind, folder=folder)
    assert {name.rpartition("-")[0] for name in names(folder)} == {left}


def test_sums_of_a_pass_that_was_killed_are_shown_checked_and_deleted_like_the_rest(folder, capsys, monkeypatch):
    monkeypatch.setattr(moment_pass, "KEEP_SECONDS", 0.0)
    kept = PartialSums(Cache(folder), "0" * 32, {"model": "models/random", "tokens": 60})
    kept.begin([[0, 1], [2]])
    kept.keep({"batches": torch.tensor(1)})
    run("list", folder=folder)
    assert "second-moment-part  models/random, 60 tokens" in capsys.readouterr().out
    run("verify", folder=folder)
    assert capsys.readouterr().out == "4 sound\n"
    clear("--kind", "second-moment-part", folder=folder)
    assert {name.rpartition("-")[0] for name in names(folder)} == {"second-moment", "values"}


def test_clear_of_what_is_old_goes_by_the_time_of_making(folder):
    clear("--older-than", "1", folder=folder)
    assert len(names(folder)) == 3
    path = old_format(folder)
    os.utime(path, (time.time() - 2 * DAY,) * 2)
    clear("--older-than", "2.5", folder=folder)
    assert len(names(folder)) == 4
    clear("--older-than", "1.5", folder=folder)
    assert len(names(folder)) == 3
    assert not path.exists()
    clear("--older-than", "0", folder=folder)
    assert names(folder) == []


def test_clear_deletes_nothing_if_nobody_can_be_asked(folder):
    before = names(folder)
    with pytest.raises(EditError, match=r"would delete 3 files .* There is no terminal to ask on: give --yes"):
        run("clear", folder=folder)
    assert names(folder) == before


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 3), ("", 3)])
def test_clear_asks(folder, capsys, monkeypatch, answer, left):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        run("clear", folder=folder)
    os.close(ours)
    assert "Delete 3 files" in capsys.readouterr().out
    assert len(names(folder)) == left


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["list"], r"`--folder`: there is no folder .*none"),
        (["verify"], r"`--folder`: there is no folder .*none"),
        (["clear", "--yes"], r"`--folder`: there is no folder .*none"),
    ],
)
def test_a_folder_that_is_not_there_is_refused(tmp_path, args, message):
    with pytest.raises(EditError, match=message):
        run(*args, folder=tmp_path / "none")


def test_a_negative_age_is_refused(folder):
    with pytest.raises(EditError, match="`--older-than` must be a number of days"):
        clear("--older-than", "-1", folder=folder)
    assert len(names(folder)) == 3


@pytest.mark.parametrize("args", [[], ["delete"], ["clear", "--kind", "models"], ["clear", "--older-than", "old"]])
def test_other_words_are_refused(args):
    with pytest.raises(SystemExit) as left:
        main(args)
    assert left.value.code == 2
