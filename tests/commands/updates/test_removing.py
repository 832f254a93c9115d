"""What removing updates and putting them back make of a run, and when it is refused."""

import json
import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from lightning_edit import EditError, ModelUpdate
from lightning_edit.commands.updates import main
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.solvers import Factors
from lightning_edit.updates.history import History
from lightning_edit.updates.undo import change_updates
from tests.commands.updates.material import BATCHES, LAYERS, content, drawn, equal, exported, inserted, said
from tests.killing import Command


@pytest.mark.parametrize("kept", [3, 1])
def test_removing_the_last_updates_gives_the_earlier_weights_bit_for_bit(run, finished, capsys, kept):
    main(["remove", str(run), *map(str, range(kept + 1, 5))])
    assert equal(exported(run), finished[1][kept])
    assert equal(inserted(run), finished[1][kept])
    assert not equal(exported(run), finished[1][4])
    text = said(capsys)
    assert f"The weights are exactly those after update {kept} (checked bit for bit)." in text
    assert f"{3 * kept} edits in {kept} update{'s' if kept > 1 else ''}." in text


def test_the_model_folder_is_complete_and_otherwise_as_it_was(run):
    (run / "model" / "notes").mkdir()
    (run / "model" / "notes" / "mine.txt").write_text("stays")
    before = content(run / "model")
    main(["remove", str(run), "2"])
    after = content(run / "model")
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == ["model.safetensors"]
    old, new = load_model("tiny", "bfloat16").state_dict(), load_model(str(run / "model")).state_dict()
    changed = {name for name in new if not torch.equal(new[name], old[name])}
    assert changed == {f"{find_decoder(load_model('tiny')).names[layer]}.weight" for layer in LAYERS}
    assert AutoTokenizer.from_pretrained(run / "model")("a")["input_ids"]
    assert {path.name for path in run.iterdir()} == {"updates", "model", "update.safetensors", "config.yaml"}
    assert json.loads((run / "updates" / "removed.json").read_text())["removed"] == [2]


def test_no_weights_of_the_old_model_stay_behind(run, finished):
    model = load_model(str(run / "model"))
    shutil.rmtree(run / "model")
    model.save_pretrained(run / "model", max_shard_size="1MB")
    assert (run / "model" / "model.safetensors.index.json").exists()
    main(["remove", str(run), "4"])
    assert [path.name for path in (run / "model").iterdir() if "model" in path.name] == ["model.safetensors"]
    assert equal(exported(run), finished[1][3])


def test_removing_an_earlier_update_says_how_far_that_is_from_a_run_without_it(run, finished, capsys):
    main(["remove", str(run), "2"])
    assert not any(equal(exported(run), state) for state in finished[1])
    total = History(run / "updates").sum([2])
    decoder = find_decoder(load_model("tiny", "bfloat16"))
    for layer, weight in zip(LAYERS, exported(run), strict=True):
        assert torch.equal(weight, (decoder.weight(layer).double() + total[layer].factors.dense()).bfloat16())
    text, told = said(capsys), History(run / "updates").distance([2])
    assert f"layer 0: {told[0]:.1%}; layer 1: {told[1]:.1%}" in text
    assert "Updates after 2, up to 4, were computed on a model that contained the removed ones." in text
    assert "Only a new run without the removed edits is exact." in text
    assert "exactly" not in text
    assert told[0] > 0
    info = ModelUpdate.load(run / "update.safetensors").info
    assert (info["edits"], info["removed_updates"]) == (9, [2])
    assert "EMMET" in info["solver"]


def test_what_was_removed_is_put_back_bit_for_bit(run, finished, capsys):
    before = content(run)
    main(["remove", str(run), "1", "3"])
    main(["remove", str(run), "4"])
    main(["apply", str(run), "1", "4"])
    assert History(run / "updates").removed() == {3}
    capsys.readouterr()
    main(["apply", str(run), "3"])
    assert "(checked bit for bit)" in said(capsys)
    assert equal(exported(run), finished[1][4])
    after = content(run)
    assert after["model/model.safetensors"] == before["model/model.safetensors"]
    assert {name for name in after if after[name] != before.get(name)} == {"update.safetensors", "updates/removed.json"}


def test_with_every_update_removed_the_base_model_is_back(run, finished, capsys):
    main(["remove", str(run), "1", "2", "3", "4"])
    assert equal(exported(run), finished[1][0])
    assert "those of the base model, exactly" in said(capsys)
    main(["apply", str(run), "1"])
    assert equal(exported(run), finished[1][1])


def test_with_every_update_removed_the_edits_of_the_run_it_was_built_on_are_left(finished, tmp_path, capsys):
    run, states = finished
    upper = shutil.copytree(run, tmp_path / "upper")
    history = History(upper / "updates")
    stored = [history.read(number) for number in (3, 4)]
    history.forget_after(0)
    history.write_start(History(run / "updates").sum([3, 4]))
    for number, update in enumerate(stored, start=1):
        history.write(number, update.updates, update.keys, BATCHES[number + 1], {}, update.record.info)
    main(["remove", str(upper), "1", "2"])
    assert equal(exported(upper), states[2]) and not equal(states[2], states[0])
    text = said(capsys)
    assert "0 edits in 0 updates, on top of those of the run it was built on. Removed: 1, 2." in text
    assert "The weights are those of the run it was built on, exactly" in text
    assert "those of the base model, exactly" not in text


def test_files_that_do_not_follow_are_named(run, capsys):
    (run / "edited.ckpt").write_bytes(b"a checkpoint")
    (run / "checkpoints").mkdir()
    (run / "metrics.json").write_text("{}")
    main(["remove", str(run), "4"])
    text = said(capsys)
    assert "edited.ckpt still holds all updates" in text
    assert "checkpoints still hold all updates" in text
    assert "metrics.json was measured before this" in text
    assert (run / "edited.ckpt").read_bytes() == b"a checkpoint"


def test_a_run_without_an_exported_model_gets_none(run, finished):
    shutil.rmtree(run / "model")
    change_updates(run, "remove", [4])
    assert not (run / "model").exists()
    assert equal(inserted(run), finished[1][3])


def test_weights_that_were_added_up_elsewhere_are_not_called_equal(run, capsys):
    history = History(run / "updates")
    stored = history.read(3)
    history.forget_after(2)
    for number in (3, 4):
        requests = BATCHES[number - 1]
        history.write(number, stored.updates, stored.keys, requests, {}, stored.record.info, {0: "x", 1: "y"})
    total = ModelUpdate(history.sum(), stored.record.info)
    total.save(run / "update.safetensors")
    main(["remove", str(run), "4"])
    assert "after update 3 up to rounding, not bit for bit" in said(capsys)


def test_a_damaged_update_can_be_removed(run, capsys):
    path = run / "updates" / "update-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(EditError, match="Update 3 is damaged"):
        main(["remove", str(run), "4"])
    main(["remove", str(run), "3"])
    text = said(capsys)
    assert "Because a file is damaged, the distance from a run without them cannot be computed" in text
    assert "could not be checked that" in text
    total = History(run / "updates").sum([3])
    assert torch.equal(ModelUpdate.load(run / "update.safetensors").layers[0].factors.left, total[0].factors.left)
    main(["remove", str(run), "4"])
    assert History(run / "updates").removed() == {3, 4}
    with pytest.raises(EditError, match="Update 3 is damaged"):
        main(["apply", str(run), "3"])


def test_a_crash_before_the_note_is_mended_by_the_same_command(run, finished):
    main(["remove", str(run), "4"])
    (run / "updates" / "removed.json").unlink()
    main(["remove", str(run), "4"])
    assert equal(exported(run), finished[1][3])
    assert History(run / "updates").removed() == {4}


def killed(run, renames):
    """Kills ``updates remove RUN 2`` after some files have been renamed; the third name is that of the old model/."""
    command = Command(["updates", "remove", run, 2], run.parent / "log", kill=f"rename:{renames}:after")
    assert command.wait() == [-signal.SIGKILL]


@pytest.mark.parametrize("renames", range(1, 6))
def test_a_removal_that_was_killed_is_finished_by_the_same_command(run, tmp_path, renames):
    expected = shutil.copytree(run, tmp_path / "expected")
    main(["remove", str(expected), "2"])
    killed(run, renames)
    assert (run / "model").is_dir() == (renames != 3)
    main(["remove", str(run), "2"])
    assert equal(exported(run), exported(expected))
    assert content(run).keys() - {".lock"} == content(expected).keys()
    assert {path.name for path in run.iterdir()} == {path.name for path in expected.iterdir()}
    assert {path.name for path in (run / "updates").iterdir()} == {
        path.name for path in (expected / "updates").iterdir()
    }


def test_after_a_crash_before_the_note_the_weights_say_what_is_removed(run, finished, capsys):
    killed(run, 5)
    assert History(run / "updates").removed() == set()
    assert [line.split()[-1] for line in drawn(run).splitlines() if line.strip()[:1].isdecimal()].count("removed") == 1
    main(["show", str(run), "2"])
    assert "3 edits, removed" in said(capsys)
    main(["remove", str(run), "3"])
    assert History(run / "updates").removed() == {2, 3}
    assert ModelUpdate.load(run / "update.safetensors").info["removed_updates"] == [2, 3]
    with pytest.raises(EditError, match=r"Update 2 is removed already\. Now removed: 2, 3\."):
        main(["remove", str(run), "2"])
    main(["apply", str(run), "2", "3"])
    assert equal(exported(run), finished[1][4])


def test_the_post_processing_of_the_sum_is_an_update_without_edits(run, finished, capsys):
    history = History(run / "updates")
    total = history.sum()
    parts = {layer: replace(update, factors=Factors(update.factors.dense() / -2)) for layer, update in total.items()}
    none = torch.zeros(0, 0, dtype=torch.float64)
    history.write(5, parts, dict.fromkeys(LAYERS, none), [], {}, history.record(1).info)
    ModelUpdate(history.sum(), history.record(1).info).save(run / "update.safetensors")
    assert "0: post-processing" in drawn(run)
    main(["remove", str(run), "1"])
    text = said(capsys)
    assert "Update 5 is the post-processing of the sum of all updates, those that are removed now included." in text
    assert "unknown for dense updates" in text
    main(["remove", str(run), "5"])
    assert "post-processing" not in said(capsys)
    main(["apply", str(run), "1"])
    assert equal(exported(run), finished[1][4])


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["remove", "5", "2"], r"There is no update 5: .* holds updates 1 to 4"),
        (["remove", "3", "1"], r"Update 3 is removed already\. Now removed: 3\."),
        (["apply", "3", "4"], r"Update 4 is not removed\. Now removed: 3\."),
        (["apply", "0"], "There is no update 0"),
        (["show", "9"], r"There is no update 9: .* holds updates 1 to 4"),
        (["remove", "1", "--model", "/no/such/model"], r"there is no folder /no/such/model.*give it with --model"),
    ],
)
def test_wrong_numbers_and_models_are_refused_and_nothing_changes(run, args, message):
    History(run / "updates").set_removed([3])
    total = History(run / "updates").sum([3])
    ModelUpdate(total, {"model": "tiny", "removed_updates": [3]}).save(run / "update.safetensors")
    before = content(run)
    with pytest.raises(EditError, match=message):
        main([args[0], str(run), *args[1:]])
    assert content(run) == before


@pytest.mark.parametrize(("apart", "same"), [(1e-15, True), (1e-9, False)])
def test_a_dense_sum_of_another_machine_is_the_sum_of_the_updates(run, finished, apart, same):
    update = ModelUpdate.load(run / "update.safetensors")
    for layer, found in update.layers.items():
        dense = found.factors.dense()
        noise = torch.linspace(-1, 1, dense.numel(), dtype=torch.float64).reshape(dense.shape)
        update.layers[layer] = replace(found, factors=Factors(dense * (1 + apart * noise)))
    update.save(run / "update.safetensors")
    with nullcontext() if same else pytest.raises(EditError, match="is not the sum of the updates"):
        change_updates(run, "remove", [4])
    assert equal(exported(run), finished[1][3 if same else 4])


def test_a_damaged_note_of_what_is_removed_is_found(run):
    change_updates(run, "remove", [4])
    note = run / "updates" / "removed.json"
    note.write_text(note.read_text().replace("[4]", "[3]"))
    with pytest.raises(EditError, match="checksum differs"):
        History(run / "updates").removed()
    note.write_text('{"removed": [3]}')
    assert History(run / "updates").removed() == {3}


def test_nothing_removed_is_said(run):
    with pytest.raises(EditError, match=r"Update 1 is not removed\. Now removed: none\."):
        main(["apply", str(run), "1"])


def test_another_base_model_is_refused(run):
    before = content(run)
    (run / "config.yaml").write_text("model: {init_args: {model: tiny, dtype: float32}}")
    for args in (["1"], ["1", "2", "3", "4"]):
        with pytest.raises(EditError, match=r"Layer 0 .* holds other weights than the update was made for"):
            main(["remove", str(run), *args])
    assert {name for name, data in content(run).items() if data != before[name]} == {"config.yaml"}
