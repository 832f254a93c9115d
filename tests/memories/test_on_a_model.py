"""A model with memories on it is not the plain model: it has a name of its own, and is not edited below them."""

import copy
import json

import pytest
import torch

from lightning_edit import MEMIT, EditError, MemoryEditing, ValueSettings, edit, load_memories
from lightning_edit.callbacks import ExportEdits
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.text_moments import text_moments
from lightning_edit.loading.fingerprints import fingerprint_model, sample_of
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.progress import silent
from tests.trainers import quiet_trainer

LAYER = 1
METHODS = ("grace", "memoir", "memoir_closed")
EDITS = TinyWorld(edits=3).requests


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """For each method the folder of three memories beside layer 1, which are only read."""
    found = {}
    for method in METHODS:
        folder = tmp_path_factory.mktemp(method)
        # Far enough that a memory claims tokens of other texts too.
        own = {"radius": 1000.0} if method == "grace" else {}
        module = MemoryEditing("tiny", method, layers=[LAYER], dtype="float64", steps=2, early_stop_loss=0, **own)
        quiet_trainer(folder, ExportEdits()).fit(module, datamodule=TinyWorld(edits=3, batch_size=2))
        found[method] = folder / "lightning_edit_run" / "version_0" / "memories"
    return found


def plain():
    return load_model("tiny", "float64").eval()


def edited(model, layer=0):
    size = find_decoder(model).moment_shape(layer)[0]
    how = {"moments": {layer: torch.eye(size, dtype=torch.float64)}, "values": ValueSettings(steps=2)}
    return edit(model, load_tokenizer("tiny"), EDITS[:1], MEMIT(20.0), [layer], progress=False, **how)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# -- its name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("named", [fingerprint_model, sample_of])
def test_a_model_has_the_plain_models_name_only_while_no_memory_answers(named, method, folders):
    model = plain()
    name = named(model)
    memories = load_memories(folders[method], model)
    whole = named(model)
    assert whole != name
    # The whole of a copy is copied, and it answers alike.
    assert named(copy.deepcopy(model)) == whole
    with memories.paused():
        assert named(model) == name
    memories.remove(1)
    assert named(model) not in (name, whole)
    memories.remove(1), memories.remove(0)
    assert named(model) == name
    memories.take_off()
    load_memories(folders[method], model)
    assert named(model) == whole


def test_what_decides_where_an_edit_holds_is_in_the_name(folders, tmp_path):
    (tmp_path / "memories.safetensors").write_bytes((folders["grace"] / "memories.safetensors").read_bytes())
    words, names = json.loads((folders["grace"] / "memories.json").read_text()), set()
    labels = [{**edit, "label": "the same"} for edit in words["edits"]]
    for change in ({}, {"settings": {"radius": 2.0}}, {"edits": labels}):
        (tmp_path / "memories.json").write_text(json.dumps(words | change))
        model = plain()
        load_memories(tmp_path, model)
        names.add(fingerprint_model(model))
    assert len(names) == 3


def test_second_moments_of_the_plain_model_are_not_those_with_memories(folders, tmp_path):
    model = plain()
    decoder, tokenizer = find_decoder(model), load_tokenizer("tiny")
    rows = [tokenizer(request.rewrite_prompt).input_ids for request in EDITS]

    def counted(folder):
        return text_moments(decoder, rows, [2], folder, silent)[2]

    without = counted(str(tmp_path))
    memories = load_memories(folders["grace"], model)
    remembered = counted(str(tmp_path))
    assert torch.equal(remembered, counted(None))
    assert not torch.allclose(remembered, without, rtol=0.01)
    memories.take_off()
    assert torch.equal(counted(str(tmp_path)), without)


# -- what it was made for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_memories_do_not_go_on_a_model_that_was_edited_elsewhere(method, folders):
    model = plain()
    result = edited(model)
    with pytest.raises(EditError, match="tiny has changed since it was edited: weights that the run did not edit"):
        load_memories(folders[method], model)
    result.remove()
    assert len(load_memories(folders[method], model)) == 3


def test_nothing_is_written_below_memories(folders):
    model = plain()
    result = edited(model)
    result.remove()
    memories, before = load_memories(folders["grace"], model), weights(model)
    refused = pytest.raises(EditError, match=r"carries edits beside its weights, Memories\(grace, 3 .*take_off\(\)")
    with refused:
        edited(model)
    with refused, memories.paused():
        edited(model)
    with refused:
        result.insert()
    with refused:
        load_memories(folders["memoir"], model)
    assert unchanged(model, before)
    memories.take_off()
    result.insert()
    with pytest.raises(EditError, match="has changed since it was edited"):
        memories.put_on()
    result.remove()
    other = edited(model, LAYER)
    with pytest.raises(EditError, match="holds other weights than these edits were made for"):
        memories.put_on()
    other.remove()
    memories.put_on()
    assert unchanged(model, before)


def test_folders_of_earlier_versions_are_read(folders, tmp_path):
    words = json.loads((folders["memoir"] / "memories.json").read_text())
    assert words["info"].pop("model_sample") == sample_of(plain())
    (tmp_path / "memories.json").write_text(json.dumps(words))
    (tmp_path / "memories.safetensors").write_bytes((folders["memoir"] / "memories.safetensors").read_bytes())
    assert len(load_memories(tmp_path, plain())) == 3
