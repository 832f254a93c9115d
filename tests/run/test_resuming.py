"""Checkpoints: what they hold, what they refuse, and that nothing is done twice."""

import json
import logging
import os
import resource
import shlex
import shutil

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_edit import PRUNE, EditError
from lightning_edit.callbacks import EditCheckpoint, EditReport, ExportEdits
from lightning_edit.callbacks.measuring.scheduled import Scheduled
from lightning_edit.cli import main as cli
from lightning_edit.datamodules import TinyWorld
from lightning_edit.datamodules.preservation import PreservationText
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints, damage
from lightning_edit.updates.history import History
from tests.shared_runs import SMALL, command
from tests.small_runs import Refuse, fit, module
from tests.trainers import quiet_trainer


def copied(finished, folder):
    """A copy of a run; its cache lies beside it."""
    copy = shutil.copytree(finished, folder / "version_0")
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace(str(finished.parent), str(folder)))
    return copy


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run, whose last update is forgotten."""
    copy = copied(finished, tmp_path)
    checkpoints(copy)[0].unlink()
    return copy


def refused(capsys, *args):
    with pytest.raises(SystemExit) as status:
        cli.main(["fit", *map(str, args)])
    assert status.value.code == 2
    return capsys.readouterr().err


def test_the_last_checkpoints_are_kept_and_hold_no_model(finished):
    assert [path.name for path in checkpoints(finished)] == [f"update-00000{n}.ckpt" for n in (3, 2, 1)]
    content = torch.load(checkpoints(finished)[0], weights_only=True)
    assert list(content["state_dict"]) == ["model.transformer.h.0.mlp.c_proj.weight"]
    assert content["run"]["edits_written"] == 6
    assert "loops" not in content


def test_going_on_repeats_only_what_was_not_kept(run, finished, capsys):
    cli.main(["fit", "--ckpt_path", "last", "--trainer.logger.save_dir", str(run.parent)])
    assert "6 edits" in capsys.readouterr().out
    assert {path.name for path in run.parent.iterdir()} == {"version_0", "cache"}
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (finished, run))
    assert second["after"] == first["after"]
    assert second["before"] == first["before"]


@pytest.mark.parametrize("given", ["last", "folder", "file"])
def test_a_finished_run_does_not_go_on_and_those_that_can_are_named(finished, given, tmp_path, capsys):
    for name in ("version_0", "version_1", "version_2"):
        shutil.copytree(finished, tmp_path / name)
    checkpoints(tmp_path / "version_0")[0].unlink()
    for number, path in enumerate(checkpoints(tmp_path / "version_2")):
        os.utime(path, (2_000_000_000 - number,) * 2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "version_2").rglob("*")}
    words = {"last": "last", "folder": tmp_path, "file": checkpoints(tmp_path / "version_2")[0]}
    message = refused(capsys, "--ckpt_path", words[given], "--trainer.logger.save_dir", tmp_path).replace("\n", "")
    assert f"the run {tmp_path / 'version_2'} is finished" in message
    if given != "file":
        assert f"Not finished: {tmp_path / 'version_0'}. Give one" in message
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "version_2").rglob("*")} == before


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--model.values.lr=0.3", "model.values.lr: 0.5 in the checkpoint, 0.3 now"),
        ("--model.edits_per_update=3", "model.edits_per_update: 2 in the checkpoint, 3 now"),
        ("--data.edits=8", "edits of the data: "),
        ("--data.batch_size=3", "data.batch_size: 64 in the checkpoint, 3 now"),
        ("--model.layers=[1]", "The checkpoint edits the layers 0, this run [1]"),
        ("--model.dtype=float64", "made from other weights than layer 0 of tiny"),
        ("--data.preservation=SmallTalk", "text of the second moments: "),
    ],
)
@pytest.mark.slow
def test_another_model_data_or_config_is_refused_with_the_difference(run, option, told, capsys):
    message = refused(capsys, "--ckpt_path", checkpoints(run)[0], option)
    assert told in message.replace("\n", " ")


@pytest.mark.slow
def test_another_text_in_the_same_file_is_refused(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(SmallTalk().texts()))
    folder = command(tmp_path, "--data.preservation", "TextFile", f"--data.preservation.path={text}")
    text.write_text("\n".join(SmallTalk().texts()).replace("dog", "fox"))
    assert "text of the second moments: " in refused(capsys, "--ckpt_path", checkpoints(folder)[1])


class Stop(EditCallback):
    """The run is killed after an update."""

    def on_update_kept(self, trainer, pl_module):
        if pl_module.loop.updates_written == 2:
            raise KeyboardInterrupt


def stopped(folder, **settings):
    """The folder of a run that was killed after two of its three updates."""
    logger = TensorBoardLogger(folder, name="", version="run")
    with pytest.raises(SystemExit):
        fit(folder, module(**settings), TinyWorld(edits=6), Stop(), logger=logger)
    return folder / "run"


def resumed(run, *callbacks, **settings):
    """The module of a run that went on from its last checkpoint."""
    made, logger = module(**settings), TensorBoardLogger(run.parent, name="", version=run.name)
    runner = quiet_trainer(run.parent, *callbacks, logger=logger)
    runner.fit(made, datamodule=TinyWorld(edits=6), ckpt_path=checkpoints(run)[0], weights_only=True)
    return made


@pytest.mark.parametrize("told", [True, False], ids=["", "earlier version"])
def test_a_run_goes_on_with_less_memory_and_without_the_cache_of_its_second_moments(told, tmp_path):
    settings = {"second_moment": SecondMomentSettings(tokens=20_000, cache_dir=None), "layers": [0, 1]}
    run = stopped(tmp_path, **settings)
    before = torch.load(checkpoints(run)[0], weights_only=True)
    if not told:
        del before["edits"]["fingerprints"]["text of the second moments"]
        torch.save(before, checkpoints(run)[0])
    with pytest.warns(UserWarning, match="second moment of layer 0, .* layer 1: counted anew, and not") as warned:
        made = resumed(run, EditCheckpoint(), memory="low", **settings)
    assert made.loop.edits_written == 6
    assert any("see that it is the same" in str(one.message) for one in warned) is not told
    kept = torch.load(checkpoints(run)[0], weights_only=True)["edits"]["fingerprints"]
    assert kept["text of the second moments"]
    name = "second moment of layer 0"
    assert kept[name] != before["edits"]["fingerprints"][name]


def test_a_run_goes_on_without_its_cache_of_values(tmp_path):
    run = stopped(tmp_path)
    noted = torch.load(checkpoints(run)[0], weights_only=True)["edits"]["fingerprints"]
    made = resumed(run)
    assert made.loop.edits_written == 6
    assert made.identity.fingerprints == noted
    assert "tokenizer" in noted


def cut_short(content):
    return content[: len(content) // 2]


def altered(content):
    middle = content.index(b"PK", 1000) - 200  # in the data of the first tensors
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("spoil", [cut_short, altered])
def test_a_damaged_checkpoint_is_recognized_and_the_one_before_is_offered(run, spoil, capsys, caplog):
    newest, before = checkpoints(run)
    newest.write_bytes(spoil(newest.read_bytes()))
    message = refused(capsys, "--ckpt_path", newest)
    assert f"{newest} cannot be used" in message
    assert f"--ckpt_path {before}" in message
    with caplog.at_level(logging.WARNING):
        cli.main(["fit", "--ckpt_path=last", "--trainer.logger.save_dir", str(run.parent)])
    assert "the previous one is used" in caplog.text
    assert damage(run / "edited.ckpt") is None


def test_every_flipped_byte_is_found_or_does_no_harm(finished, tmp_path):
    original = checkpoints(finished)[0]
    expected = torch.load(original, weights_only=True)
    content = bytearray(original.read_bytes())
    spoilt = tmp_path / "spoilt.ckpt"
    for position in range(0, len(content), len(content) // 60):
        content[position] ^= 0xFF
        spoilt.write_bytes(content)
        content[position] ^= 0xFF
        if damage(spoilt) is None:
            found = torch.load(spoilt, weights_only=True)
            assert torch.equal(*(part["run"]["added"][0]["left"] for part in (expected, found)))
            assert found["state_dict"].keys() == expected["state_dict"].keys()


@pytest.mark.parametrize(
    ("path", "told"),
    [("none.ckpt", "there is no file none.ckpt"), ("last", "no run under"), ("config.yaml", "cannot be used")],
)
def test_what_is_no_checkpoint_is_refused(finished, tmp_path, path, told, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    assert told in refused(capsys, "--ckpt_path", path, "--trainer.logger.save_dir", tmp_path)


def test_a_run_without_a_checkpoint_says_how_to_start_over_and_that_works(finished, tmp_path, capsys, monkeypatch):
    # As after a kill during the evaluation before the fit.
    monkeypatch.chdir(tmp_path)
    stopped = copied(finished, tmp_path / "runs")
    for path in (*stopped.glob("edited*"), *stopped.glob("checkpoints"), *stopped.glob("model"), *stopped.glob("upd*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = " ".join(refused(capsys, "--ckpt_path", "runs/version_0").split())
    assert "`ckpt_path: runs/version_0`: the run in runs/version_0 was stopped before its first" in message
    command = shlex.split(message.rpartition("To start it over: ")[2])
    assert command == [
        *("lightning-edit", "fit", "--config", "runs/version_0/config.yaml", "--name", "version_0-again"),
    ]
    cli.main(command[1:])
    assert (tmp_path / "runs" / "version_0-again" / "edited.ckpt").is_file()


@pytest.mark.parametrize("given", ["none", "none.ckpt"])
def test_what_is_not_there_is_not_called_a_checkpoint(tmp_path, given, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = " ".join(refused(capsys, "--ckpt_path", given).split())
    assert f"there is no file {given}. Give a run's folder, a file of its checkpoints/, or `last`." in message


def test_relative_paths_of_a_run_that_is_resumed_from_elsewhere_are_explained(tmp_path, capsys, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    facts = ("subject,prompt,target_new", "Hulbin Larrem,{} is by trade a,roofer", "Beldar Korwav,{} plays the,cello")
    (first / "facts.csv").write_text("\n".join(facts))
    # Not what the run's `model: tiny` means.
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(first)
    small = {name: value for name, value in SMALL.items() if name not in ("data.edits", "model.edits_per_update")}
    words = [f"--{name}={value}" for name, value in {**small, "model.edits_per_update": 1}.items()]
    cli.main(["fit", *words, "--model.layers=[0]", "--data=OwnEdits", "--data.path=facts.csv", "--name=x"])
    for path in (first / "runs/x/metrics.json", checkpoints(first / "runs/x")[0]):
        path.unlink()
    monkeypatch.chdir(second)
    given, inner = "../first/runs/x", "runs/x/checkpoints/update-000001.ckpt"
    capsys.readouterr()
    message = " ".join(refused(capsys, "--ckpt_path", given).split())
    assert f"`data.path`: there is no 'facts.csv' in this folder, but in {first}, where the run seems" in message
    assert f"with {inner} in place of ../first/{inner}: cd {first}" in message
    for words in (["test", "--ckpt_path", f"{given}/edited.ckpt"], ["survive", given]):
        with pytest.raises(SystemExit):
            cli.main(words)
        assert "there is no 'facts.csv' in this folder" in " ".join(capsys.readouterr().err.split())
    # What is of another file, and not of the run's, is not kept from being used.
    with pytest.raises(SystemExit):
        cli.main(["test", "--ckpt_path", given, "--data=OwnEdits", "--data.path=none.csv"])
    assert "`data.path`: there is no file none.csv" in capsys.readouterr().err
    monkeypatch.chdir(first)
    cli.main(["fit", "--ckpt_path", inner])
    assert (first / "runs/x/metrics.json").is_file()


def test_a_run_s_folder_stands_for_its_edited_checkpoint(finished, tmp_path, capsys):
    options = [f"--trainer.logger.save_dir={tmp_path}", f"--model.second_moment.cache_dir={finished.parent / 'cache'}"]
    cli.main(["test", "--ckpt_path", str(finished), *options])
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (finished, tmp_path / "version_0")]
    assert figures[0]["after"] == figures[1]["after"]
    made = module(on_top_of=str(finished), layers=[0])
    upper = fit(tmp_path / "upper", made, TinyWorld(edits=2, seed=1))
    assert History(upper / "updates").began_with
    lacking = copied(finished, tmp_path / "lacking")
    (lacking / "edited.ckpt").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["test", "--ckpt_path", str(lacking), *options])
    assert "holds no edited.ckpt" in (said := " ".join(capsys.readouterr().err.split()))
    assert str(checkpoints(lacking)[0]) in said
    with pytest.raises(EditError, match=r"`model\.on_top_of`: the folder .* holds no edited\.ckpt"):
        fit(tmp_path / "refused", module(on_top_of=str(lacking)), TinyWorld(edits=2))


def test_a_full_disk_loses_nothing_that_was_written(tmp_path, caplog):
    # Files beyond a limit cannot be written, as on a full disk; logs, which are small, still can.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(EditCallback):
        def on_edits_written(self, trainer, pl_module):
            if pl_module.loop.updates_written == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))

        def on_edits_done(self, trainer, pl_module):
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    made = module(previous_keys=True)
    try:
        folder = fit(tmp_path, made, TinyWorld(edits=6), Fill())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "The checkpoint after update 2 could not be written" in caplog.text
    assert f"the last one is {folder / 'checkpoints' / 'update-000001.ckpt'}" in caplog.text
    assert made.loop.edits_written == 6
    kept = [path.name for path in checkpoints(folder)]
    assert kept[0] == "update-000003.ckpt"
    assert all(damage(path) is None for path in checkpoints(folder))


def test_a_disk_that_is_full_at_the_end_is_told_and_what_is_missing_is_written_later(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(EditCallback):
        def teardown(self, trainer, pl_module, stage):
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    data, logger = TinyWorld(edits=4), TensorBoardLogger(tmp_path, name="", version="run")
    runner = quiet_trainer(tmp_path, Fill(), EditCheckpoint(), ExportEdits(), logger=logger)
    try:
        with pytest.raises(EditError, match=r"run/model.*Make room, then fit --ckpt_path .* goes on from") as told:
            runner.fit(module(), datamodule=data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    folder = tmp_path / "run"
    assert "edited.ckpt" in str(told.value)
    assert sorted(path.name for path in folder.iterdir() if path.name in ("model", "edited.ckpt")) == []
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    runner = quiet_trainer(tmp_path, EditCheckpoint(), ExportEdits(), logger=logger)
    runner.fit(module(), datamodule=data, ckpt_path=checkpoints(folder)[0], weights_only=True)
    assert (folder / "model" / "model.safetensors").is_file()
    assert damage(folder / "edited.ckpt") is None
    assert not list(folder.rglob(".*"))


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_edited(tmp_path):
    (tmp_path / "lightning_edit_run").write_text("a file where a folder should be")
    made = module()
    runner = quiet_trainer(tmp_path, EditCheckpoint())
    with pytest.raises(EditError, match="cannot be made"):
        runner.fit(made, datamodule=TinyWorld(edits=2))
    assert made.loop.edits_written == 0


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    fit(tmp_path, module(), TinyWorld(edits=2))
    logger = TensorBoardLogger(tmp_path, name="", version="version_0")
    with pytest.raises(EditError, match="holds the files of another run"):
        fit(tmp_path, module(), TinyWorld(edits=2), logger=logger)


class SmallTalk(PreservationText):
    """Another text than the run had."""

    def texts(self):
        return (f"The {i} {word} went to the market." for i in range(300) for word in ("dog", "cook", "queen"))


class Count(Scheduled):
    """Counts its measurements."""

    def check(self, trainer, module):
        self._seen = []

    def measure(self, trainer, module):
        self._seen.append(module.loop.edits_written)
        return {"count": float(module.loop.edits_written)}


def test_a_resumed_run_measures_nothing_twice(tmp_path):
    data, count = TinyWorld(edits=6), Count()
    folder = fit(tmp_path, module(), data, count)
    assert count._seen == [0, 2, 4, 6]
    before_last = checkpoints(folder)[1]
    again = Count()
    logger = TensorBoardLogger(tmp_path, name="", version=folder.name)
    fit(tmp_path, module(), TinyWorld(edits=6), again, ckpt_path=before_last, logger=logger)
    assert again._seen == [6]
    assert again._measured_at == {0, 2, 4, 6}
    lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    assert [line["edits"] for line in lines] == [0, 2, 4, 6]


@pytest.mark.slow
def test_found_values_are_kept_until_their_update_is(tmp_path):
    class Break(EditCallback):
        def on_values_found(self, trainer, pl_module):
            if pl_module.loop.micro_batches == 2:
                raise RuntimeError("power cut")

    made = module(edits_per_update=None)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, made, TinyWorld(edits=6, batch_size=2), Break())
    folder = tmp_path / "version_0"
    assert len(list((folder / "checkpoints" / "values").glob("values-*"))) == 2
    logger = TensorBoardLogger(tmp_path, name="", version="version_0")
    alone, resumed = module(edits_per_update=None), module(edits_per_update=None)
    fit(tmp_path, resumed, TinyWorld(edits=6, batch_size=2), ckpt_path=checkpoints(folder)[0], logger=logger)
    fit(tmp_path, alone, TinyWorld(edits=6, batch_size=2))
    assert torch.equal(resumed.decoder.weight(0), alone.decoder.weight(0))
    assert not list((folder / "checkpoints" / "values").glob("values-*"))


def test_a_report_is_not_needed_to_go_on(tmp_path):
    folder = fit(tmp_path, module(), TinyWorld(edits=4), EditReport(table=False))
    logger = TensorBoardLogger(tmp_path, name="", version=folder.name)
    made = module()
    fit(tmp_path, made, TinyWorld(edits=4), ckpt_path=checkpoints(folder)[0], logger=logger)
    assert made.loop.edits_written == 4


@pytest.mark.slow
def test_the_configuration_of_a_run_stays_what_it_was(run, capsys):
    before = (run / "config.yaml").read_bytes()
    refused(capsys, "--ckpt_path", checkpoints(run)[0], "--model.values.lr=0.3")
    assert (run / "config.yaml").read_bytes() == before
    cli.main(["fit", "--ckpt_path", str(checkpoints(run)[0])])
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.slow
def test_going_on_from_an_older_checkpoint_forgets_the_newer_ones(finished, tmp_path):
    run = copied(finished, tmp_path)
    oldest, newest = checkpoints(run)[-1], checkpoints(run)[0]
    was = newest.stat().st_mtime_ns
    cli.main(["fit", "--ckpt_path", str(oldest), "--checkpoints.keep", "1"])
    assert checkpoints(run) == [newest]
    assert newest.stat().st_mtime_ns > was
    assert History(run / "updates").numbers() == [1, 2, 3]
    ends = [torch.load(folder / "edited.ckpt", weights_only=True) for folder in (finished, run)]
    assert torch.equal(*(end["run"]["added"][0]["left"] for end in ends))


class Interrupt(EditCallback):
    """Ctrl-C while callbacks are told of an update."""

    def on_update_kept(self, trainer, pl_module):
        if pl_module.loop.updates_written == 2:
            raise KeyboardInterrupt


def test_an_update_that_was_told_by_half_is_made_again(tmp_path):
    with pytest.raises(SystemExit):
        fit(tmp_path, module(), TinyWorld(edits=6), Interrupt())
    folder = tmp_path / "version_0"
    assert checkpoints(folder)[0].name == "update-000001.ckpt"
    logger = TensorBoardLogger(tmp_path, name="", version="version_0")
    fit(tmp_path, module(), TinyWorld(edits=6), ckpt_path=checkpoints(folder)[0], logger=logger)
    assert History(folder / "updates").numbers() == [1, 2, 3]


def test_a_finished_run_keeps_its_post_processing_and_measures_it(tmp_path):
    settings, count = {"post_processing": [PRUNE(1.2)]}, Count()
    made = module(**settings)
    folder = fit(tmp_path, made, TinyWorld(edits=4), count)
    assert made.loop.post_processed
    assert count._seen == [0, 2, 4, 4]
    assert History(folder / "updates").numbers() == [1, 2, 3]
    logger = TensorBoardLogger(tmp_path, name="", version=folder.name)
    again = module(**settings)
    fit(tmp_path, again, TinyWorld(edits=4), ckpt_path=checkpoints(folder)[0], logger=logger)
    assert torch.equal(again.decoder.weight(0), made.decoder.weight(0))
    assert History(folder / "updates").numbers() == [1, 2, 3]


def test_a_run_that_stopped_itself_stays_stopped(tmp_path):
    with pytest.warns(UserWarning, match="undone"):
        folder = fit(tmp_path, module(), TinyWorld(edits=8), Count(), Refuse(3))
    lines = [json.loads(line)["edits"] for line in (folder / "curves.jsonl").read_text().splitlines()]
    assert lines == [0, 2, 4]
    logger = TensorBoardLogger(tmp_path, name="", version=folder.name)
    again = module()
    fit(tmp_path, again, TinyWorld(edits=8), ckpt_path=checkpoints(folder)[0], logger=logger)
    assert (again.loop.stopped, again.loop.edits_written) == ("enough", 4)
