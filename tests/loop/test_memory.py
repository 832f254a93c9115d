"""How much memory an edit takes: little where that is asked for, with the same result, and as much as was said."""

import json

import pytest
import torch

from lightning_edit import (
    EMMET,
    MEMIT,
    AlphaEdit,
    EditRequest,
    EvoEdit,
    Gradient,
    LyapLock,
    OutputMEMIT,
    SecondMomentSettings,
    SimIE,
    ValueSettings,
    edit,
)
from lightning_edit.api import editing
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.loop import memory
from lightning_edit.loop.carried import Course
from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import World
from tests.benchmarks.measure import TensorPeak
from tests.small_runs import module as small_module
from tests.trainers import quiet_trainer

WORLD = World.generate()
# How far an estimate may be from what is measured, either way.
FACTOR = 1.5
NAMES = pytest.mark.parametrize("name", ["tiny", pytest.param("tiny-moe", marks=pytest.mark.slow)])


def edited(name, how, dtype="float32", **changes):
    """The dense updates, the peak of tensors beside the model, and what was said of it before."""
    model = load_model(name, dtype).eval()
    records = WORLD.records(6, seed=0)
    requests = [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in records]
    needs = []
    with pytest.MonkeyPatch.context() as patch, TensorPeak() as tensors:
        patch.setattr(editing, "announce", lambda *given: needs.append(memory.announce(*given)))
        update = edit(
            model,
            load_tokenizer(name),
            requests,
            EMMET(ridge=0.01),
            values=ValueSettings(steps=2),
            texts=WORLD.sentences(0),
            second_moment=SecondMomentSettings(tokens=2000, cache_dir=None),
            progress=False,
            memory=how,
            **{"layers": [0, 1], **changes},
        )
    return {layer: of.factors.dense() for layer, of in update.layers.items()}, tensors.peak, needs[0]


@NAMES
def test_little_memory_gives_the_same_update(name):
    normal, most, _ = edited(name, "normal", "float64")
    low, least, _ = edited(name, "low", "float64")
    assert least < most / 2
    for layer, delta in normal.items():
        assert (low[layer] - delta).norm() < 1e-6 * delta.norm()


@pytest.mark.parametrize("how", ["normal", "low"])
@NAMES
def test_an_edit_takes_what_was_said(name, how):
    _, peak, needs = edited(name, how)
    said = needs.device - needs.model
    assert peak / FACTOR < said < peak * FACTOR


def test_what_does_not_fit_is_warned_of(monkeypatch, caplog):
    decoder = find_decoder(load_model("tiny", "float32"))
    needs = memory.memory_needs(decoder, [0, 1], EMMET(), Course(64), texts=6, values=10**6)
    monkeypatch.setattr(memory, "free_memory", lambda device: needs.device)
    memory.preflight(needs, decoder, "data.batch_size", shown=False)
    assert not caplog.messages
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**6)
    memory.preflight(needs, decoder, "data.batch_size")
    said, warned = caplog.messages
    assert "1 MB are free" in said
    assert "set `memory: low`; edit fewer layers" in warned
    caplog.clear()
    memory.preflight(needs.__class__(**{**vars(needs), "values": 10**9}), decoder, "data.batch_size")
    assert "lower `data.batch_size`" in caplog.messages[-1]


def test_this_machine_says_what_is_free():
    free = memory.free_memory(torch.device("cpu"))
    assert free is None or 10**6 < free < 10**14


def test_a_run_says_what_it_takes(finished):
    needs = json.loads((finished / "metrics.json").read_text())["memory"]
    assert needs["model"] > 7e6
    assert needs["device"] > needs["model"] + needs["base_copies"] + needs["second_moments"]


SEARCHED = ValueSettings(steps=2, lr=0.5, weights="unedited")
SEQUENCES = {
    "LyapLock": {"solver": MEMIT(1.0, ridge=0.01), "anchor": LyapLock()},
    "C_p": {"solver": MEMIT(1.0, ridge=0.01), "previous_keys": True},
    "a null space and C_p": {"solver": AlphaEdit(threshold=0.05)},
    "EvoEdit": {"solver": AlphaEdit(threshold=0.05, ridge=4.0), "anchor": EvoEdit()},
    "B": {"solver": OutputMEMIT(1.0, ridge=0.01), "previous_keys": True},
    "SimIE": {"solver": MEMIT(1.0, ridge=0.01), "anchor": SimIE(), "source": None, "values": SEARCHED},
}


def bytes_in(value):
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(bytes_in, inside))


@pytest.mark.parametrize("kind", ["LyapLock", *(pytest.param(k, marks=pytest.mark.slow) for k in list(SEQUENCES)[1:])])
def test_what_a_sequence_keeps_and_takes_was_said(kind, tmp_path):
    # So many that keys are summed up, but for the search.
    edits, update = (12, 4) if kind == "SimIE" else (160, 40)
    settings = {"source": Gradient(eta=1e-4), "values": ValueSettings(), "context_templates": None}
    settings |= {"second_moment": SecondMomentSettings(tokens=2000, cache_dir=None), "edits_per_update": update}
    made = small_module(layers=[0, 1], **{**settings, **SEQUENCES[kind]})
    with TensorPeak() as tensors:
        quiet_trainer(tmp_path).fit(made, datamodule=TinyWorld(edits=edits))
    needs, state = made.sections["memory"], made.loop.kept.packed()
    kept = sum(bytes_in(state[part]) for part in ("added", "previous_keys", "anchored"))
    assert kept / 1.15 < needs["kept"] < kept * 1.15
    # What LAPACK has to itself is no tensor.
    workspace = 2 * 8 * 1024**2 if isinstance(made.solver, AlphaEdit) else 0
    assert tensors.peak / FACTOR < needs["device"] - needs["model"] - workspace < tensors.peak * FACTOR
