"""Runs with a net, from the command that trains it to updates that are resumed and undone bit for bit."""

import json
import re
import shutil

import pytest
import torch

from lightning_edit import EditError, Gradient, Ridge, Sum
from lightning_edit.cli import main as cli
from lightning_edit.datamodules import TinyWorld
from lightning_edit.gradients.net_file import load_net, save_net
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.tiny import World
from lightning_edit.updates.undo import change_updates
from tests.gradients.test_runs import sourced
from tests.small_runs import Refuse, Requests, fit

TRAIN = ("--layers", "0,1", "--maps", "mlp.*", "--eta", "1e-3", "--rank", "4", "--batch", "4")


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """Facts of the embedded world that no run here edits."""
    edited = {request.subject for request in TinyWorld(edits=8).requests}
    rows = [row for row in World.generate().records(30, seed=1) if row["subject"] not in edited]
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def net(facts):
    """A net that two steps have changed."""
    folder = facts.parent / "net"
    cli.main(["train-net", "tiny", "--data", str(facts), "--out", str(folder), *TRAIN, "--steps", "2", "--lr", "1e-2"])
    return folder


def source_of(net, **changes):
    return Gradient(**{"maps": ["mlp.*"], "eta": 1e-3, "scale": "key_product", "net": str(net), **changes})


def with_net(net, **changes):
    return sourced(source=source_of(net), **changes)


@pytest.fixture(scope="module")
def whole(net, tmp_path_factory):
    """A run of four updates, and its folder."""
    made = with_net(net)
    return made, fit(tmp_path_factory.mktemp("whole"), made, TinyWorld(edits=8))


def equal(first, second):
    for place in first.layers:
        assert torch.equal(first.decoder.weight(place), second.decoder.weight(place))
    for shape, seen in first.loop.editor.statistics.items():
        other = second.loop.editor.statistics[shape]
        assert seen.tokens == other.tokens and torch.equal(seen.mean, other.mean)
        assert torch.equal(seen.squares, other.squares)


def test_a_resumed_run_is_the_run_that_was_never_stopped(whole, net, tmp_path):
    made, folder = whole
    seen = load_net(net)[0].statistics["192x1024"].tokens
    assert 0 < seen < made.loop.editor.statistics["192x1024"].tokens
    before = checkpoints(folder)[1]
    again = with_net(net)
    fit(folder.parent, again, TinyWorld(edits=8), ckpt_path=str(before))
    assert again.loop.updates_written == 4
    equal(made, again)
    plain = sourced(source=Gradient(maps=["mlp.*"], eta=1e-3, scale="key_product"))
    fit(tmp_path, plain, TinyWorld(edits=8))
    assert not torch.equal(plain.decoder.weight(0), made.decoder.weight(0))


def test_a_run_goes_on_only_with_the_net_that_it_began_with(whole, net, tmp_path):
    before = checkpoints(whole[1])[1]
    kept = shutil.copytree(net, tmp_path / "kept")
    other = load_net(net)[0]
    other.nets["192x1024"].log_eta += 0.1
    try:
        save_net(other, net)
        with pytest.raises(EditError, match=r"other settings, and going on would mix the two:\s+net: "):
            fit(tmp_path, with_net(net), TinyWorld(edits=8), ckpt_path=str(before))
    finally:
        shutil.copytree(kept, net, dirs_exist_ok=True)


def test_updates_are_undone_bit_for_bit(whole, net, tmp_path):
    refused, short = with_net(net), with_net(net)
    with pytest.warns(UserWarning, match="undone"):
        fit(tmp_path, refused, TinyWorld(edits=8), Refuse(3))
    fit(tmp_path, short, Requests(TinyWorld(edits=8).requests[:4]))
    equal(refused, short)
    folder = shutil.copytree(whole[1], tmp_path / "version_0", dirs_exist_ok=True)
    (folder / "config.yaml").write_text("model:\n  init_args:\n    model: tiny\n")
    change = change_updates(folder, "remove", [4])
    assert change.exact and change.checked


def test_earlier_edits_cannot_be_preserved_by_a_sum(net):
    source = Gradient(maps=["mlp.*"], eta=1e-3)
    with pytest.raises(EditError, match=r"`previous_keys`: Sum solves nothing and so cannot preserve"):
        sourced(source=source, solver=Sum())
    sourced(source=source, solver=Sum(), previous_keys=None)
    sourced(source=source, solver=Ridge())


@pytest.mark.parametrize("method", ["malmen", "mend", "rledit"])
def test_each_method_is_trained_and_used_by_the_command_line(method, facts, tmp_path, capsys):
    net, more = tmp_path / "net", ["--turns", "2", "--blocks", "1"] if method == "rledit" else []
    words = ["train-net", "tiny", "--data", str(facts), "--out", str(net), "--method", method, *TRAIN, "--steps", "1"]
    cli.main([*words, *more])
    assert "The net for 4 maps is in" in capsys.readouterr().out
    settings = {"data.edits": 4, "model.layers": "[0,1]", "model.source.maps": '["mlp.*"]', "collateral.prompts": 0}
    settings |= {"trainer.logger.save_dir": tmp_path, "model.evaluation.generated_match": "false"}
    settings |= {"model.source.net": net, "model.source.eta": 0.001}
    preset = f"configs/solvers/{method}.yaml"
    cli.main(["fit", "--config", preset, *(f"--{name}={value}" for name, value in settings.items())])
    figures = json.loads((tmp_path / "version_0" / "metrics.json").read_text())
    assert figures["config"]["model"]["source"]["init_args"]["net"] == str(net)
    assert figures["after"]["efficacy_score"] >= figures["before"]["efficacy_score"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--data", "none.jsonl"), r"none.jsonl"),
        (("--steps", "0"), r"`steps` must be a whole number of 1 or more, got 0"),
        (("--every", "0"), r"`--every` must be a whole number"),
        (("--method", "mend", "--ridge", "2"), r"`--ridge`: mend solves nothing and has none"),
        (("--reach", "3"), r"`--reach`: with `--turns` 1 no facts of earlier updates are looked at"),
        (
            ("--method", "mend", "--discount", "0.5"),
            r"`--discount`: with `--turns` 1 .* Leave it out, or give `--turns` 2",
        ),
        (("--turns", "2", "--reach", "1", "--discount", "0.5"), r"`--discount`: with `--reach` 1 no facts"),
        (("--batch", "900"), r"A step takes 1 x 900 = 900 facts"),
        (("--maps", "mlp.gate"), r"has no linear map 'mlp.gate'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(words, told, facts, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train-net", "tiny", "--data", str(facts), "--out", str(tmp_path / "net"), *TRAIN, *words])
    shown = " ".join(capsys.readouterr().err.split())
    assert re.search(told, shown), shown


def test_a_training_that_diverges_names_a_checkpoint_only_if_there_is_one(facts, tmp_path, capsys):
    """Without a checkpoint there is no folder; with one, it is from before."""
    far = ["--lr", "1e20", "--locality", "0", "--steps", "3"]
    for every in ("50", "1"):
        folder = tmp_path / f"net{every}"
        with pytest.raises(SystemExit):
            cli.main(["train-net", "tiny", "--data", str(facts), "--out", str(folder), *TRAIN, *far, "--every", every])
        shown = " ".join(capsys.readouterr().err.split())
        assert "The training diverged at step 2" in shown
        assert (f"The checkpoint in {folder} is from before" in shown) == folder.is_dir() == (every == "1")


def test_a_net_for_one_map_is_said_to_be_for_one(facts, tmp_path, capsys):
    words = ["--layers", "0", "--rank", "4", "--batch", "4", "--steps", "1"]
    cli.main(["train-net", "tiny", "--data", str(facts), "--out", str(tmp_path / "net"), *words])
    assert "The net for 1 map is in" in capsys.readouterr().out


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train-net", "tiny", *map(str, words)])
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["net.json", "net.safetensors"])
def test_files_that_no_training_wrote_stay(name, facts, tmp_path, capsys):
    (tmp_path / name).write_text('{"mine": "precious"}')
    told = refused(capsys, "--data", facts, "--out", tmp_path, *TRAIN, "--steps", "1")
    assert f"`--out`: {tmp_path / name} is there already" in told
    assert (tmp_path / name).read_text() == '{"mine": "precious"}' and len(list(tmp_path.iterdir())) == 1


def test_a_net_whose_checkpoint_is_gone_is_not_written_over(net, facts, tmp_path, capsys):
    folder = shutil.copytree(net, tmp_path / "net")
    (folder / "training.ckpt").unlink()
    words = (folder / "net.json").read_bytes()
    told = refused(capsys, "--data", facts, "--out", folder, *TRAIN, "--steps", "2", "--lr", "1e-3")
    assert "holds a finished net, and no training.ckpt to go on from" in told
    assert (folder / "net.json").read_bytes() == words


def test_a_place_that_cannot_be_a_folder_is_refused_by_its_option(facts, capsys):
    told = refused(capsys, "--data", facts, "--out", facts / "below" / "net", *TRAIN)
    assert f"`--out`: {facts} is no folder" in told


def test_a_net_that_is_too_large_is_said_to_be(facts, tmp_path, capsys):
    told = refused(
        capsys, "--data", facts, "--out", tmp_path / "net", "--layers", "0", "--rank", "100000000", "--batch", "4"
    )
    assert "Out of memory: make a smaller net (--rank, --blocks)" in told


def test_facts_are_asked_for_by_the_name_of_the_option(tmp_path, capsys):
    (tmp_path / "empty.txt").touch()
    assert "`--data`: " in refused(capsys, "--data", tmp_path / "empty.txt", "--out", tmp_path / "net")


def test_another_solver_than_that_of_the_training_is_warned_of(net, tmp_path, caplog):
    told = "was trained with the solver Ridge(ridge=1.0), and this run writes with Ridge(ridge=9.0)"
    for ridge in (1.0, 9.0):
        made = with_net(net, solver=Ridge(ridge))
        fit(tmp_path / str(ridge), made, TinyWorld(edits=2))
        assert (told in caplog.text) == (ridge == 9.0)


def test_a_finished_run_is_measured_again_without_its_net(net, tmp_path):
    kept = shutil.copytree(net, tmp_path / "kept")
    settings = {"data.edits": 4, "model.layers": "[0,1]", "model.source.maps": '["mlp.*"]', "collateral.prompts": 0}
    settings |= {"trainer.logger.save_dir": tmp_path, "model.source.net": kept, "model.source.eta": 0.001}
    words = [f"--{name}={value}" for name, value in settings.items()]
    cli.main(["fit", "--config", "configs/solvers/malmen.yaml", *words])
    shutil.rmtree(kept)
    run = tmp_path / "version_0"
    cli.main(["test", "--ckpt_path", str(run), f"--trainer.logger.save_dir={tmp_path}", "--collateral.prompts=0"])
    figures = [json.loads((tmp_path / f"version_{n}" / "metrics.json").read_text())["after"] for n in (0, 1)]
    assert figures[0] == figures[1]
