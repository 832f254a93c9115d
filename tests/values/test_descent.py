"""Steepest descent in steps of a length of their own, against a plain loop in float64, one edit after the other."""

from dataclasses import replace

import pytest
import torch

from lightning_edit import EditError, ValueSettings
from lightning_edit.values.cache import _counted
from lightning_edit.values.optimizers import Adam, Descent, optimizer_for
from tests.plain import hooked, plain_texts, right_padded
from tests.values.test_mpes import MODELS, SETTINGS, TEMPLATES, library, place, setup

# The random model's answers are far away.
OWN = {"gpt2": {"radius": 0.3, "growth": 1.1}, "llama": {"radius": 4.0, "growth": 1.2}}
DESCENT = {name: replace(one, optimizer="descent", steps=9, **OWN[name]) for name, one in SETTINGS.items()}


def plain(name, request, settings):
    """The delta and the passes of one edit, its losses, and how often its step was shortened."""
    model, tokenizer, _, _ = setup(name)
    texts = plain_texts(tokenizer, request, TEMPLATES, settings.kl_prompt)
    targets = [list(text.ids[text.target_start :]) for text in texts[:-1]]
    inputs = right_padded([text.ids[:-1] for text in texts[:-1]] + [texts[-1].ids])
    at = torch.arange(len(texts)), torch.tensor([text.subject_last for text in texts])
    delta = torch.zeros(model.config.hidden_size, dtype=torch.float64)
    direction, losses, deltas, hits, shortened, seen = torch.zeros_like(delta), [], [], 0, 0, []
    before = radius = None

    def push(_, __, output):
        seen.append(output.detach().clone())
        return output.index_put(at, output[at] + moved)

    with hooked(place(name, settings.site).register_forward_hook(push)):
        while True:
            moved = delta.clone().requires_grad_()
            log_probs = model(**inputs).logits.log_softmax(-1)
            z0 = seen[0][0, at[1][0]]
            pairs = list(zip(texts, targets, log_probs, strict=False))
            answers = [(rows[text.target_start - 1 :][: len(o)], o) for text, o, rows in pairs]
            now = log_probs[-1, at[1][-1]]
            before = now.detach() if before is None else before
            nll = sum(-a[range(len(o)), o].mean() for a, o in answers) / len(targets)
            loss = nll + settings.kl_factor * (now.exp() * (now - before)).sum()
            loss = loss + settings.weight_decay * moved.norm() / z0.norm() ** 2
            losses.append(loss.item())
            deltas.append(delta)
            hits += all(a.argmax(-1).tolist() == o for a, o in answers[1:])
            if losses[-1] < settings.early_stop_loss or hits == settings.mpes:
                return delta, losses, shortened
            if len(losses) == settings.steps:
                return deltas[losses.index(min(losses))], losses, shortened
            (gradient,) = torch.autograd.grad(loss, moved)
            if len(losses) == 1:
                radius = settings.radius * z0.norm()
            elif losses[-1] < losses[-2]:
                radius = settings.growth * radius
            else:
                radius, direction, shortened = 0.6 * radius, 0 * direction, shortened + 1
            direction = direction / 2 - gradient / gradient.norm()
            direction = direction / direction.norm()
            delta = delta + radius * direction
            delta = delta * (settings.clamp_norm_factor * z0.norm() / delta.norm()).clamp(max=1)


@pytest.mark.parametrize("site", ["block", "mlp"])
@pytest.mark.parametrize("name", MODELS)
def test_deltas_are_those_of_the_plain_loop(name, site):
    settings = replace(DESCENT[name], site=site)
    expected = [plain(name, request, settings) for request in setup(name)[2]]
    found = library(name, settings)
    assert found.steps.tolist() == [len(losses) for _, losses, _ in expected]
    for z, z0, (delta, _, _) in zip(found.z, found.z0, expected, strict=True):
        assert (z - z0 - delta).norm() <= 1e-9 * delta.norm()
    ended = [losses[-1] if len(losses) < settings.steps else min(losses) for _, losses, _ in expected]
    assert torch.allclose(found.nll + found.kl + found.decay, torch.tensor(ended, dtype=torch.float64), rtol=1e-9)
    assert any(shortened for _, _, shortened in expected), "a step was to be too long"


def test_an_edit_that_runs_out_of_passes_ends_with_its_best():
    settings = replace(DESCENT["gpt2"], radius=2.0, clamp_norm_factor=4.0, steps=4, early_stop_loss=0.0)
    expected = [plain("gpt2", request, settings) for request in setup("gpt2")[2]]
    best = [losses.index(min(losses)) for _, losses, _ in expected]
    assert len(set(best)) > 1, f"the best pass was to differ, got {best}"
    found = library("gpt2", settings)
    for z, z0, (delta, _, _) in zip(found.z, found.z0, expected, strict=True):
        assert (z - z0 - delta).norm() <= 1e-9 * z0.norm()


@pytest.mark.parametrize("name", MODELS)
def test_edits_stop_at_the_count_of_answers(name):
    settings = replace(DESCENT[name], mpes=2)
    expected = [plain(name, request, settings) for request in setup(name)[2]]
    found = library(name, settings)
    assert found.steps.tolist() == [len(losses) for _, losses, _ in expected]
    assert min(found.steps) < settings.steps
    for z, z0, (delta, _, _) in zip(found.z, found.z0, expected, strict=True):
        assert (z - z0 - delta).norm() <= 1e-9 * z0.norm()


@pytest.mark.parametrize("name", MODELS)
def test_an_edit_is_found_in_any_company_as_it_is_alone(name):
    settings, requests = DESCENT[name], setup(name)[2]
    long = replace(requests[0], subject="the old man who knows you", prompt="Because it was cold and it rained, {}")
    alone = [library(name, settings, [request]) for request in requests]
    crowd = library(name, settings, [long, *reversed(requests)])
    assert crowd.steps[1:].tolist() == [int(one.steps) for one in reversed(alone)]
    for z, one in zip(crowd.z[1:], reversed(alone), strict=True):
        assert (z - one.z[0]).norm() <= 1e-10 * (one.z - one.z0).norm()


def test_a_third_of_the_passes_finds_values_as_good():
    requests = setup("gpt2")[2]
    adam = library("gpt2", ValueSettings(lr=0.2, steps=20, early_stop_loss=0.0), requests)
    descent = library("gpt2", ValueSettings(optimizer="descent", steps=7, early_stop_loss=0.0), requests)
    few = library("gpt2", ValueSettings(lr=0.2, steps=7, early_stop_loss=0.0), requests)
    losses = [float((found.nll + found.kl + found.decay).mean()) for found in (adam, descent, few)]
    assert losses[1] < 1.1 * losses[0], losses
    assert losses[1] < 0.5 * losses[2], losses


def test_an_edit_without_a_gradient_stays_where_it_is():
    delta = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    descent = Descent(delta, torch.tensor([2.0, 2.0], dtype=torch.float64), 1.1)
    descent.step(torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]], dtype=torch.float64), torch.tensor([1.0, 1.0]))
    assert torch.allclose(delta.detach(), torch.tensor([[0.0, 0.0, 0.0], [0.0, -1.2, -1.6]], dtype=torch.float64))


def test_the_settings_name_the_optimizer():
    z0 = torch.ones(2, 3)
    delta = torch.zeros(2, 3, requires_grad=True)
    assert isinstance(optimizer_for(ValueSettings(), delta, z0), Adam)
    assert isinstance(optimizer_for(ValueSettings(optimizer="descent"), delta, z0), Descent)
    with pytest.raises(EditError, match=r"`values\.optimizer`"):
        ValueSettings(optimizer="sgd")
    with pytest.raises(EditError, match=r"`values\.radius`"):
        ValueSettings(radius=0.0)
    with pytest.raises(EditError, match=r"`values\.growth`"):
        ValueSettings(growth=0.9)


def test_values_found_before_there_were_optimizers_are_found_again():
    assert not {"optimizer", "radius", "growth", "norm_anchor"} & _counted(ValueSettings()).keys()
    assert _counted(ValueSettings(optimizer="descent"))["optimizer"] == "descent"
    assert _counted(ValueSettings(optimizer="descent", radius=0.2))["radius"] == 0.2
