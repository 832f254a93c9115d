"""Second moments against a direct computation, without text, and the refusal of too little text."""

import pytest
import torch

from lightning_edit import EMMET, MEMIT, SecondMomentSettings
from lightning_edit.api import edit
from lightning_edit.errors import EditError
from lightning_edit.keys import moment_pass
from lightning_edit.keys.layer_stats import prepare_second_moments, second_moments, tokens_wanted
from lightning_edit.keys.moment_pass import compute_second_moments
from lightning_edit.keys.second_moment import SecondMoment
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.hooks import capture_input, run_until
from lightning_edit.solvers.checks import check_second_moments
from tests.small_models import SENTENCES, make_gpt2, make_llama, make_request, make_tokenizer

MODELS = pytest.mark.parametrize("make_model", [make_gpt2, make_llama])


def token_rows():
    return [make_tokenizer()(text)["input_ids"] for text in SENTENCES]


def reference(model, rows, layer):
    """Direct: every text alone, no padding, the model's own forward to its end."""
    decoder, keys = find_decoder(model), []
    for row in rows:
        with capture_input(decoder.down_projection(layer)) as seen, torch.no_grad():
            model(input_ids=torch.tensor([row]))
        keys.append(seen.value[0].double())
    keys = torch.cat(keys)
    return sum(torch.outer(key, key) for key in keys) / len(keys)


class Forwards:
    """Counts the forward passes of a module."""

    def __init__(self, module):
        self.count = 0
        module.register_forward_pre_hook(self)

    def __call__(self, *_):
        self.count += 1


HALF = (torch.bfloat16, torch.float16)
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))


# One block, two of different widths, and the greatest number of them.
@pytest.mark.parametrize("d_in", [6, 200, 1100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_the_metric_is_the_mean_of_outer_products(dtype, d_in, device):
    keys = torch.randn(50, d_in, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    metric = SecondMoment(d_in).to(device)
    for part in keys.split(13):
        metric.update(part)
    expected = torch.einsum("ni,nj->ij", keys.double(), keys.double()) / 50
    found = metric.compute()
    assert found.dtype == torch.float64
    assert torch.equal(found, found.T)
    assert (found - expected).norm() / expected.norm() < (1e-14 if dtype == torch.float64 else 1e-7)


def test_a_metric_that_is_reset_begins_again():
    metric, keys = SecondMoment(3), torch.eye(3)
    for _ in range(2):
        metric.update(keys)
        metric.update(keys[:1])
        assert torch.equal(metric.compute(), torch.tensor([2.0, 1.0, 1.0]).double().diag() / 4)
        metric.reset()
        assert metric.total.count_nonzero() == metric.tokens == 0


def test_rounding_does_not_grow_with_the_number_of_tokens():
    keys = 1 + torch.rand(64, 8, generator=torch.Generator().manual_seed(0))
    metric, plain = SecondMoment(8), torch.zeros(8, 8)
    metric.update(keys)
    once = metric.compute()
    for _ in range(2000):
        metric.update(keys)
        plain += keys.T @ keys
    assert torch.allclose(metric.compute(), once, rtol=1e-12)
    assert not torch.allclose(plain.double() / 128_000, once, rtol=1e-6)


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_products_that_the_model_may_round_to_fewer_digits_are_not_rounded_here(precision, device):
    keys = torch.randn(500, 300, generator=torch.Generator().manual_seed(0)).to(device)
    moments = []
    for allowed in ("highest", precision):
        metric, known = SecondMoment(300).to(device), torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(allowed)
        try:
            metric.update(keys)
            assert torch.get_float32_matmul_precision() == allowed
        finally:
            torch.set_float32_matmul_precision(known)
        moments.append(metric.compute())
    assert torch.equal(*moments)


@MODELS
@pytest.mark.parametrize("max_tokens", [1, 50, 4096])
def test_padding_does_not_count(monkeypatch, make_model, max_tokens):
    monkeypatch.setattr(moment_pass, "MAX_TOKENS_CPU", max_tokens)
    model, rows = make_model(), token_rows()
    assert len({len(row) for row in rows}) > 1
    found = compute_second_moments(find_decoder(model), rows, [1])[1]
    assert torch.allclose(found, reference(model, rows, 1), rtol=1e-10, atol=1e-14)


@MODELS
def test_one_pass_for_several_layers_equals_one_pass_each(make_model):
    model = make_model()
    decoder, rows = find_decoder(model), token_rows()
    forwards = Forwards(model)
    together = compute_second_moments(decoder, rows, [2, 0, 1])
    assert forwards.count == 1
    for layer in range(3):
        assert torch.equal(together[layer], compute_second_moments(decoder, rows, [layer])[layer])
        assert torch.allclose(together[layer], reference(model, rows, layer), rtol=1e-10, atol=1e-14)


@MODELS
def test_the_pass_ends_at_the_highest_layer(make_model):
    decoder = find_decoder(make_model())
    forwards = [Forwards(block) for block in decoder.blocks] + [Forwards(decoder.head)]
    compute_second_moments(decoder, token_rows(), [0, 1])
    assert [counter.count for counter in forwards] == [1, 1, 0, 0]


def test_keys_of_a_half_precision_model_are_summed_in_float64():
    model, rows = make_gpt2(torch.bfloat16), token_rows()
    found = compute_second_moments(find_decoder(model), rows, [0])[0]
    assert found.dtype == torch.float64
    assert torch.equal(found, found.T)
    assert torch.allclose(found, reference(model, rows, 0), rtol=0.05, atol=0.01)


def test_it_runs_in_evaluation_mode_and_leaves_the_model_as_it_was():
    model = make_gpt2(resid_pdrop=0.5, embd_pdrop=0.5)
    expected = compute_second_moments(find_decoder(model), token_rows(), [1])[1]
    found = compute_second_moments(find_decoder(model.train()), token_rows(), [1])[1]
    assert torch.equal(found, expected)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("tokens", "wanted"), [(None, 240), (7, 7)])
def test_ten_times_d_in_tokens_are_wanted_unless_told(tokens, wanted):
    decoder = find_decoder(make_gpt2())
    assert tokens_wanted(decoder, [0, 1], SecondMomentSettings(tokens=tokens)) == wanted


@pytest.mark.parametrize(("tokens", "length"), [(30, 512), (30, 4), (1, 512)])
def test_only_so_many_tokens_of_so_long_texts_are_used(tokens, length):
    model, read = make_gpt2(), []

    def texts():
        for text in SENTENCES * 200:
            read.append(text)
            yield text

    settings = SecondMomentSettings(tokens=tokens, length=length)
    found = second_moments(find_decoder(model), make_tokenizer(), texts(), [0], settings)[0]
    rows, left = [], tokens
    for row in token_rows() * 2:
        rows.append(row[: min(length, left)])
        left -= len(rows[-1])
        if left == 0:
            break
    assert torch.allclose(found, reference(model, rows, 0), rtol=1e-10, atol=1e-14)
    assert len(read) < len(SENTENCES) * 200


def test_a_text_longer_than_the_context_is_cut():
    model, text = make_gpt2(), " ".join(SENTENCES * 2)
    row = make_tokenizer()(text)["input_ids"]
    assert len(row) > 64
    settings = SecondMomentSettings(tokens=len(row))
    found = second_moments(find_decoder(model), make_tokenizer(), [text], [0], settings)[0]
    assert torch.allclose(found, reference(model, [row[:64]], 0), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_is_refused(texts):
    with pytest.raises(EditError, match=r"no ordinary text for the second moments; give some as `data\.preservation`"):
        second_moments(find_decoder(make_gpt2()), make_tokenizer(), texts, [0], SecondMomentSettings())


@pytest.mark.parametrize("settings", [{"tokens": 0}, {"tokens": -1}, {"length": 0}], ids=str)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(EditError, match=r"`second_moment\.\w+` must be a whole number of 1 or more"):
        SecondMomentSettings(**settings)


@pytest.mark.parametrize(("source", "diagonal"), [("identity", 1.0), ("none", 0.0)])
def test_without_text_there_is_the_identity_or_nothing(tmp_path, source, diagonal):
    def texts():
        raise AssertionError("text was read")
        yield

    model = make_gpt2()
    forwards = Forwards(model)
    settings = SecondMomentSettings(cache_dir=str(tmp_path / "cache"), source=source)
    for given in (texts(), None):
        found = prepare_second_moments(
            find_decoder(model), make_tokenizer(), given, [0, 2], settings, EMMET(ridge=1.0), seed=0
        )
        assert found.keys() == {0, 2}
        assert all(torch.equal(moment, diagonal * torch.eye(24).double()) for moment in found.values())
    assert forwards.count == 0
    assert not (tmp_path / "cache").exists()


def test_the_identity_suffices_without_a_ridge_and_nothing_does_not():
    decoder = find_decoder(make_gpt2())

    def prepare(source):
        settings = SecondMomentSettings(source=source)
        return prepare_second_moments(decoder, make_tokenizer(), None, [0], settings, EMMET(ridge=0.0), seed=0)

    prepare("identity")
    with pytest.raises(EditError, match=r"`second_moment\.source: none` takes C = 0 and the solver's `ridge` is 0"):
        prepare("none")


def test_another_source_is_refused():
    with pytest.raises(EditError, match=r"`second_moment\.source` must be one of text, identity or none, got 'wiki'"):
        SecondMomentSettings(source="wiki")


@pytest.mark.parametrize("solver", [EMMET(), MEMIT()], ids=repr)
def test_too_little_text_is_refused_by_layer_with_rank_and_remedy(solver):
    moments = compute_second_moments(find_decoder(make_gpt2()), [token_rows()[0][:5]], [0, 1])
    moments[0] += torch.eye(24, dtype=torch.float64)
    with pytest.raises(EditError) as error:
        check_second_moments(moments, solver)
    assert str(error.value).startswith("The second moment of layer 1 has rank 5 of 24 and cannot be inverted")
    assert "Raise `second_moment.tokens` (10 x d_in = 240" in str(error.value)
    assert "the solver's `ridge`" in str(error.value)


def test_a_ridge_or_enough_text_is_accepted():
    decoder, rows = find_decoder(make_gpt2()), token_rows()
    check_second_moments(compute_second_moments(decoder, rows, [0, 1, 2]), EMMET())
    check_second_moments(compute_second_moments(decoder, rows[:1], [0]), EMMET(ridge=0.1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_moment_that_is_no_number_is_refused_as_well(value):
    moment = torch.eye(4, dtype=torch.float64)
    moment[1, 1] = value
    with pytest.raises(EditError, match="layer 3"):
        check_second_moments({3: moment}, EMMET())


def test_editing_with_too_little_text_is_refused_before_anything_is_changed():
    model = make_gpt2()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(EditError, match="layer 1 has rank"):
        edit(model, make_tokenizer(), [make_request()], layers=[1], texts=["Paris is"], progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_hooks_are_gone_afterwards():
    decoder = find_decoder(make_gpt2())
    compute_second_moments(decoder, token_rows(), [0, 1])
    (logits,) = run_until(decoder.model, {"input_ids": torch.tensor([[3, 4]])}, capture_input(decoder.head))
    assert logits.value.shape == (1, 2, 16)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in decoder.model.modules())
