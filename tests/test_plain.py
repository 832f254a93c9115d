"""The library equals the plain procedures, in float64 on small random models of two families."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lightning_edit import EMMET, MEMIT, ContextTemplates, EditError, EditRequest, ValueSettings
from lightning_edit.asking.tokenization import encode_subject
from lightning_edit.keys.moment_pass import compute_second_moments
from lightning_edit.models.decoder import find_decoder
from lightning_edit.solvers import EditProblem
from lightning_edit.tiny import MODEL_PATH, World
from lightning_edit.values.optimize import optimize_values
from tests.benchmarks.material import build_tokenizer
from tests.plain import explicit_emmet, explicit_memit, plain_second_moment, plain_value

REQUESTS = [
    EditRequest("Anna Lugones", "{} was born in the city of", "Rome"),
    EditRequest("a", "{} is known for", "work"),
    EditRequest(
        "Edward Montdy", "In the city it is known that the language spoken by {} is", "Greek and Dutch, of the people"
    ),
    EditRequest("Quebec", "Quebec, the twin city of {}, is located in", "Kenya"),
    EditRequest("Kyoto", "The twin city of Kyoto is {}", "Kyoto"),
    EditRequest("Sofia Hoffsky", "What is the headquarters of the people of the city? It is {}", "for law"),
]
TEMPLATES = ContextTemplates(("{}", "The city is known. {}", "Because of the language spoken in the city, it is. {}"))
BARE = ContextTemplates()
STOPPING = ValueSettings(lr=2.0, steps=8, clamp_norm_factor=6.0, early_stop_loss=6.0, weight_decay=0.02)
CLAMPED = ValueSettings(lr=0.5, steps=5, clamp_norm_factor=0.05, early_stop_loss=0.0)


@cache
def setup(family):
    """A random model whose weights are large enough for opinions, its tokenizer, and its MLP's down-projections."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    sizes = {"vocab_size": len(tokenizer), "initializer_range": 0.3, "max_position_embeddings": 128}
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=4, n_head=4, **sizes))
        blocks, name = model.transformer.h, "c_proj"
    else:
        config = LlamaConfig(
            hidden_size=32,
            intermediate_size=72,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            **sizes,
        )
        model = LlamaForCausalLM(config)
        blocks, name = model.model.layers, "down_proj"
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="! $A", special_tokens=[("!", 0)])
    return model.double().eval().requires_grad_(False), tokenizer, blocks, name


def place(family, layer, site):
    """The module whose output the plain loop changes."""
    _, _, blocks, name = setup(family)
    return blocks[layer] if site == "block" else getattr(blocks[layer].mlp, name)


def both(family, layer, settings, requests=REQUESTS, templates=TEMPLATES):
    """Values of the library, all edits at once, and of the plain loop, one after the other."""
    model, tokenizer, _, _ = setup(family)
    found = optimize_values(find_decoder(model), tokenizer, requests, templates, layer, settings)
    module = place(family, layer, settings.site)
    plain = [plain_value(model, module, tokenizer, request, templates, settings) for request in requests]
    return found, plain


def assert_equal(found, plain):
    assert found.steps.tolist() == [one.steps for one in plain]
    for edit, one in enumerate(plain):
        assert (found.z0[edit] - one.z0).norm() <= 1e-13 * one.z0.norm()
        assert (found.z[edit] - one.z).norm() <= 1e-10 * (one.z - one.z0).norm() + 1e-13 * one.z0.norm()
        parts = torch.stack([found.nll[edit], found.kl[edit], found.decay[edit]])
        expected = torch.tensor([one.nll, one.kl, one.decay], dtype=torch.float64)
        torch.testing.assert_close(parts, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("site", "layer"), [("block", 0), ("block", 1), ("mlp", 0), ("mlp", 1)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_values_equal_the_plain_loop(family, site, layer):
    found, plain = both(family, layer, replace(STOPPING, site=site))
    assert_equal(found, plain)
    assert len({one.steps for one in plain}) > 2, "the edits were to leave the batch one after the other"


@pytest.mark.parametrize("site", ["block", "mlp"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_clamped_values_equal_the_plain_loop(family, site):
    found, plain = both(family, 1, replace(CLAMPED, site=site))
    assert_equal(found, plain)
    assert all(abs((one.z - one.z0).norm() / one.z0.norm() - 0.05) < 1e-12 for one in plain)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_values_of_the_top_block_equal_the_plain_loop(family):
    """Above it nothing carries delta to later tokens, so only edits whose prompt ends with the subject have a value."""
    at_end = [request for request in REQUESTS if request.prompt.endswith("{}")]
    assert_equal(*both(family, 3, STOPPING, at_end))


def test_values_of_the_trained_model_equal_the_plain_loop():
    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH, dtype=torch.float64).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    records = World.generate().records(3, seed=0)
    requests = [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in records]
    settings = ValueSettings(clamp_norm_factor=4.0)
    found = optimize_values(find_decoder(model), tokenizer, requests, BARE, 1, settings)
    block = model.transformer.h[1]
    assert_equal(found, [plain_value(model, block, tokenizer, request, BARE, settings) for request in requests])


def test_the_texts_are_as_different_as_they_are_meant_to_be():
    _, tokenizer, _, _ = setup("gpt2")
    texts = [encode_subject(tokenizer, r.prompt, r.subject, r.target_new) for r in REQUESTS]
    assert len({len(text.ids) for text in texts}) > 3
    assert {len(text.ids) - text.target_start > 1 for text in texts} == {True, False}
    assert min(text.subject_last for text in texts) == 0
    assert any(text.subject_last == text.target_start - 1 for text in texts)
    assert any(r.rewrite_prompt.count(r.subject) == 2 for r in REQUESTS)


@pytest.mark.parametrize("site", ["block", "mlp"])
def test_values_without_any_prefix_equal_the_plain_loop(site):
    """A subject of one token at the start of its only text leaves nothing to cache."""
    settings = ValueSettings(steps=5, early_stop_loss=0.0, site=site)
    found, plain = both("gpt2", 1, settings, [REQUESTS[1]], BARE)
    assert_equal(found, plain)


def test_last_pass_makes_no_step():
    with pytest.raises(EditError, match=r"`values\.steps`.* 2 or more"):
        ValueSettings(steps=1)
    found, plain = both("gpt2", 1, ValueSettings(steps=2, lr=0.25, clamp_norm_factor=100.0))
    assert_equal(found, plain)
    # The first step of Adam changes each entry by the learning rate.
    assert (found.z - found.z0).abs().max() <= 0.2501


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)

    def make(n, d_in=24, d_out=10):
        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        text = draw(d_in, 5 * d_in)
        previous = draw(d_in, 3)
        return EditProblem(draw(d_in, n), draw(d_out, n), text @ text.T / (5 * d_in), previous @ previous.T)

    return make


@pytest.mark.parametrize("n", [1, 7, 24, 60])
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_solvers_equal_the_explicit_inverses(problem, n, ridge):
    case = problem(n)
    preservation = 3.0 * case.second_moment + ridge * torch.eye(24, dtype=torch.float64) + case.previous_keys_moment
    emmet = EMMET(second_moment_weight=3.0, ridge=ridge, emmet_lambda=0.1)(case).dense()
    memit = MEMIT(second_moment_weight=3.0, ridge=ridge)(case).dense()
    expected = explicit_emmet(case.keys, case.residual, preservation, 0.1 if n > 1 else 0.0)
    torch.testing.assert_close(emmet, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(memit, explicit_memit(case.keys, case.residual, preservation), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_second_moments_equal_one_pass_for_each_layer(family, stop):
    model, tokenizer, _, _ = setup(family)
    texts = ["The town is old.", "", "It is", "Hulbin Larrem went home because it was late, and no one was there."]
    rows = [ids for ids in tokenizer(texts)["input_ids"] if ids]
    moments = compute_second_moments(find_decoder(model), rows, [2, 0])
    assert sorted(moments) == [0, 2]
    for layer, moment in moments.items():
        expected = plain_second_moment(model, place(family, layer, "mlp"), [rows[:1], rows[1:]], stop=stop)
        torch.testing.assert_close(moment, expected, rtol=1e-12, atol=1e-13)
