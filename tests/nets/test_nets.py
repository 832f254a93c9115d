"""Nets and the gradients of their training are those of plain code in float64, which goes through all of it at once."""

import json
from dataclasses import replace

import pytest
import torch

from lightning_edit import (
    MEMIT,
    ContextTemplates,
    EditError,
    EditRequest,
    Gradient,
    Ridge,
    Sum,
    ValueSettings,
    Windows,
    edit,
)
from lightning_edit.editor import Editor
from lightning_edit.gradients.net import GradientNet
from lightning_edit.gradients.net_file import load_net, save_net
from lightning_edit.keys.stored_moments import unneeded_moment
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.finding.places import places_of, with_maps
from lightning_edit.nets.lessons import lessons_of
from lightning_edit.nets.objective import Pupil, sequence_loss
from lightning_edit.nets.settings import NetSettings
from lightning_edit.nets.training import check_pupil, made_of, train
from lightning_edit.updates.edited_weights import EditedWeights
from tests.gradients.plain import plain_pairs
from tests.nets.plain import plain_delta, plain_loss, shuffled
from tests.small_models import make_gpt2, make_llama, make_tokenizer

ETA, BLOCKS, RIDGE = 1e-2, 2, 3.0
MAPS, LAYERS = ["mlp.*"], [1, 2]
NAMES = [f"transformer.h.{layer}.mlp.{name}" for layer in LAYERS for name in ("c_fc", "c_proj")]
EDITS = [
    EditRequest(
        *("Danielle Darrieux", "The mother tongue of {} is", "English at home", "French"),
        paraphrase_prompts=("You know that Danielle Darrieux speaks", "At home, Danielle speaks"),
        neighborhood_prompts=("The mother tongue of Anna is", "Anna speaks"),
    ),
    EditRequest("Toyota Motor Corporation", "The headquarters of {} are in", "London", "Berlin"),
    EditRequest(
        *("violin", "The {} is played by", "Paris and Rome as well"),
        paraphrase_prompts=("You play the violin in",),
        locality=(("The old musician is from", "London"),),
    ),
    EditRequest("Anna", "{}'s brother went to school in", "the old city of Berlin", "Rome"),
]
METHODS = {
    "malmen": (Ridge(RIDGE), {"scale": "key_product"}, NetSettings(rank=5, batch=4)),
    "rledit": (
        Ridge(RIDGE),
        {"scale": "key_product"},
        NetSettings(rank=5, batch=2, turns=2, penalty=0.1, discount=0.9, locality=0.7),
    ),
    "rledit-short": (
        Ridge(RIDGE),
        {"scale": "key_product"},
        NetSettings(rank=5, batch=1, turns=4, penalty=0.1, reach=2),
    ),
    "mend": (Sum(), {"scale": "alone", "tokens": "all"}, NetSettings(rank=5, batch=4)),
}


def pupil_of(method="malmen", model=None):
    solver, how, settings = METHODS[method]
    decoder = with_maps(find_decoder(model or make_gpt2()), MAPS)
    source = Gradient(maps=MAPS, eta=ETA, **how)
    places = places_of(decoder, LAYERS, MAPS)
    return Pupil(decoder, make_tokenizer(), source, solver, places, ContextTemplates()), settings


def net_of(pupil, settings, numbers=True):
    net = GradientNet(made_of(pupil, settings, "gpt2"), seed=1)
    return shuffled(net) if numbers else net


def written(source, edits, solver, model=None, layers=LAYERS):
    """What a source writes, for each map."""
    decoder = with_maps(find_decoder(model or make_gpt2()), source.maps)
    places = places_of(decoder, layers, source.maps)
    source.check_places(decoder, places, {})
    moments = {place: unneeded_moment(decoder, place) for place in places}
    how = (places, ContextTemplates(), ValueSettings(), moments)
    editor = Editor(EditedWeights(decoder, places), make_tokenizer(), solver, *how, source=source)
    for part in edits:
        editor.write(part, torch.zeros(len(part), 0))
    return {decoder.names[place]: factors.dense() for place, factors in editor.weights.added.items()}


@pytest.mark.parametrize("method", ["malmen", "mend"])
def test_an_update_with_a_net_is_that_of_the_plain_net(method, tmp_path):
    pupil, settings = pupil_of(method)
    net = net_of(pupil, settings).float()
    save_net(net, tmp_path)
    found = written(replace(pupil.source, net=str(tmp_path)), [EDITS], pupil.solver)
    numbers = {name: value.double() for name, value in net.state_dict().items()}
    pairs = plain_pairs(make_gpt2(), make_tokenizer(), EDITS, NAMES, everywhere=method == "mend")
    shapes = {}
    for name, (h, g) in pairs.items():
        of_shape = shapes.setdefault((g.shape[1], h.shape[1]), [])
        of_shape.append(name)
    for shape, names in shapes.items():
        everything = [torch.cat([pairs[name][part] for name in names]) for part in (0, 1)]
        for place, name in enumerate(names):
            how = (*pairs[name], everything, ETA, RIDGE, method == "mend")
            expected = plain_delta(numbers, shape, place, BLOCKS, *how)
            assert (found[name] - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize("scale", ["key_product", "squared_key", "alone"])
def test_an_untrained_net_changes_nothing(scale, tmp_path):
    pupil, settings = pupil_of()
    source = replace(pupil.source, scale=scale)
    save_net(net_of(replace(pupil, source=source), settings, numbers=False), tmp_path)
    parts = [EDITS[:2], EDITS[2:]]
    without, found = written(source, parts, Ridge()), written(replace(source, net=str(tmp_path)), parts, Ridge())
    for name, delta in without.items():
        assert delta.any() and (found[name] - delta).norm() <= 1e-9 * delta.norm()


@pytest.mark.parametrize("method", METHODS)
def test_the_gradients_of_training_are_those_of_autograd_through_everything(method):
    pupil, settings = pupil_of(method)
    net = net_of(pupil, settings)
    lessons = lessons_of(EDITS, pupil.tokenizer, 64, locality=True)
    turns = [lessons[start : start + settings.batch] for start in range(0, len(EDITS), settings.batch)]
    outcome = sequence_loss(pupil, net, {}, turns, settings)
    found = torch.autograd.grad(outcome.surrogate, list(net.parameters()))
    numbers = {name: value.detach().clone().requires_grad_() for name, value in net.named_parameters()}
    edits = [[lesson.request for lesson in turn] for turn in turns]
    how = (BLOCKS, edits, ETA, RIDGE, settings, method == "mend")
    loss = plain_loss(make_gpt2(), make_tokenizer(), NAMES, numbers, *how)
    expected = torch.autograd.grad(loss, list(numbers.values()))
    assert abs(outcome.loss - float(loss.detach())) <= 1e-9 * float(loss.detach())
    for name, one, other in zip(numbers, found, expected, strict=True):
        if method == "mend" and name.endswith("log_ridge"):
            assert torch.allclose(one, other, rtol=1e-9)
        assert float((one - other).norm()) <= 1e-9 * float(other.norm()), name
        assert other.any(), name


def test_the_step_of_an_untrained_net_is_not_zero():
    pupil, settings = pupil_of()
    net = net_of(pupil, settings, numbers=False)
    lessons = lessons_of(EDITS, pupil.tokenizer, 64, locality=True)
    sequence_loss(pupil, net, {}, [lessons], settings).surrogate.backward()
    assert all(bool(part.grad.any()) for name, part in net.named_parameters() if name.endswith((".b", ".bias")))


def test_a_sum_is_what_ridge_regression_tends_to():
    source = Gradient(maps=MAPS, eta=ETA)
    plain, far = written(source, [EDITS], Sum()), written(source, [EDITS], Ridge(1e10))
    many = [replace(edit, case_id=str(number)) for number in range(12) for edit in EDITS]
    for name, delta in plain.items():
        assert (far[name] * 1e10 - delta).norm() <= 1e-6 * delta.norm()
    # More keys than dimensions.
    assert all(delta.any() for delta in written(source, [many], Sum()).values())


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (None, r"Sum adds up steps, and a search finds what a weight must gain"),
        (Windows(), r"Sum adds up steps, and Windows finds what a weight must gain"),
    ],
)
def test_what_means_nothing_to_a_sum_is_refused(source, told):
    with pytest.raises(EditError, match=told):
        edit(make_gpt2(), make_tokenizer(), EDITS, Sum(), [1], source=source, progress=False)


def test_training_learns_and_is_the_same_each_time(tmp_path):
    found = []
    for name in ("first", "second"):
        pupil, settings = pupil_of()
        settings = replace(settings, steps=12, lr=1e-2, batch=2)
        lessons = lessons_of(EDITS, pupil.tokenizer, 64, locality=True)
        before = {key: value.clone() for key, value in pupil.decoder.model.state_dict().items()}
        losses = []

        def report(stage, done, total, losses=losses, **figures):
            losses.append(figures["loss"])

        train(pupil, lessons, settings, tmp_path / name, "gpt2", report=report)
        assert sum(losses[-4:]) < sum(losses[:4]) - 0.1
        assert all(torch.equal(value, before[key]) for key, value in pupil.decoder.model.state_dict().items())
        found.append(load_net(tmp_path / name))
    assert found[0][1] == found[1][1]
    assert all(seen.tokens > 0 for seen in found[0][0].statistics.values())


def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    def trained(folder, steps, **changes):
        pupil, settings = pupil_of("rledit")
        lessons = lessons_of(EDITS, pupil.tokenizer, 64, locality=True)
        train(pupil, lessons, replace(settings, steps=steps, lr=1e-2, **changes), tmp_path / folder, "gpt2", 2)
        return load_net(tmp_path / folder)[1]

    whole = trained("whole", 6)
    assert trained("parts", 3) != whole
    assert trained("parts", 6) == whole
    assert trained("parts", 6) == whole
    with pytest.raises(EditError, match=r"holds a net of 6 steps, more than 5"):
        trained("parts", 5)
    with pytest.raises(EditError, match=r"holds the training of another net.*penalty: 0.1 there, 0.2 here"):
        trained("parts", 6, penalty=0.2)
    (tmp_path / "parts" / "training.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(EditError, match=r"training.ckpt cannot be read"):
        trained("parts", 6)


@pytest.fixture
def kept(tmp_path):
    """A net for GPT-2 in a folder, and the source that reads it."""
    pupil, settings = pupil_of()
    save_net(net_of(pupil, settings), tmp_path / "net")
    return replace(pupil.source, net=str(tmp_path / "net"))


def test_a_net_of_another_model_or_other_settings_is_refused_before_the_pass(kept):
    told = r"trained on gpt2 for transformer.h.1.mlp.c_proj \(.* edits model.layers.1.mlp.gate_proj \(.* of Llama"
    how = {"layers": [1], "progress": False}
    with pytest.raises(EditError, match=told):
        edit(make_llama(), make_tokenizer(), EDITS, source=replace(kept, maps=["mlp.gate_proj"]), **how)
    with pytest.raises(EditError, match=r"this run edits transformer.h.0.mlp.c_proj"):
        edit(make_gpt2(), make_tokenizer(), EDITS, source=kept, layers=[0], progress=False)
    told = r"with other settings of `source` \(eta: 0.01 there, 0.5 here; scale: 'key_product' there, 'alone' here\)"
    with pytest.raises(EditError, match=told):
        edit(make_gpt2(), make_tokenizer(), EDITS, source=replace(kept, eta=0.5, scale="alone"), **how)
    with pytest.raises(EditError, match=r"\(normalize: 'standard' there, 'none' here\)"):
        edit(make_gpt2(), make_tokenizer(), EDITS, source=replace(kept, normalize="none"), **how)
    edit(make_gpt2(), make_tokenizer(), EDITS, MEMIT(1.0, 1.0), source=kept, **how)


def test_a_damaged_net_is_refused(kept, tmp_path):
    folder = tmp_path / "net"
    words, numbers = (folder / "net.json").read_text(), (folder / "net.safetensors").read_bytes()

    def refused(told):
        with pytest.raises(EditError, match=told):
            load_net(folder)

    (folder / "net.safetensors").write_bytes(numbers[:-8] + b"\0\0\0\1\0\0\0\1")
    refused(r"is damaged: it holds other numbers")
    (folder / "net.safetensors").write_bytes(numbers[:100])
    refused(r"is not a safetensors file or is cut short")
    (folder / "net.safetensors").write_bytes(numbers)
    for name, value, told in (
        *(("rank", 6, r"net.safetensors.nets.\S+: expected the numbers of the net"), ("rank", "a", r"net.json.rank")),
        *(("places", {"x": [1]}, r"places.x: expected a shape"), ("format", "net 9", r"net.json.format: expected")),
    ):
        (folder / "net.json").write_text(json.dumps({**json.loads(words), name: value}))
        refused(told)
    (folder / "net.json").write_text("{")
    refused("not JSON")
    (folder / "net.json").unlink()
    refused(r"holds no net: expected net.json and net.safetensors")


def test_facts_that_cannot_be_trained_with_are_refused():
    pupil, settings = pupil_of()
    with pytest.raises(EditError, match=r"None of the facts has unrelated prompts"):
        lessons_of([replace(EDITS[1])], pupil.tokenizer, 64, locality=True)
    lessons = lessons_of(EDITS, pupil.tokenizer, 64, locality=False)
    assert not any(lesson.unrelated for lesson in lessons)
    with pytest.raises(EditError, match=r"A step takes 1 x 8 = 8 facts .* there are 4"):
        check_pupil(pupil, lessons, replace(settings, batch=8))
    with pytest.raises(EditError, match=r"tokens"):
        lessons_of([replace(EDITS[0], paraphrase_prompts=("Anna " * 80,))], pupil.tokenizer, 64, locality=False)


@pytest.mark.parametrize(
    "how", [{"normalize": "whitened"}, {"normalize": "none", "mini_batch": 2}], ids=["white", "raw"]
)
def test_a_net_is_trained_and_used_with_other_scales(how, tmp_path):
    pupil, settings = pupil_of()
    pupil = replace(pupil, source=replace(pupil.source, **how))
    lessons = lessons_of(EDITS, pupil.tokenizer, 64, locality=True)
    train(pupil, lessons, replace(settings, steps=2, lr=1e-2), tmp_path, "gpt2")
    net = load_net(tmp_path)[0]
    assert bool(net.statistics) == (how["normalize"] == "whitened")
    source = replace(pupil.source, net=str(tmp_path))
    without, found = (written(one, [EDITS], Ridge()) for one in (pupil.source, source))
    assert not any(torch.equal(found[name], without[name]) for name in without)
    other = {"floor": 1e-3} if how["normalize"] == "whitened" else {"mini_batch": 3}
    with pytest.raises(EditError, match=rf"other settings of `source` \({next(iter(other))}: "):
        written(replace(source, **other), [EDITS], Ridge())
