"""``layers: auto``: what it comes to, what is said of it, and that a run keeps what it came to."""

import json
import logging

import pytest
import torch
import yaml

from lightning_edit import MEMIT, EditingModule, EditRequest, FineTuning, ValueSettings, edit
from lightning_edit.commands.comparison.settings import flat_settings
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.auto_layers import settle_layers
from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import World
from tests.architectures import build


def settled(caplog, decoder, *needs):
    with caplog.at_level(logging.WARNING):
        layers = settle_layers("auto", decoder, *needs)
    (record,) = caplog.records
    caplog.clear()
    return layers, record.getMessage()


def shaped(**shape):
    """A decoder on the meta device: nothing of it is run."""
    with torch.device("meta"):
        return find_decoder(build("Llama", **shape))


def test_the_layers_of_a_preset_are_taken_by_shape(caplog):
    small = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    decoder = shaped(num_hidden_layers=30, hidden_size=576, intermediate_size=1536, **small)
    layers, said = settled(caplog, decoder, "MEMIT")
    assert layers == [4, 5, 6, 7, 8, 9]
    assert said == "layers: [4, 5, 6, 7, 8, 9], from configs/models/smollm2_135m.yaml (found by hand)."
    decoder = shaped(num_hidden_layers=22, hidden_size=2048, intermediate_size=5632, **small)
    assert settled(caplog, decoder, "MEMIT")[0] == [3, 4, 5, 6]
    assert settled(caplog, decoder, "ROME", False)[0] == [3]
    layers, said = settled(caplog, decoder, None)
    assert layers == [5] and "preset" not in said


def test_without_a_preset_it_is_a_guess_and_says_so(caplog):
    layers, said = settled(caplog, shaped(num_hidden_layers=9), "EMMET")
    assert layers == [2]
    assert (
        "a quarter of the way up the 9 blocks. This is a guess: " in said
        and "(llama, 9 blocks, hidden size 32)" in said
    )
    assert settled(caplog, shaped(num_hidden_layers=1), "EMMET")[0] == [0]


def test_a_block_that_cannot_be_edited_is_passed_over(caplog):
    model = build("Llama", num_hidden_layers=8)
    model.model.layers[2].mlp = torch.nn.Identity()
    assert settled(caplog, find_decoder(model), "EMMET")[0] == [1]


@pytest.mark.parametrize("layers", [[2, 1], 1, (1,), range(2)])
def test_numbers_are_left_as_they_are(layers, caplog):
    decoder = shaped(num_hidden_layers=5)
    assert settle_layers(layers, decoder) == ([layers] if isinstance(layers, int) else sorted(layers))
    assert not caplog.records


def test_other_words_are_refused():
    with pytest.raises(EditError, match="`layers` must be auto or numbers of blocks such as \\[5\\], got 'all'"):
        settle_layers("all", shaped())
    with pytest.raises(EditError, match=r"`model\.layers` must be "):
        FineTuning("tiny", layers="all")


def test_a_module_says_what_it_needs_layers_for():
    assert EditingModule("tiny", solver=MEMIT(1.0)).layers_for == ("MEMIT", True)
    assert EditingModule("tiny", values=ValueSettings(site="mlp")).layers_for == ("EMMET", False)
    assert FineTuning("tiny").layers_for == (None, True)


def test_the_function_takes_it_too(tiny_tokenizer, caplog):
    record = World.generate().records(1, seed=0)[0]
    request = EditRequest(record["subject"], record["prompt"], record["target_new"])
    settings = {"values": ValueSettings(steps=2), "texts": World.generate().sentences(0), "progress": False}
    assert list(edit(load_model("tiny"), tiny_tokenizer, [request], **settings).layers) == [0]
    assert "layers: [0], from configs/models/tiny.yaml" in caplog.text


@pytest.mark.slow
def test_a_run_keeps_the_layers_that_it_settled(finished):
    settings = json.loads((finished / "metrics.json").read_text())["config"]["model"]
    config = yaml.safe_load((finished / "config.yaml").read_text())["model"]["init_args"]
    logged = yaml.safe_load((finished / "hparams.yaml").read_text())
    checkpoints = [finished / "edited.ckpt", *(finished / "checkpoints").glob("*.ckpt")]
    kept = [torch.load(file, weights_only=True)["hyper_parameters"] for file in checkpoints]
    assert len(kept) > 2
    assert [one["layers"] for one in (settings, config, logged, *kept)] == [[0]] * (3 + len(kept))
    assert flat_settings({"model": settings})["model.layers"] == "[0]"
