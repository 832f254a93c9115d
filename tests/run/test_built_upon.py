"""Runs on top of another: what they are compared with, what they may be built on, and what is left without it."""

import shutil
from dataclasses import replace

import pytest
import torch

from lightning_edit import EditError, Gradient, Query, Ridge, Ripple, ValueSettings
from lightning_edit.datamodules import TinyWorld
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.updates.history import History
from tests.small_runs import Refuse, Requests, fit, module
from tests.trainers import quiet_trainer

EDITS = TinyWorld(edits=8).requests
# Steps so long that much else changes, and so short that nothing does.
SOURCED = {"solver": Ridge(1.0), "values": ValueSettings(), "layers": [0, 1], "context_templates": None}
FAR, NEAR = ({**SOURCED, "source": Gradient(maps=["mlp.*"], eta=eta)} for eta in (1e-3, 1e-9))


def guarded(request):
    """The edit with answers about other subjects that should stay."""
    others = request.neighborhood_prompts[:2]
    tests = tuple(Ripple("unrelated", (Query(prompt),), kept=True) for prompt in others)
    return replace(request, ripples=tests, locality=tuple((prompt, request.target_true) for prompt in others))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run that has changed much beside its edits."""
    return fit(tmp_path_factory.mktemp("first"), module(**FAR), Requests(EDITS[:4]))


def measured(folder, made, data, ckpt_path=None):
    quiet_trainer(folder).test(made, datamodule=data, ckpt_path=ckpt_path, weights_only=True, verbose=False)
    return made.results


def test_what_should_stay_is_compared_with_what_the_run_found(first, tmp_path):
    data, evaluation = Requests([guarded(request) for request in EDITS[4:]]), EvaluationSettings(wild=True)
    kept = ("locality_unchanged", "wild_exact_locality", "ripple_unrelated_unchanged")
    made = module(on_top_of=str(first), evaluation=evaluation, **NEAR)
    assert measured(tmp_path, made, data)["before"]["locality_unchanged"] == 1
    fit(tmp_path, made, data)
    after = measured(tmp_path, made, data)["after"]
    assert {name: after[name] for name in kept} == dict.fromkeys(kept, 1.0)
    # The earlier run has changed much, which shows where it is compared with the base.
    made.loop.built_upon = {}
    after = measured(tmp_path, made, data)["after"]
    assert all(after[name] < 0.8 for name in kept), {name: after[name] for name in kept}


def test_a_run_of_independent_updates_is_nothing_to_build_upon(tmp_path):
    folder = fit(tmp_path, module(independent_updates=True), Requests(EDITS[:4]))
    newest = checkpoints(folder)[0]
    assert History(folder / "updates").numbers() == [1, 2]
    made = module(on_top_of=str(newest), previous_keys=True)
    with pytest.raises(
        EditError, match=r"`on_top_of`: each update of the run of .*\.ckpt was made by itself.*Make the"
    ):
        made.configure_model()
    content = torch.load(newest, weights_only=True)
    settings = content["hyper_parameters"]
    settings["separate_updates"] = settings.pop("independent_updates")
    torch.save(content, tmp_path / "older.ckpt")
    with pytest.raises(EditError, match="was made by itself"):
        module(on_top_of=str(tmp_path / "older.ckpt")).configure_model()


@pytest.fixture(scope="module")
def second(first, tmp_path_factory):
    """A run on top of the first, whose folder is elsewhere by now, and its figures."""
    parent = tmp_path_factory.mktemp("second")
    data = Requests([guarded(request) for request in EDITS[4:]])
    earlier = shutil.copytree(first, parent / "earlier")
    made = module(on_top_of=str(earlier), **NEAR)
    folder = fit(parent, made, data)
    figures = measured(parent, made, data)["after"]
    shutil.rmtree(earlier)
    return folder, module(on_top_of=str(earlier), **NEAR), data, figures, made.decoder.weight(0).clone()


def test_a_checkpoint_is_measured_without_the_run_that_it_was_built_upon(second, tmp_path):
    folder, made, data, figures, weight = second
    assert measured(tmp_path, made, data, folder / "edited.ckpt")["after"] == figures
    assert figures["locality_unchanged"] == 1
    assert torch.equal(made.decoder.weight(0), weight)
    # Of a checkpoint its own settings count.
    bare = module(**NEAR)
    assert measured(tmp_path, bare, data, checkpoints(folder)[0])["after"] == figures
    with pytest.raises(EditError, match="there is no file"):
        fit(tmp_path, module(on_top_of=made.on_top_of, **NEAR), data)


@pytest.mark.parametrize("left", ["nothing", "damaged", "another"])
def test_what_a_checkpoint_is_compared_with_is_said(second, left, tmp_path):
    folder, _, data, figures, weight = second
    copy = shutil.copytree(folder, tmp_path / "run")
    start = copy / "updates" / "start.safetensors"
    if left == "nothing":
        start.unlink()
    elif left == "damaged":
        start.write_bytes(start.read_bytes()[:-8])
    else:
        layers = {layer: replace(one, base="0" * 64) for layer, one in History(start.parent).start().items()}
        shutil.rmtree(start.parent)
        History(start.parent).write_start(layers)
    made = module(**NEAR)
    told = {"nothing": "is not there", "damaged": "is damaged", "another": "is of another model"}[left]
    with pytest.warns(UserWarning, match=rf"{told}.* compared with the base model without any edit"):
        after = measured(tmp_path, made, data, copy / "edited.ckpt")["after"]
    assert torch.equal(made.decoder.weight(0), weight)
    assert after["efficacy_score"] == figures["efficacy_score"]
    assert after["locality_unchanged"] < 0.8


@pytest.mark.parametrize("upon", [False, True])
def test_what_a_run_without_updates_leaves_is_said(first, upon, tmp_path):
    left = "holds the edits of the run it was built on, and no others" if upon else "is unedited"
    made = module(on_top_of=str(first) if upon else None, **NEAR)
    with pytest.warns(UserWarning, match="undone"), pytest.raises(EditError, match=f"so the model {left}: enough"):
        fit(tmp_path, made, Requests(EDITS[4:6]), Refuse(1))
    assert bool(made.weights.added) is upon
