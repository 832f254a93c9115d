"""Updates that follow each other: on top of earlier runs, instead of earlier edits, with every part of the family."""

import pytest
import torch

from lightning_edit import MEMIT, PRUNE, RECT, AlphaEdit, EditError, EditRequest, ValueSettings
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.edit_keys import compute_keys
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.requests import still_valid
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.updates.history import History
from tests.small_runs import Refuse, Requests, fit, module


def test_edits_on_top_of_an_earlier_run_go_on_with_its_weights_and_keys(tmp_path):
    everything = TinyWorld(edits=8).requests
    first = module(previous_keys=True)
    folder = fit(tmp_path, first, Requests(everything[:4]))
    second = module(previous_keys=True, on_top_of=str(folder / "edited.ckpt"))
    second.configure_model()
    assert torch.equal(second.decoder.weight(0), first.decoder.weight(0))
    other = fit(tmp_path, second, Requests(everything[4:]))
    assert other != folder
    assert torch.equal(second.weights.base[0], first.weights.base[0])
    keys = [History(place / "updates").read(number).keys[0] for place in (folder, other) for number in (1, 2)]
    expected = sum(key @ key.T for key in keys)
    assert torch.allclose(second.loop.editor.previous_keys[0].dense(), expected, rtol=1e-12)
    # The update of the second run alone turns the first run's model into the second's.
    added = History(other / "updates").sum()[0].factors.dense()
    assert torch.allclose(added, second.weights.added[0].dense(), rtol=1e-12)


def test_on_top_of_another_model_is_refused(tmp_path):
    folder = fit(tmp_path, module(), TinyWorld(edits=2))
    other = module(on_top_of=str(folder / "edited.ckpt"), dtype="float64")
    with pytest.raises(EditError, match="made from other weights"):
        other.configure_model()
    with pytest.raises(EditError, match="there is no file"):
        module(on_top_of=str(tmp_path / "none.ckpt")).configure_model()


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.slow
def test_a_later_edit_of_the_same_fact_replaces_the_earlier_one(across, tmp_path, caplog):
    edits = TinyWorld(edits=4).requests
    again = EditRequest(edits[0].subject, edits[0].prompt, edits[1].target_new, case_id="again")
    settings = {"previous_keys": True, "values": ValueSettings(lr=0.5, steps=20, clamp_norm_factor=4.0)}
    if across:
        folder = fit(tmp_path, module(**settings), Requests(edits[:2]))
        made = module(**settings, on_top_of=str(folder / "edited.ckpt"))
        fit(tmp_path, made, Requests([again, *edits[2:]]))
    else:
        made = module(**settings)
        fit(tmp_path, made, Requests([*edits[:2], again, *edits[2:]]))
        assert set(made.requests_so_far) - set(still_valid(made.requests_so_far)) == {edits[0]}
    assert f"record again: {again.target_new!r} replaces {edits[0].target_new!r} of update 1" in caplog.text
    remaining = [edits[1], again, *edits[2:]]
    keys = compute_keys(made.decoder, made.tokenizer, remaining, made.templates, 0).mean
    if not across:  # with the same templates the keys of the lowest layer stay what they were
        assert torch.allclose(made.loop.editor.previous_keys[0].dense(), keys @ keys.T, rtol=1e-5, atol=1e-5)


def test_of_two_edits_of_one_fact_in_one_update_only_the_later_is_written(tmp_path):
    edits = TinyWorld(edits=2).requests
    again = EditRequest(edits[0].subject, edits[0].prompt, edits[1].target_new, case_id="again")
    made = module(edits_per_update=3)
    folder = fit(tmp_path, made, Requests([*edits, again]))
    assert made.loop.edits_written == 2
    assert made.loop.left_out == [edits[0].name]
    assert [edit["case_id"] for edit in History(folder / "updates").record(1).edits] == [edits[1].case_id, "again"]


def test_a_refused_update_ends_the_run_with_the_last_good_model(tmp_path):
    made, short = module(previous_keys=True), module(previous_keys=True)
    with pytest.warns(UserWarning, match="undone and the run ends with the model from before it: enough"):
        folder = fit(tmp_path, made, TinyWorld(edits=8), Refuse(3))
    fit(tmp_path, short, Requests(TinyWorld(edits=8).requests[:4]))
    assert made.loop.stopped == "enough"
    assert (made.loop.edits_written, made.loop.updates_written) == (4, 2)
    assert torch.equal(made.decoder.weight(0), short.decoder.weight(0))
    assert torch.equal(made.loop.editor.previous_keys[0].dense(), short.loop.editor.previous_keys[0].dense())
    assert History(folder / "updates").numbers() == [1, 2]
    assert (folder / "edited.ckpt").is_file()


def test_a_run_whose_first_update_is_refused_says_why(tmp_path):
    with pytest.warns(UserWarning, match="undone"), pytest.raises(EditError, match=r"first update was refused.*enough"):
        fit(tmp_path, module(), TinyWorld(edits=4), Refuse(1))


@pytest.mark.slow
def test_earlier_keys_protect_earlier_edits(tmp_path):
    edits = TinyWorld(edits=12).requests
    settings = {"values": ValueSettings(lr=0.5, steps=20, clamp_norm_factor=4.0), "edits_per_update": 4}
    left = {}
    for protect in (False, True):
        made = module(solver=MEMIT(0.01, ridge=0.01), previous_keys=protect, **settings)
        fit(tmp_path / str(protect), made, Requests(edits))
        keys = compute_keys(made.decoder, made.tokenizer, edits[:4], made.templates, 0).mean
        first = History(next((tmp_path / str(protect)).glob("version_*")) / "updates").read(1).updates[0].factors
        later = made.weights.added[0].dense() - first.dense()
        left[protect] = float((later @ keys).norm())
    assert left[True] < 0.5 * left[False]


@pytest.mark.parametrize(
    "changes",
    [
        {"solver": AlphaEdit(threshold=0.05, ridge=1.0), "layers": [0, 1]},
        {"post_processing": [RECT(0.3), PRUNE(1.2)]},
        {"layer_distribution": "last", "layers": [0, 1]},
        {"layer_distribution": "first_last", "layers": [0, 1]},
        {"second_moment": SecondMomentSettings(source="identity")},
        {"second_moment": SecondMomentSettings(source="none"), "solver": MEMIT(1.0, ridge=1.0), "previous_keys": True},
    ],
    ids=["alphaedit", "post_processing", "last", "first_last", "identity", "none"],
)
@pytest.mark.slow
def test_every_part_goes_with_a_sequential_run_and_its_history_adds_up(changes, tmp_path):
    made = module(**changes)
    folder = fit(tmp_path, made, TinyWorld(edits=4))
    assert made.loop.edits_written == 4
    total = History(folder / "updates").sum()
    assert set(total) == set(made.weights.added)
    for layer, update in total.items():
        assert torch.equal(update.factors.dense(), made.weights.added[layer].dense())
    assert set(made.layers) - set(total) == ({0} if changes.get("layer_distribution") == "last" else set())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"previous_keys": True, "edits_per_update": None}, "set `edits_per_update`"),
        ({"previous_keys": True, "independent_updates": True}, "no update knows the earlier ones"),
        ({"on_top_of": "x.ckpt", "independent_updates": True}, "no update knows the earlier ones"),
        ({"edits_per_update": 0}, "must be a whole number of 1 or more"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(changes, told):
    with pytest.raises(EditError, match=told):
        module(**changes)


@pytest.mark.slow
def test_keys_of_a_run_that_preserved_none_are_added_up_and_chains_are_followed(tmp_path):
    edits = TinyWorld(edits=6).requests
    again = EditRequest(edits[0].subject, edits[0].prompt, edits[1].target_new, case_id="again")
    first = fit(tmp_path, module(), Requests(edits[:2]))
    second = module(previous_keys=True, on_top_of=str(first / "edited.ckpt"))
    folder = fit(tmp_path, second, Requests(edits[2:4]))
    keys = [History(place / "updates").read(1).keys[0] for place in (first, folder)]
    assert torch.allclose(second.loop.editor.previous_keys[0].dense(), sum(key @ key.T for key in keys), rtol=1e-12)
    third = module(previous_keys=True, on_top_of=str(folder / "edited.ckpt"))
    last = fit(tmp_path, third, Requests([again, *edits[4:]]))
    keys[0] = keys[0][:, 1:]  # the first edit is replaced two runs later
    keys += [History(last / "updates").read(number).keys[0] for number in (1, 2)]
    assert torch.allclose(
        third.loop.editor.previous_keys[0].dense(), sum(key @ key.T for key in keys), rtol=1e-9, atol=1e-9
    )
    assert float(torch.linalg.eigvalsh(third.loop.editor.previous_keys[0].dense()).min()) > -1e-8


def test_a_checkpoint_in_the_middle_of_a_run_knows_its_own_updates_only(tmp_path):
    edits = TinyWorld(edits=4).requests
    again = EditRequest(edits[3].subject, edits[3].prompt, edits[1].target_new, case_id="again")
    folder = fit(tmp_path, module(previous_keys=True), Requests(edits))
    middle = folder / "checkpoints" / "update-000001.ckpt"
    made = module(previous_keys=True, on_top_of=str(middle))
    other = fit(tmp_path, made, Requests([again]))
    keys = [History(place / "updates").read(1).keys[0] for place in (folder, other)]
    assert torch.allclose(made.loop.editor.previous_keys[0].dense(), sum(key @ key.T for key in keys), rtol=1e-12)


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.slow
def test_keys_of_replaced_edits_are_not_added_up(runs, tmp_path):
    edits = TinyWorld(edits=3).requests
    again = EditRequest(edits[0].subject, edits[0].prompt, edits[1].target_new, case_id="again")
    if runs == 1:
        folders = [fit(tmp_path, module(), Requests([*edits[:2], again]))]
        keys = [History(folders[0] / "updates").read(number).keys[0] for number in (1, 2)]
    else:
        folders = [fit(tmp_path, module(), Requests(edits[:2]))]
        folders.append(fit(tmp_path, module(on_top_of=str(folders[0] / "edited.ckpt")), Requests([again])))
        keys = [History(folder / "updates").read(1).keys[0] for folder in folders]
    made = module(previous_keys=True, on_top_of=str(folders[-1] / "edited.ckpt"))
    made.configure_model()
    valid = torch.cat([keys[0][:, 1:], keys[1]], dim=1)
    assert torch.allclose(made.loop.kept.previous_keys[0].dense(), valid @ valid.T, rtol=1e-12)


class Peek(EditCallback):
    """Keeps the weights that a measurement in the middle of an update would see."""

    def on_values_found(self, trainer, pl_module):
        with pl_module.loop.edits_so_far(pl_module.requests):
            self.seen = pl_module.decoder.weight(0).detach().clone()
        self.waiting = pl_module.loop.queue.waiting


def test_a_measurement_in_the_middle_sees_replaced_edits_released(tmp_path, caplog):
    edits = TinyWorld(edits=2).requests
    again = EditRequest(edits[0].subject, edits[0].prompt, edits[1].target_new, case_id="again")
    made, peek = module(previous_keys=True), Peek()
    fit(tmp_path, made, Requests([*edits, again], batch_size=1), peek)
    assert peek.waiting == 1
    assert torch.equal(peek.seen, made.decoder.weight(0))
    assert caplog.text.count("replaces") == 1
