"""Checkpoints and updates that somebody made by hand: a result or one message, never a traceback."""

import json
import shutil
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lightning_edit import EditError, ModelUpdate
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_model
from lightning_edit.loop.checkpoint_fit import check_fits
from lightning_edit.loop.on_top_of import earlier_edits
from lightning_edit.loop.run_state import RunState, set_random_states
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints, damage
from lightning_edit.storage.tensor_form import checksum
from lightning_edit.updates.files.update_file import _tensors_checksum
from lightning_edit.updates.files.update_record import DamagedUpdateError
from lightning_edit.updates.files.update_record import checksum as checksum_of_record
from lightning_edit.updates.history import History
from lightning_edit.updates.undo import change_updates
from tests.hostile import variants
from tests.small_runs import Requests, fit, module

# What is wrong in it is found by who uses it, in the settings by the command line's parser.
SETTINGS = ("hyper_parameters", "datamodule_hyper_parameters", "optimizer_states", "lr_schedulers")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two updates that preserves its keys, on the embedded model."""
    edits = TinyWorld(edits=4).requests
    made = module(previous_keys=True)
    return fit(tmp_path_factory.mktemp("run"), made, Requests(edits)), made


@pytest.fixture(scope="module")
def unedited():
    made = module()
    made.configure_model()
    return made


def read(content, weights):
    """What going on from a checkpoint does with it, its tensors and random states."""
    check_fits(content, weights, 4)
    if "run" not in content:
        return
    state = RunState.unpacked(content["run"])
    weights.set(state.added)
    for keys in state.previous_keys.values():
        keys.dense()
    set_random_states(content["random"])


@pytest.mark.slow
def test_a_checkpoint_of_the_wrong_form_is_found(run, unedited, tmp_path):
    folder, _ = run
    right = torch.load(checkpoints(folder)[0], weights_only=True)
    file, found, accepted = tmp_path / "wrong.ckpt", [], []
    for name, content in variants(right, keep=SETTINGS):
        torch.save(content, file)
        wrong = damage(file)
        if wrong is None:
            try:
                read(torch.load(file, weights_only=True), unedited.weights)
                accepted.append(name)
                continue
            except EditError as error:
                wrong = str(error)
        assert len(wrong) < 1000
        found.append(name)
    assert len(found) > 500
    # A name more does no harm where names are free; no value that is used may be another than it was.
    used = [name for name in accepted if not name.endswith("under another name")]
    free = ("epoch", "global_step", "callbacks", "optimizer_states", "lr_schedulers", "hparams_name", "datamodule_hpar")
    optional = ("edits.before", "edits.context_templates", "run.seconds", "run.curves", "run.stopped", "run.left_out")
    counted = [f"run.{name} gone" for name in ("offered", "taken", "micro_batches", "passes", "edits_written")]
    counted += ["run.updates_written gone", "run.finished gone", "run gone", "random.cuda gone"]
    # Runs before there were sources and anchors have neither.
    counted += ["run.statistics gone", "run.anchored gone"]
    # Older ones have not kept the losses of values, from which advice is given.
    counted += ["run.value_losses gone"]
    optional += ("run.value_losses.",)
    # Nor have older ones noted their model.
    counted += ["edits.model_sample gone"]
    # Compared with those of the run that goes on; layers that no update changed have neither sum nor keys.
    optional += ("edits.fingerprints.", "run.previous_keys.0 gone", "run.added.0 gone")
    left = [name for name in used if not name.startswith((*free, *optional)) and name not in counted]
    assert not left, left


def test_what_is_no_number_is_found_in_edited_weights(run, unedited, tmp_path):
    content = torch.load(run[0] / "edited.ckpt", weights_only=True)
    (name,) = content["state_dict"]
    content["state_dict"][name][0, 0] = float("nan")
    with pytest.raises(EditError, match=r"state_dict.*finite numbers.* 1 are not"):
        check_fits(content, unedited.weights)
    torch.save(content, tmp_path / "edited.ckpt")
    with pytest.raises(EditError, match=r"state_dict\..*weight: expected finite numbers"):
        earlier_edits(str(tmp_path / "edited.ckpt"), unedited.weights, "tiny", False)


@pytest.mark.parametrize("value", [5, "x", [5], {"a": [5]}, None, torch.zeros(2)], ids=str)
def test_what_is_no_checkpoint_at_all_is_found(value, tmp_path):
    torch.save(value, tmp_path / "x.ckpt")
    assert "form" in damage(tmp_path / "x.ckpt")


def opened(path):
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    for name in ("layers", "info", "edits", "figures"):
        if name in metadata:
            metadata[name] = json.loads(metadata[name])
    return {"metadata": metadata, "tensors": load_file(path)}


def saved(path, content, hashed):
    """Writes a file that its owner has signed: with right checksums, so that only its form is wrong."""
    metadata, tensors = content["metadata"], content["tensors"]
    described = {}
    for name, value in metadata.items():
        json_text = name in ("layers", "info", "edits", "figures")
        described[str(name)] = json.dumps(value, default=str) if json_text else str(value)
    tensors = {str(name): tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, path, hashed(tensors, described))


def signed_update(tensors, metadata):
    metadata.pop("checksum", None)
    return metadata | {"checksum": checksum(tensors, metadata)}


def signed_history(tensors, metadata):
    metadata.pop("checksum", None)
    metadata["tensors"] = _tensors_checksum(tensors)
    return metadata | {"checksum": checksum_of_record(metadata)}


def test_an_update_of_the_wrong_form_is_found(run, tmp_path):
    model, path = load_model("tiny"), tmp_path / "update.safetensors"
    right = opened(run[0] / "update.safetensors")
    found = []
    for name in list_of_files(right, path, signed_update):
        try:
            update = ModelUpdate.load(path)
            update.insert(model)
            update.remove(model)
        except EditError:
            found.append(name)
    assert len(found) > 60
    for part in ("metadata.layers gone", "metadata.info gone", "tensors.left.0 gone"):
        assert part in found


def list_of_files(right, path, hashed):
    """One file after the other at the same place."""
    for name, content in variants(right):
        try:
            saved(path, content, hashed)
        except Exception:  # noqa: BLE001  (what safetensors does not write cannot be in a file)
            continue
        yield name


@pytest.mark.slow
def test_a_stored_update_of_the_wrong_form_is_found(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    history = History(folder / "updates")
    right, found = opened(history.path(2)), []
    for name in list_of_files(right, history.path(2), signed_history):
        try:
            history.record(2)
            history.read(2)
            history.sum()
            history.distance([1])
        except EditError:
            found.append(name)
    assert len(found) > 100
    for part in ("tensors.keys.0 is torch.float64 (1,)", "metadata.edits gone", "metadata.when is 'x'"):
        assert any(name.startswith(part.split(" is ")[0]) for name in found)
    with pytest.raises(DamagedUpdateError):
        saved(history.path(2), {**right, "metadata": {**right["metadata"], "edits": [{"subject": 3}]}}, signed_history)
        history.read(2)


def test_a_run_with_a_hostile_update_file_is_refused_by_the_command(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    right = opened(folder / "update.safetensors")
    info = {**right["metadata"]["info"], "removed_updates": "all"}
    saved(folder / "update.safetensors", {**right, "metadata": {**right["metadata"], "info": info}}, signed_update)
    with warnings.catch_warnings(), pytest.raises(EditError, match="removed_updates"):
        change_updates(folder, "remove", [2])
