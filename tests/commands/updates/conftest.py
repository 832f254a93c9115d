"""A finished run of four updates, and copies of it that a test may change."""

import shutil

import pytest
import torch
import yaml

from lightning_edit import EMMET, ValueSettings
from lightning_edit.editor import Editor
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.history import History
from lightning_edit.updates.layer_update import LayerUpdate
from tests.commands.updates.material import BATCHES, LAYERS, edited


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_tokenizer):
    """A run of four updates on the embedded model in bfloat16, and its edited weights after each."""
    folder = tmp_path_factory.mktemp("runs") / "version_0"
    history, model = History(folder / "updates"), load_model("tiny", "bfloat16")
    decoder = find_decoder(model)
    weights = EditedWeights(decoder, LAYERS)
    moments = {layer: torch.eye(decoder.weight(layer).shape[1], dtype=torch.float64) for layer in LAYERS}
    values = ValueSettings(lr=0.5, steps=3)
    editor = Editor(weights, tiny_tokenizer, EMMET(1.0), LAYERS, ContextTemplates(), values, moments)
    states = [edited(model)]
    for number, batch in enumerate(BATCHES, start=1):
        written = editor.write(batch, editor.find_values(batch).z)
        updates = {
            layer: LayerUpdate(decoder.names[layer], fingerprint(weights.base[layer]), factors)
            for layer, factors in written.factors.items()
        }
        after = {layer: fingerprint(decoder.weight(layer)) for layer in LAYERS}
        history.write(number, updates, written.keys, batch, written.figures, editor.describe(), after)
        states.append(edited(model))
    weights.update(**editor.describe(), edits=12).save(folder / "update.safetensors")
    model.save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    settings = {"model": "tiny", "dtype": "bfloat16", "layers": LAYERS}
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"model": {"class_path": "EditingModule", "init_args": settings}})
    )
    return folder, states


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "version_0")
