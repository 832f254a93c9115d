"""Runs of memory editors that go on from a checkpoint in the middle of their edits, are undone, and measured again."""

import shutil
from math import isfinite

import pytest
import torch

from lightning_edit import EditError, MemoryEditing
from lightning_edit.callbacks import Retention
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_tokenizer
from lightning_edit.memories.entries import tensors_of
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from tests.small_runs import Refuse, Requests, fit, module
from tests.trainers import quiet_trainer

EDITS = TinyWorld(edits=6).requests
METHODS = ("grace", "memoir", "memoir_closed")
# Far enough that keys of different edits meet.
OWN = {"grace": {"radius": 20.0}}


def made(method, **changes):
    settings = {"layers": [1], "dtype": "float64", "steps": 2, "early_stop_loss": 0, "edits_per_update": 2}
    return MemoryEditing("tiny", method, **{**settings, **OWN.get(method, {}), **changes})


def same(first, second):
    """Whether two runs hold the same edits, to the bit, and so does what follows from them."""
    own, other = (tensors_of(run.memories.memory) for run in (first, second))
    assert own.keys() == other.keys() and len(own) > 6
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert first.memories.edits == second.memories.edits
    tables = zip(*(run.memories.memory._tables() for run in (first, second)), strict=True)
    assert all(torch.equal(*pair) for pair in tables)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """For each method a run of three updates and its folder, which is only read."""
    found = {}
    for method in METHODS:
        run = made(method)
        found[method] = run, fit(tmp_path_factory.mktemp(method), run, Requests(EDITS, batch_size=4))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_the_run_that_was_never_stopped(method, runs):
    whole, folder = runs[method]
    after_two = checkpoints(folder)[1]
    content = torch.load(after_two, weights_only=True)
    assert (content["run"]["edits_written"], content["run"]["updates_written"]) == (4, 2)
    again = made(method)
    fit(folder.parent, again, Requests(EDITS, batch_size=4), ckpt_path=str(after_two))
    assert (again.loop.edits_written, again.loop.updates_written, again.loop.kept.finished) == (6, 3, True)
    same(whole, again)


@pytest.mark.parametrize("method", METHODS)
def test_a_refused_update_is_undone(method, tmp_path):
    refused, short = made(method), made(method)
    with pytest.warns(UserWarning, match="undone"):
        fit(tmp_path, refused, Requests(EDITS), Refuse(3))
    fit(tmp_path, short, Requests(EDITS[:4]))
    same(refused, short)
    assert refused.memories.active


@pytest.mark.filterwarnings("ignore:The last update is undone")
def test_a_run_may_go_on_from_before_its_first_edit(runs, tmp_path):
    whole, _ = runs["memoir"]
    with pytest.raises(EditError, match="refused"):
        fit(tmp_path, made("memoir"), Requests(EDITS, batch_size=4), Refuse(1))
    (first,) = checkpoints(tmp_path / "version_0")
    again = made("memoir")
    fit(tmp_path, again, Requests(EDITS, batch_size=4), ckpt_path=str(first))
    same(whole, again)


def test_a_checkpoint_is_measured_with_its_memory(runs, tmp_path):
    whole, folder = runs["grace"]
    again, data = made("grace"), Requests(EDITS, batch_size=4)
    trainer = whole.trainer.__class__(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.test(again, datamodule=data, ckpt_path=str(checkpoints(folder)[0]), verbose=False, weights_only=True)
    same(whole, again)
    trainer.test(whole, datamodule=data, verbose=False)
    assert again.results["after"] == whole.results["after"]


def test_a_module_that_made_edits_is_measured_with_those_of_a_checkpoint_alone(tmp_path):
    run, data = made("memoir"), Requests(EDITS, batch_size=4)
    folder = fit(tmp_path, run, data)
    (second,) = [file for file in checkpoints(folder) if file.stem.endswith("2")]
    run.trainer.test(run, datamodule=data, ckpt_path=str(second), verbose=False, weights_only=True)
    assert len(run.memories) == 4
    site = run.model.get_submodule(run.memories.module)
    assert len(site._forward_hooks) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_measurement_in_between_leaves_no_trace_in_a_memory(method, tmp_path):
    measured, left = (made(method, edits_per_update=4) for _ in range(2))
    fit(tmp_path, measured, Requests(EDITS, batch_size=2), Retention(every_n_micro_batches=1))
    fit(tmp_path, left, Requests(EDITS, batch_size=2))
    assert [(point["edits"], point["updates"]) for point in measured.curves] == [(2, 0), (4, 1), (6, 1)]
    same(measured, left)
    assert measured.memories.active
    assert measured.loop.editor.losses == left.loop.editor.losses


def test_a_run_says_how_many_edits_an_update_was(runs, tmp_path):
    whole = made("grace", edits_per_update=None)
    folder = fit(tmp_path, whole, Requests(EDITS, batch_size=2))
    assert (whole.hparams.edits_per_update, whole.loop.updates_written) == (2, 3)
    same(whole, runs["grace"][0])
    # Earlier versions did not, and their runs go on too.
    started = checkpoints(folder)[1]
    content = torch.load(started, weights_only=True)
    assert content["hyper_parameters"]["edits_per_update"] == 2
    content["hyper_parameters"]["edits_per_update"] = None
    torch.save(content, started)
    again = made("grace", edits_per_update=None)
    fit(tmp_path, again, Requests(EDITS, batch_size=2), ckpt_path=str(started))
    same(whole, again)
    with pytest.raises(EditError, match=r"edits_per_update: 2 in the checkpoint, 3 now"):
        fit(tmp_path, made("grace", edits_per_update=3), Requests(EDITS, batch_size=2), ckpt_path=str(started))


def test_the_size_of_an_update_is_that_of_the_data_that_is_edited(tmp_path):
    again = made("grace", edits_per_update=None)
    quiet_trainer(tmp_path).test(again, datamodule=Requests(EDITS, batch_size=len(EDITS)), verbose=False)
    fit(tmp_path, again, Requests(EDITS, batch_size=2))
    assert (again.hparams.edits_per_update, again.loop.updates_written) == (2, 3)


def test_what_is_no_memory_of_the_run_is_refused(runs, tmp_path):
    _, folder = runs["memoir_closed"]
    with pytest.raises(EditError, match="are in a memory beside a layer, and not in weights"):
        fit(tmp_path, module(on_top_of=str(checkpoints(folder)[0])), TinyWorld(edits=2))
    for name, value, message in (
        ("mask.0", torch.full((293,), 5000), "mask.0: expected columns from 0 to 1023"),
        ("keys.1", torch.zeros(3, 7, dtype=torch.float64), "keys.1: expected a tensor of tokens 3 x d_in 1024"),
        ("keys.9", torch.zeros(3, 7, dtype=torch.float64), "expected"),
        ("mask.0", torch.zeros(2, 2, dtype=torch.int64), "a tensor of 1 dimensions"),
    ):
        copied = shutil.copytree(folder, tmp_path / name / message[:6])
        spoilt = checkpoints(copied)[1]
        content = torch.load(spoilt, weights_only=True)
        content["run"]["anchored"][1][name] = value
        torch.save(content, spoilt)
        with pytest.raises(EditError, match=message):
            fit(copied.parent, made("memoir_closed"), Requests(EDITS, batch_size=4), ckpt_path=str(spoilt))


class Overflow(EditCallback):
    """The model gives NaN for texts with one token."""

    def __init__(self, token):
        self.token = token

    def on_fit_start(self, trainer, pl_module):
        def spoil(_, given, output):
            return output.masked_fill((given[0] == self.token)[..., None], float("nan"))

        pl_module.model.get_input_embeddings().register_forward_hook(spoil)


@pytest.mark.parametrize("method", METHODS)
def test_an_edit_whose_loss_is_never_finite_is_left_out_and_named(method, tmp_path, caplog):
    tokenizer = load_tokenizer("tiny")
    ids = [set(tokenizer(request.rewrite_prompt).input_ids) for request in EDITS]
    token = min(ids[1] - set.union(*(other for place, other in enumerate(ids) if place != 1)))
    run = made(method)
    folder = fit(tmp_path, run, Requests(EDITS, batch_size=4), Overflow(token))
    assert (run.loop.edits_written, run.loop.left_out) == (5, [EDITS[1].name])
    learned = EDITS[:1] + EDITS[2:]
    assert run.memories.edits == [str(edit.case_id or edit.rewrite_prompt) for edit in learned]
    assert isfinite(run.loop.last_update.figures["memories/nll"])
    assert "the loss stayed above 0.69 nats a token" in caplog.text
    again = made(method)
    fit(folder.parent, again, Requests(EDITS, batch_size=4), Overflow(token), ckpt_path=str(checkpoints(folder)[1]))
    assert again.loop.left_out == run.loop.left_out
    same(run, again)
