"""Runs with values from gradients: resumed bit for bit, undone, built upon, and with what they show."""

import json
import shutil

import pytest
import torch

from lightning_edit import EditError, EditRequest, Gradient, Ridge, ValueSettings
from lightning_edit.cli import main as cli
from lightning_edit.commands.updates import show_change
from lightning_edit.datamodules import TinyWorld
from lightning_edit.messages import terminal
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.updates.history import History
from lightning_edit.updates.undo import change_updates
from tests.small_runs import Refuse, Requests, fit, module

MAPS = {"source": Gradient(maps=["mlp.*"], eta=1e-3, normalize="whitened"), "solver": Ridge()}


def sourced(**changes):
    settings = {**MAPS, "layers": [0, 1], "context_templates": None, "previous_keys": True}
    return module(**{**settings, "values": ValueSettings(), **changes})


def same(first, second):
    for place in first.layers:
        assert torch.equal(first.decoder.weight(place), second.decoder.weight(place))
    for shape, seen in first.loop.editor.statistics.items():
        other = second.loop.editor.statistics[shape]
        assert seen.tokens == other.tokens and torch.equal(seen.mean, other.mean)
        assert torch.equal(seen.squares, other.squares) and torch.equal(seen.products, other.products)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four updates, and its folder."""
    made = sourced()
    return made, fit(tmp_path_factory.mktemp("whole"), made, TinyWorld(edits=8))


def test_a_resumed_run_is_the_run_that_was_never_stopped(whole):
    made, folder = whole
    before = checkpoints(folder)[1]
    assert before.name == "update-000003.ckpt"
    again = sourced()
    fit(folder.parent, again, TinyWorld(edits=8), ckpt_path=str(before))
    assert again.loop.updates_written == 4
    same(made, again)


def test_a_refused_update_is_undone_with_its_statistics(whole, tmp_path):
    made, _ = whole
    refused, short = sourced(), sourced()
    with pytest.warns(UserWarning, match="undone"):
        fit(tmp_path, refused, TinyWorld(edits=8), Refuse(3))
    fit(tmp_path, short, Requests(TinyWorld(edits=8).requests[:4]))
    same(refused, short)
    assert refused.loop.editor.statistics["192x1024"].tokens < made.loop.editor.statistics["192x1024"].tokens


def test_figures_and_files_name_the_maps(whole, capsys):
    made, folder = whole
    record = History(folder / "updates").record(1)
    assert sorted(record.figures) == sorted(
        f"{made.decoder.label(place)}/{name}"
        for place in made.layers
        for name in (
            *("update_norm", "update_norm_per_edit", "relative_update_norm", "weight_norm", "weight_growth"),
            *("memorization_error", "preservation_condition", "keys_condition"),
        )
    )
    assert record.owners is not None and set(record.owners) == {0, 1}
    assert made.seconds["values"] > 0 and made.seconds["solve"] > 0
    cli.main(["updates", "list", str(folder)])
    shown = capsys.readouterr().out
    assert "0.mlp.c_fc" in shown and "1.mlp.c_fc" in shown
    update = made.update
    assert repr(update).startswith("ModelUpdate(layers=[0, 1, 0.mlp.c_fc, 1.mlp.c_fc], ")
    assert [layer.shown(place) for place, layer in update.layers.items()] == ["0", "1", "0.mlp.c_fc", "1.mlp.c_fc"]


def test_an_update_is_taken_out_of_a_run(whole, tmp_path, capsys):
    folder = shutil.copytree(whole[1], tmp_path / "version_0")
    (folder / "config.yaml").write_text("model:\n  init_args:\n    model: tiny\n")
    change = change_updates(folder, "remove", [4])
    assert change.exact and change.checked
    change = change_updates(folder, "remove", [1])
    # A gradient on another model is not known from this one.
    assert set(change.distance.values()) == {"values from Gradient"}
    show_change(folder, change, terminal())
    told = capsys.readouterr().out
    assert list(change.distance) == ["0", "1", "0.mlp.c_fc", "1.mlp.c_fc"]
    assert "layer 1: unknown for values from Gradient" in told and "assumes" not in told
    assert "layer 0.mlp.c_fc: unknown" in told
    assert "layer 2" not in told and "layer 3" not in told


def test_an_edit_that_replaces_another_takes_all_of_its_keys_out(tmp_path):
    edits = TinyWorld(edits=4).requests
    again = EditRequest(edits[0].subject, edits[0].prompt, edits[1].target_new, case_id="again")
    made = sourced(source=Gradient(eta=1e-3), layers=[0], edits_per_update=2)
    folder = fit(tmp_path, made, Requests([*edits[:2], again, edits[2]]))
    first, second = (History(folder / "updates").read(number) for number in (1, 2))
    kept = first.keys[0][:, first.record.columns_of([1])]
    expected = kept @ kept.T + second.keys[0] @ second.keys[0].T
    assert torch.allclose(made.loop.editor.previous_keys[0].dense(), expected, rtol=1e-9, atol=1e-9)


def test_statistics_of_other_shapes_are_refused(whole, tmp_path):
    folder = shutil.copytree(whole[1], tmp_path / "version_0")
    content = torch.load(checkpoints(folder)[1], weights_only=True)
    content["run"]["statistics"] = {"8x8": content["run"]["statistics"]["192x1024"]}
    spoilt = folder / "checkpoints" / "update-000002.ckpt"
    torch.save(content, spoilt)
    with pytest.raises(EditError, match=r"run.statistics: expected only those of weights .*192x1024.*, got '8x8'"):
        fit(folder.parent, sourced(), TinyWorld(edits=8), ckpt_path=str(spoilt))


def test_a_run_on_top_of_another_goes_on_with_its_statistics(whole, tmp_path):
    made, folder = whole
    more = sourced(on_top_of=str(folder / "edited.ckpt"))
    fit(tmp_path, more, Requests(TinyWorld(edits=10).requests[8:]))
    before, after = (run.loop.editor.statistics["192x1024"] for run in (made, more))
    assert after.tokens > before.tokens
    standard = sourced(source=Gradient(maps=["mlp.*"], eta=1e-3))
    other = fit(tmp_path, standard, TinyWorld(edits=2))
    with pytest.raises(EditError, match=r"needs the covariance of gradients, which the earlier run did not keep"):
        fit(tmp_path, sourced(on_top_of=str(other / "edited.ckpt")), Requests(TinyWorld(edits=4).requests[2:]))


def test_settings_of_a_search_are_said_to_have_no_effect(caplog):
    sourced()
    assert not caplog.text
    sourced(values=ValueSettings(steps=3))
    assert "with `source`; these settings have no effect: values.steps." in caplog.text


def test_a_fit_by_the_command_line_says_what_it_reaches(tmp_path, capsys):
    preset = "configs/solvers/ultraedit.yaml"
    words = {"data.edits": 20, "model.layers": "[0,1]", "model.source.maps": '["mlp.*"]', "collateral.prompts": 0}
    words |= {
        "trainer.logger.save_dir": tmp_path,
        "model.source.warmup": 10,
        "model.evaluation.generated_match": "false",
    }
    cli.main(["fit", "--config", preset, *(f"--{name}={value}" for name, value in words.items())])
    figures = json.loads((tmp_path / "version_0" / "metrics.json").read_text())
    assert figures["config"]["model"]["layers"] == [0, 1]
    assert figures["config"]["model"]["source"]["class_path"] == "lightning_edit.Gradient"
    assert figures["after"]["efficacy_score"] >= 0.8
    shown = capsys.readouterr().out
    assert "20 edits" in shown
    assert " edits per second" in shown and "values per second" not in shown
