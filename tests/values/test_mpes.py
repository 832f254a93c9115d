"""Most-probable early stopping against a plain loop, one edit after the other, in float64 on small models."""

import itertools
from dataclasses import dataclass, fields, replace
from functools import cache

import pytest
import torch

from lightning_edit import ContextTemplates, EditError, EditRequest, ValueSettings
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import World
from lightning_edit.values.optimize import optimize_values
from tests.plain import hooked, plain_texts, right_padded
from tests.small_models import make_llama, make_request, make_tokenizer

# The embedded model, whose answers have one or two tokens, and a random one, asked at the subject itself so that any
# answer can be reached.
MODELS = ("gpt2", "llama")
PREFIXES = ("The pet of the friend is old. {}", "Because it rained, the woman was angry. {}")
TEMPLATES = ContextTemplates(("{}", *PREFIXES))
BARE = ContextTemplates()
SETTINGS = {
    "gpt2": ValueSettings(lr=0.2, steps=14, early_stop_loss=0.01),
    "llama": ValueSettings(lr=0.5, steps=25, early_stop_loss=0.01, clamp_norm_factor=20.0, weight_decay=0.01),
}
# Steps so long that answers are found, lost and found again.
LOSING = replace(SETTINGS["llama"], lr=10.0, kl_factor=2.0)


@dataclass(frozen=True)
class Plain:
    """What one edit ends with, and in which of its passes each text, the bare one first, had the whole answer."""

    z: torch.Tensor
    hits: list[list[bool]]
    loss: float

    @property
    def steps(self):
        return len(self.hits)


@cache
def setup(name):
    """A model, its tokenizer, edits, and the layer to edit."""
    if name == "gpt2":
        records = World.generate().records(7, seed=0)
        requests = [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in records]
        return load_model("tiny").double().eval().requires_grad_(False), load_tokenizer("tiny"), requests, 0
    subjects = ("Anna", "the old musician", "Toyota Motor Corporation", "Danielle Darrieux", "I", "Berlin")
    answers = ("Rome", "French", "Berlin", "violin", "London", "school")
    prompts = ("The city of {}", "You know {}", "{}")
    requests = [
        make_request(subject=subject, prompt=prompts[i % 3], target_new=answer)
        for i, (subject, answer) in enumerate(zip(subjects, answers, strict=True))
    ]
    return make_llama(hidden_size=32).requires_grad_(False), make_tokenizer(), requests, 1


def place(name, site):
    model, _, _, layer = setup(name)
    block = find_decoder(model).blocks[layer]
    if site == "block":
        return block
    return block.mlp.c_proj if name == "gpt2" else block.mlp.down_proj


def ended(hits, loss, settings):
    """The rule: so many passes with all prefixed texts right; a lone bare text stands for them."""
    right = [all(texts[1:] or texts) for texts in hits]
    return right.count(True) == settings.mpes or loss < settings.early_stop_loss or len(hits) == settings.steps


def plain(name, request, settings, templates=TEMPLATES):
    model, tokenizer, _, _ = setup(name)
    texts = plain_texts(tokenizer, request, templates, settings.kl_prompt)
    targets = [list(text.ids[text.target_start :]) for text in texts[:-1]]
    inputs = right_padded([text.ids[:-1] for text in texts[:-1]] + [texts[-1].ids])
    at = torch.arange(len(texts)), torch.tensor([text.subject_last for text in texts])
    delta = torch.zeros(model.config.hidden_size, dtype=torch.float64, requires_grad=True)
    adam, seen, hits, before = torch.optim.Adam([delta], lr=settings.lr), [], [], None

    def push(_, __, output):
        seen.append(output.detach().clone())
        return output.index_put(at, output[at] + delta)

    with hooked(place(name, settings.site).register_forward_hook(push)):
        while True:
            log_probs = model(**inputs).logits.log_softmax(-1)
            z0 = seen[0][0, at[1][0]]
            pairs = list(zip(texts, targets, log_probs, strict=False))
            answers = [(rows[text.target_start - 1 :][: len(o)], o) for text, o, rows in pairs]
            nll = sum(-a[range(len(o)), o].mean() for a, o in answers) / len(targets)
            now = log_probs[-1, at[1][-1]]
            before = now.detach() if before is None else before
            loss = nll + settings.kl_factor * (now.exp() * (now - before)).sum()
            loss = loss + settings.weight_decay * delta.norm() / z0.norm() ** 2
            hits.append([a.argmax(-1).tolist() == o for a, o in answers])
            if ended(hits, loss.item(), settings):
                return Plain((z0 + delta).detach(), hits, loss.item())
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                delta *= (settings.clamp_norm_factor * z0.norm() / delta.norm()).clamp(max=1)


def library(name, settings, requests=None, templates=TEMPLATES):
    model, tokenizer, own, layer = setup(name)
    return optimize_values(find_decoder(model), tokenizer, requests or own, templates, layer, settings)


def assert_equal(found, expected):
    assert found.steps.tolist() == [one.steps for one in expected]
    for z, z0, one in zip(found.z, found.z0, expected, strict=True):
        assert (z - one.z).norm() <= 1e-10 * (one.z - z0).norm() + 1e-13 * z0.norm()


@pytest.mark.parametrize(("site", "mpes"), [("block", 1), ("mlp", 2), pytest.param("block", 3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MODELS)
def test_edits_end_where_the_plain_loop_ends_them(name, site, mpes):
    settings = replace(SETTINGS[name], site=site, mpes=mpes)
    expected = [plain(name, request, settings) for request in setup(name)[2]]
    assert_equal(library(name, settings), expected)
    assert len({one.steps for one in expected}) > 3, "the edits were to leave the batch one after the other"
    assert sum(one.steps < settings.steps for one in expected) > 4
    bare_first = any(texts[0] and not all(texts) for one in expected for texts in one.hits)
    assert bare_first, "a bare prompt was to have its answer before the others"


def test_without_prefixed_templates_the_bare_prompt_decides():
    settings = replace(SETTINGS["gpt2"], mpes=2)
    expected = [plain("gpt2", request, settings, BARE) for request in setup("gpt2")[2]]
    assert_equal(library("gpt2", settings, templates=BARE), expected)
    assert min(one.steps for one in expected) < settings.steps


def test_passes_are_counted_in_all_and_not_in_a_row():
    settings = replace(LOSING, mpes=5)
    expected = [plain("llama", request, settings) for request in setup("llama")[2]]
    right = ["".join("X" if all(texts[1:]) else "." for texts in one.hits) for one in expected]
    assert any("X." in one and one.count("X") == 5 for one in right), "an answer was to be lost and found again"
    assert_equal(library("llama", settings), expected)


@pytest.mark.slow
def test_either_stop_ends_an_edit():
    settings = replace(SETTINGS["gpt2"], mpes=2, early_stop_loss=0.1)
    expected = [plain("gpt2", request, settings) for request in setup("gpt2")[2]]
    by_count = {one.hits.count([True] * 3) == 2 and one.loss >= 0.1 for one in expected}
    assert by_count == {True, False}, "both stops were to be met"
    assert_equal(library("gpt2", settings), expected)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_a_count_that_is_not_reached_changes_nothing(name):
    without = library(name, SETTINGS[name])
    never = library(name, replace(SETTINGS[name], mpes=SETTINGS[name].steps + 1))
    assert all(torch.equal(getattr(without, field.name), getattr(never, field.name)) for field in fields(without))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_a_higher_count_never_takes_fewer_passes(name):
    steps = [library(name, replace(SETTINGS[name], mpes=mpes)).steps for mpes in (1, 2, 3)]
    steps.append(library(name, SETTINGS[name]).steps)
    assert all((earlier <= later).all() for earlier, later in itertools.pairwise(steps))
    assert all((earlier < later).any() for earlier, later in itertools.pairwise(steps))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_an_edit_ends_in_any_company_as_it_does_alone(name):
    settings, requests = replace(SETTINGS[name], mpes=2), setup(name)[2]
    long = replace(requests[0], subject="the old man who knows you", prompt="Because it was cold and it rained, {}")
    alone = [library(name, settings, [request]) for request in requests]
    crowd = library(name, settings, [long, *reversed(requests)])
    assert crowd.steps[1:].tolist() == [int(one.steps) for one in reversed(alone)]
    for z, one in zip(crowd.z[1:], reversed(alone), strict=True):
        assert (z - one.z[0]).norm() <= 1e-10 * (one.z - one.z0).norm()


def test_what_the_model_says_already_is_left_as_it_is():
    record = World.generate().records(1, seed=0)[0]
    known = EditRequest(record["subject"], record["prompt"], record["target_true"])
    found = library("gpt2", replace(SETTINGS["gpt2"], mpes=1, early_stop_loss=0.0), [known])
    assert found.steps.tolist() == [1]
    assert torch.equal(found.z, found.z0)


def test_a_negative_count_is_refused_and_none_at_all_is_null():
    with pytest.raises(EditError, match=r"`values\.mpes` must be a whole number of 0 or more"):
        ValueSettings(mpes=-2)
    assert ValueSettings(mpes=0) == ValueSettings()
