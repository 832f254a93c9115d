"""The second moment of output gradients against autograd, text by text; its cache, and runs that use it."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_edit import AlphaEdit, EditError, Gradient, OutputMEMIT, SecondMomentSettings
from lightning_edit.api import edit
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys import moment_pass
from lightning_edit.keys.layer_stats import prepare_second_moments
from lightning_edit.keys.moment_pass import compute_second_moments
from lightning_edit.keys.output_moment import compute_both_moments
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.hooks import hidden_of, with_hidden
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from tests.moment_passes import Watched, kinds, texts
from tests.small_models import SENTENCES, make_gpt2, make_llama, make_request, make_tokenizer
from tests.small_runs import Refuse, Requests, fit, module

LAYERS = [0, 2]


def plain(model, decoder, rows, layer):
    """B from the gradient at every output of each text alone; the last token's is zero and does not count."""
    total, tokens, seen = 0.0, 0, {}

    def keep(_, __, output):
        seen["output"] = hidden_of(output)

    with decoder.down_projection(layer).register_forward_hook(keep):
        for row in rows:
            logits = model(input_ids=torch.tensor([row])).logits[0]
            if len(row) > 1:
                loss = cross_entropy(logits[:-1].double(), torch.tensor(row[1:]), reduction="sum")
                (gradient,) = torch.autograd.grad(loss, seen["output"])
                gradient = gradient.reshape(len(row), -1).double()
                assert not gradient[-1].any()
                total, tokens = total + gradient.T @ gradient, tokens + len(row) - 1
    return total / tokens


def rows_of(tokenizer):
    return [tokenizer(text)["input_ids"] for text in SENTENCES] + [[5]]


def close(found, expected):
    return float((found - expected).norm()) <= 1e-9 * float(expected.norm())


@pytest.mark.parametrize("make_model", [make_gpt2, make_llama])
@pytest.mark.parametrize("max_tokens", [1, 4096])
def test_one_pass_counts_keys_and_output_gradients(make_model, max_tokens, monkeypatch):
    monkeypatch.setattr(moment_pass, "MAX_TOKENS_CPU", max_tokens)
    model, rows = make_model(), rows_of(make_tokenizer())
    decoder, passes = find_decoder(model), []
    expected = compute_second_moments(decoder, rows, LAYERS)
    with model.register_forward_pre_hook(lambda *_: passes.append(1)):
        both = compute_both_moments(decoder, rows, LAYERS)
    assert len(passes) == (1 if max_tokens > 1 else len(rows))
    for layer, (keys, gradients) in both.items():
        assert close(keys, expected[layer])
        assert close(gradients, plain(model, decoder, rows, layer))
        assert torch.equal(gradients, gradients.T)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_experts_have_the_gradient_of_what_they_give_together():
    model, tokenizer = load_model("tiny-moe", "float64"), load_tokenizer("tiny-moe")
    decoder, rows = find_decoder(model), [tokenizer(text)["input_ids"] for text in texts(3)]
    keys, gradients = compute_both_moments(decoder, rows, [1])[1]
    assert keys.dim() == 3
    assert close(gradients, plain(model.requires_grad_(True), decoder, rows, 1))


def prepared(watched, folder, solver=OutputMEMIT(ridge=0.1), **changes):  # noqa: B008
    settings = SecondMomentSettings(**{"tokens": 10_000, "cache_dir": str(folder), **changes})
    return prepare_second_moments(watched.decoder, make_tokenizer(), texts(), LAYERS, settings, solver, 0)


def test_both_are_kept_together_and_beside_those_of_keys_alone(tmp_path):
    watched = Watched()
    first = prepared(watched, tmp_path)
    passes = len(watched.batches)
    again = prepared(watched, tmp_path)
    assert len(watched.batches) == passes
    for layer in LAYERS:
        assert torch.equal(first[layer], again[layer])
        assert torch.equal(first.outputs[layer], again.outputs[layer])
    alone = prepared(watched, tmp_path, AlphaEdit(threshold=1e9))
    assert len(watched.batches) > passes and not alone.outputs
    assert kinds(tmp_path) == ["second-moment"] * 4


def test_a_pass_that_was_killed_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(moment_pass, "MAX_TOKENS_CPU", 60)
    monkeypatch.setattr(moment_pass, "KEEP_SECONDS", 0.0)

    def killed():
        raise KeyboardInterrupt

    whole = prepared(whole_pass := Watched(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        prepared(Watched(at=4, then=killed), tmp_path / "killed")
    assert kinds(tmp_path / "killed") == ["second-moment-part"]
    rest = prepared(going_on := Watched(), tmp_path / "killed")
    assert len(going_on.batches) == len(whole_pass.batches) - 3
    for layer in LAYERS:
        assert torch.equal(whole[layer], rest[layer]) and torch.equal(whole.outputs[layer], rest.outputs[layer])
    assert kinds(tmp_path / "killed") == ["second-moment"] * 2


def test_little_memory_gives_the_same_numbers(tmp_path):
    watched = Watched(torch.float64)
    usual = prepared(watched, tmp_path)
    object.__setattr__(watched.decoder, "memory", "low")
    low = prepared(watched, tmp_path, cache_dir=None)
    for layer in LAYERS:
        assert close(low[layer], usual[layer]) and close(low.outputs[layer], usual.outputs[layer])


def test_bad_input_is_refused_with_what_would_work():
    model, tokenizer = make_gpt2(), make_tokenizer()
    decoder, rows = find_decoder(model), rows_of(tokenizer)
    with pytest.raises(EditError, match="no text has two tokens"):
        compute_both_moments(decoder, [[3], [4]], [0])
    with pytest.raises(EditError, match=r"`second_moment.source: identity` no text is read. Set it to text"):
        module(solver=OutputMEMIT(), second_moment=SecondMomentSettings(source="identity"))
    moments = compute_second_moments(decoder, rows, [0])
    with pytest.raises(EditError, match="OutputMEMIT needs those of output gradients too: give `texts`"):
        edit(model, tokenizer, [make_request()], OutputMEMIT(ridge=1.0), [0], moments=moments, progress=False)
    cut = lambda _, args, output: with_hidden(output, hidden_of(output).detach())  # noqa: E731
    with model.transformer.h[1].register_forward_hook(cut), pytest.raises(EditError, match="No gradient comes back to"):
        compute_both_moments(decoder, rows, [1])


@pytest.mark.parametrize("source", [None, Gradient(eta=1e-3)], ids=["search", "gradient"])
def test_a_resumed_run_is_the_run_that_was_never_stopped(source, tmp_path):
    settings = {"solver": OutputMEMIT(1.0, ridge=0.01), "previous_keys": True, "source": source}
    data = {"edits": 6}
    whole, again, refused = (module(**settings) for _ in range(3))
    folder = fit(tmp_path, whole, TinyWorld(**data))
    fit(tmp_path, again, TinyWorld(**data), ckpt_path=str(checkpoints(folder)[1]))
    assert again.loop.updates_written == 3
    assert torch.equal(whole.decoder.weight(0), again.decoder.weight(0))
    if source is None:
        return
    with pytest.warns(UserWarning, match="undone"):
        fit(tmp_path, refused, TinyWorld(**data), Refuse(2))
    short = module(**settings)
    fit(tmp_path, short, Requests(TinyWorld(**data).requests[:2]))
    assert torch.equal(short.decoder.weight(0), refused.decoder.weight(0))
