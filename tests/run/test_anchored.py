"""Runs with an anchor, or with a norm for values: resumed, undone, and refused where that means nothing."""

import csv
from dataclasses import replace

import pytest
import torch

from lightning_edit import MEMIT, AlphaEdit, EditError, EditRequest, EvoEdit, LyapLock, SimIE
from lightning_edit.datamodules import TinyWorld
from lightning_edit.gradients.gradient import Gradient
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.loop.run_state import RunState
from lightning_edit.loop.same_run import check_same_run, plain
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.run.module import EditingModule
from lightning_edit.solvers.ridge import Ridge
from tests.shared_runs import command
from tests.small_runs import VALUES, Refuse, Requests, fit, module

UNEDITED = replace(VALUES, weights="unedited")
KINDS = {
    "LyapLock": {"anchor": LyapLock(bound=1.0), "layers": [0, 1]},
    "EvoEdit": {"anchor": EvoEdit(), "solver": AlphaEdit(threshold=0.05, ridge=4.0)},
    "SimIE": {"anchor": SimIE(ridge=10.0), "values": UNEDITED},
    "norm anchor": {"values": replace(VALUES, norm_anchor="auto", norm_anchor_edits=3)},
}
kinds = pytest.mark.parametrize("kind", [*(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k != "LyapLock")])


class Look(EditCallback):
    """Looks at the model with the edits that wait."""

    looked = False

    def on_values_found(self, trainer, pl_module):
        if pl_module.loop.queue.waiting:
            with pl_module.loop.edits_so_far(pl_module.requests):
                self.looked = True


def same_memories(first, second):
    assert first.keys() == second.keys()
    for layer in first:
        assert first[layer].keys() == second[layer].keys()
        assert all(torch.equal(first[layer][name], second[layer][name]) for name in first[layer])


def resumed(kind, folder):
    """A run that was never stopped, and one that goes on after its first update, with edits found but not written."""
    data = {"edits": 6, "batch_size": 4}
    whole, other = module(**KINDS[kind]), module(**KINDS[kind])
    run = fit(folder, whole, TinyWorld(**data))
    checkpoint = run / "checkpoints" / "update-000002.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    fit(folder, other, TinyWorld(**data), ckpt_path=str(checkpoint))
    assert content["run"]["updates_written"] == 2
    for layer in whole.layers:
        assert torch.equal(whole.decoder.weight(layer), other.decoder.weight(layer))
        assert torch.equal(whole.weights.added[layer].dense(), other.weights.added[layer].dense())
    same_memories(whole.loop.editor.anchored, other.loop.editor.anchored)
    return whole, content


def test_a_run_with_a_queue_goes_on_bit_for_bit(tmp_path):
    whole, content = resumed("LyapLock", tmp_path)
    assert set(content["run"]["anchored"][0]) == {"targets", "queue", "bound"}
    assert float(whole.loop.editor.anchored[0]["queue"]) > 0


@kinds
def test_other_methods_go_on_bit_for_bit(kind, tmp_path):
    whole, content = resumed(kind, tmp_path)
    if kind == "norm anchor":
        assert content["edits"]["norm_anchor"] == whole.describe()["norm_anchor"] > 0
    else:
        assert set(content["run"]["anchored"][0]) == set(whole.update_anchor.remembers)


def test_a_refused_update_and_a_look_in_the_middle_leave_no_trace(tmp_path):
    made, short, peek = module(**KINDS["LyapLock"]), module(**KINDS["LyapLock"]), Look()
    with pytest.warns(UserWarning, match="undone"):
        fit(tmp_path, made, TinyWorld(edits=6, batch_size=1), Refuse(3), peek)
    fit(tmp_path, short, Requests(TinyWorld(edits=6).requests[:4], batch_size=1))
    assert peek.looked
    assert torch.equal(made.decoder.weight(1), short.decoder.weight(1))
    same_memories(made.loop.editor.anchored, short.loop.editor.anchored)


def test_states_of_earlier_versions_know_no_anchor():
    content = RunState().packed()
    del content["anchored"]
    assert RunState.unpacked(content) == RunState()


@pytest.mark.slow
def test_the_queue_is_in_the_table_of_updates(tmp_path):
    changes = {"model.previous_keys": "true", "model.anchor": "LyapLock", "model.anchor.bound": 0.5}
    changes |= {"watch.every_n_updates": 1, "model.solver": "MEMIT"}
    folder = command(tmp_path, **changes)
    with (folder / "updates.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    queue = [float(row["layer_0/queue"]) for row in rows]
    assert queue == sorted(queue)
    assert queue[-1] > float(rows[0]["layer_0/preservation_bound"]) ** 0.5
    loss, bound = (float(rows[0][f"layer_0/preservation_{name}"]) for name in ("loss", "bound"))
    # The table has six digits.
    assert loss == pytest.approx(2 * bound, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"anchor": LyapLock(), "edits_per_update": None}, "set `edits_per_update`"),
        ({"anchor": LyapLock(), "independent_updates": True}, "`anchor`: with `independent_updates`"),
        ({"anchor": LyapLock(), "solver": AlphaEdit()}, "MEMIT with a `second_moment_weight`, got AlphaEdit"),
        ({"anchor": LyapLock(), "second_moment": SecondMomentSettings(source="none")}, "there is no C"),
        ({"anchor": LyapLock(), "previous_keys": False}, "set `previous_keys: true`"),
        ({"anchor": LyapLock(), "on_top_of": "x.ckpt"}, "must have seen all earlier updates"),
        ({"anchor": EvoEdit()}, "only `solver: AlphaEdit`"),
        ({"anchor": EvoEdit(), "solver": AlphaEdit(), "previous_keys": True}, "set `previous_keys: false`"),
        ({"anchor": EvoEdit(), "solver": AlphaEdit(), "independent_updates": True}, "Give one of them"),
        ({"anchor": SimIE()}, "set `values.weights: unedited`"),
        ({"source": Gradient(), "solver": Ridge(), "values": replace(VALUES, norm_anchor=9.0)}, "searched for"),
        ({"layer_distribution": "replay"}, "two layers or more"),
        (
            {"layer_distribution": "replay", "layers": [0, 1], "values": replace(VALUES, site="mlp")},
            "`values.site: mlp`",
        ),
    ],
)
def test_what_means_nothing_together_is_refused(changes, told):
    with pytest.raises(EditError, match=told):
        module(**changes)


def test_replay_with_one_layer_that_was_chosen_for_the_model_is_refused():
    made = module(layer_distribution="replay", layers="auto")
    with pytest.raises(EditError, match="two layers or more"):
        made.configure_model()


def test_simie_of_experts_is_refused(tmp_path):
    made = EditingModule("tiny-moe", layers=[1], solver=MEMIT(), edits_per_update=2, anchor=SimIE(), values=UNEDITED)
    with pytest.raises(EditError, match=r"over all pairs of experts, which layers \[1\] have"):
        fit(tmp_path, made, TinyWorld(edits=4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LyapLock", "EvoEdit"])
def test_other_anchors_hold_updates_of_experts(kind, tmp_path):
    made = module(**KINDS[kind] | {"layers": [1]}, model="tiny-moe")
    fit(tmp_path, made, TinyWorld(edits=4))
    assert made.loop.edits_written == 4
    assert float(made.loop.last_update.figures["layer_1/memorization_error"]) < 0.9
    assert made.loop.editor.anchored[1]


def test_edits_that_replace_others_are_refused_under_an_anchor(tmp_path):
    edits = TinyWorld(edits=2).requests
    again = EditRequest(edits[0].subject, edits[0].prompt, edits[1].target_new, case_id="again")
    with pytest.raises(EditError, match=r"With `anchor: LyapLock` no edit can replace another"):
        fit(tmp_path, module(anchor=LyapLock()), Requests([*edits, again]))


@pytest.mark.parametrize("name", ["norm_anchor", "weights"])
def test_earlier_runs_found_values_without_these_settings(name):
    now = {"model": plain(module(solver=MEMIT()).hparams)}
    then = {"model": {**now["model"], "values": {k: v for k, v in now["model"]["values"].items() if k != name}}}
    check_same_run(then, now)
