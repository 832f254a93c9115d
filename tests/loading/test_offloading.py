"""Models whose parts accelerate keeps in different places: nothing but the places is different."""

import pytest
import torch
from accelerate.utils import has_offloaded_params
from transformers import AutoModelForCausalLM

from lightning_edit import MEMIT, EditError, ValueSettings
from lightning_edit.callbacks import ExportEdits
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.loading.fingerprints import fingerprint_model
from lightning_edit.loading.offloading import check_device_map, keep_in_memory
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.run.module import EditingModule
from lightning_edit.updates.edited_weights import EditedWeights
from tests.architectures import EXPERTS, SIZES, build
from tests.small_models import make_factors
from tests.trainers import quiet_trainer

IDS = torch.arange(1, 41).view(2, 20)


def places(model):
    """The first block and what has no weights in memory, the rest on the disk."""
    decoder = find_decoder(model)
    blocks = next(name for name, module in model.named_modules() if module is decoder.blocks)
    inside = {}
    for name, module in model.named_modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if own and not name.startswith(blocks + "."):
            inside[name] = "cpu"
    return inside | {f"{blocks}.{i}": "cpu" if i == 0 else "disk" for i in range(len(decoder.blocks))}


@pytest.mark.parametrize("family", [*SIZES, *EXPERTS])
@pytest.mark.slow
def test_a_model_read_from_the_disk_is_edited_like_one_in_memory(family, tmp_path):
    build(family).save_pretrained(tmp_path)
    plain = load_model(str(tmp_path))
    spread = load_model(str(tmp_path), device_map=places(plain), offload_folder=str(tmp_path / "offload"))
    decoder, known = find_decoder(spread), find_decoder(plain)
    assert decoder.weight(1).is_meta
    assert fingerprint_model(spread) == fingerprint_model(plain)
    keep_in_memory(spread, decoder.down_projection(1))
    assert not decoder.weight(1).is_meta
    assert has_offloaded_params(decoder.down_projection(2))
    assert fingerprint_model(spread) == fingerprint_model(plain)
    weights, expected = EditedWeights(decoder, [1]), EditedWeights(known, [1])
    with torch.no_grad():
        assert torch.equal(spread(IDS).logits, plain(IDS).logits)
        for each in (weights, expected):
            each.add(1, make_factors(*each.base[1].shape))
        edited = plain(IDS).logits
        assert torch.equal(spread(IDS).logits, edited)
        with weights.unedited(), expected.unedited():
            assert torch.equal(spread(IDS).logits, plain(IDS).logits)
        assert torch.equal(spread(IDS).logits, edited)
    assert fingerprint_model(spread) == fingerprint_model(plain)


def run(folder, model, **places):
    made = EditingModule(
        str(model),
        [0, 1],
        MEMIT(1.0, ridge=0.01),
        ValueSettings(steps=3, early_stop_loss=1e-9),
        SecondMomentSettings(tokens=2000),
        edits_per_update=2,
        **places,
    )
    data = TinyWorld(edits=4)
    runner = quiet_trainer(folder, ExportEdits())
    for step in (runner.test, runner.fit, runner.test):
        step(made, datamodule=data)
    return made


@pytest.mark.slow
def test_a_whole_run_gives_what_it_gives_in_memory(tmp_path, tiny_tokenizer):
    build("Llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    kept = places(load_model(str(tmp_path / "model")))
    # Token ids go in where the embeddings are, and layer 1 is edited: both are brought into memory.
    kept |= {"model.embed_tokens": "disk", "lm_head": "disk"}
    spread = run(tmp_path / "spread", tmp_path / "model", device_map=kept)
    plain = run(tmp_path / "plain", tmp_path / "model")
    assert spread.model.get_submodule("lm_head").weight.is_meta
    assert spread.results == plain.results
    for layer in (0, 1):
        assert torch.equal(spread.decoder.weight(layer), plain.decoder.weight(layer))
    assert fingerprint_model(spread.model) == fingerprint_model(plain.model)
    folders = [tmp_path / name / "lightning_edit_run" / "version_0" / "model" for name in ("spread", "plain")]
    exported = [AutoModelForCausalLM.from_pretrained(folder) for folder in folders]
    assert torch.equal(exported[0](IDS).logits, exported[1](IDS).logits)
    fresh = run_test(tmp_path, kept)
    assert fresh.results["after"] == plain.results["after"]


def run_test(folder, kept):
    made = EditingModule(str(folder / "model"), [0, 1], device_map=kept)
    path = folder / "plain" / "lightning_edit_run" / "version_0" / "edited.ckpt"
    quiet_trainer(folder).test(made, datamodule=TinyWorld(edits=4), ckpt_path=path, weights_only=True)
    return made


def test_a_map_that_leaves_parts_out_is_told_as_the_user_s_mistake(tmp_path):
    build("Llama").save_pretrained(tmp_path)
    with pytest.raises(EditError, match="no causal language model could be loaded"):
        load_model(str(tmp_path), device_map={"model.layers": "disk"})


def test_several_processes_cannot_spread_a_model():
    check_device_map(None, 2)
    check_device_map("auto", 1)
    with pytest.raises(EditError, match=r"`device_map`.*ModelParallelStrategy"):
        check_device_map("auto", 2)
