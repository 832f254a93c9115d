"""The weights of variants: merged, fine-tuned and put back bit for bit."""

import pytest
import torch

from lightning_edit import EditError
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.survival.bench import Bench
from lightning_edit.survival.fine_tuning import fine_tuned, trained_maps
from lightning_edit.survival.settings import SurvivalSettings
from lightning_edit.survival.text import OrdinaryText, ordinary_text
from lightning_edit.survival.variants import variants_of
from lightning_edit.tiny import World
from lightning_edit.updates.files.saved import open_saved
from tests.small_models import BOS, make_gpt2, make_llama, make_tokenizer

pytest.importorskip("peft")

MODELS = {"llama": make_llama, "gpt2": make_gpt2, "experts": lambda: load_model("tiny-moe")}
ROWS = [list(range(start, start + 12)) for start in range(3, 43)]
SHORT = SurvivalSettings(steps=3, rank=2, batch_size=2, lr=0.01)


def bits(model):
    return {name: fingerprint(tensor) for name, tensor in model.state_dict().items()}


def structure(model):
    return [(name, type(module)) for name, module in model.named_modules()]


@pytest.fixture(scope="module")
def bench(finished):
    return Bench(lambda: open_saved(finished))


def weights_of(bench):
    model = bench.base.model
    return {one.module: model.get_submodule(one.module).weight.detach().clone() for one in bench.update.layers.values()}


def test_merging_is_between_the_base_and_the_edited_model(bench, finished):
    before = bits(bench.base.model)
    base, found = weights_of(bench), {}
    for weight in (0.0, 0.25, 1.0):
        with bench.edited(weight) as update:
            assert (update is None) == (weight == 0)
            found[weight] = weights_of(bench)
        assert bits(bench.base.model) == before
    edited = load_model(str(finished / "model"))
    for name, lying_under in base.items():
        whole = edited.get_submodule(name).weight
        assert torch.equal(found[0.0][name], lying_under)
        assert torch.equal(found[1.0][name], whole)
        torch.testing.assert_close(found[0.25][name], lying_under + 0.25 * (whole - lying_under))
        assert not torch.equal(found[0.25][name], lying_under)


def test_the_unedited_model_is_there_for_a_while(bench):
    base = weights_of(bench)
    with bench.edited(0.5) as update:
        merged = weights_of(bench)
        with bench.without(update):
            assert all(torch.equal(base[name], weight) for name, weight in weights_of(bench).items())
        assert all(torch.equal(merged[name], weight) for name, weight in weights_of(bench).items())


def test_weights_come_back_when_a_variant_fails(bench):
    before = bits(bench.base.model)
    with (
        pytest.raises(ZeroDivisionError),
        bench.edited(),
        fine_tuned(bench.decoder, ROWS, SHORT),
    ):
        raise ZeroDivisionError
    assert bits(bench.base.model) == before


def test_a_model_that_was_let_go_is_loaded_again(bench):
    before, model = bits(bench.base.model), bench.base.model
    bench.release()
    assert bench.base.model is not model
    assert bits(bench.base.model) == before


@pytest.mark.parametrize("name", MODELS)
def test_a_fine_tuning_changes_every_map_by_its_rank_and_leaves_nothing(name):
    decoder = find_decoder(MODELS[name]())
    model, told = decoder.model, []
    before, modules = bits(model), structure(model)
    maps = trained_maps(decoder)
    weights = {one: model.get_submodule(one).weight.detach().clone() for one in maps}
    with fine_tuned(decoder, ROWS, SHORT, lambda stage, done, total, **figures: told.append((done, total))) as tuned:
        assert structure(model) == modules
        for one, weight in weights.items():
            change = (model.get_submodule(one).weight.detach() - weight).double()
            values = torch.linalg.svdvals(change)
            assert values[0] > 0, one
            assert values[SHORT.rank :].max() < 1e-4 * values[0], one
        learned = bits(model)
        with tuned.undone():
            assert bits(model) == before
        assert bits(model) == learned != before
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert tuned.losses.shape == (3,)
    assert bits(model) == before
    assert structure(model) == modules
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_fine_tuning_learns_its_text_and_is_the_same_again():
    decoder = find_decoder(make_llama(torch.float32))
    how = SurvivalSettings(steps=40, rank=4, batch_size=8, lr=0.01)
    runs = []
    for _ in range(2):
        state = torch.random.get_rng_state()
        with fine_tuned(decoder, ROWS[:4], how) as tuned:
            runs.append((tuned.losses, bits(decoder.model)))
        assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert runs[0][0][-1] < runs[0][0][0] - 0.5


def test_what_diverges_is_refused_and_undone():
    decoder = find_decoder(make_llama(torch.float32))
    before, modules = bits(decoder.model), structure(decoder.model)
    how = SurvivalSettings(steps=20, lr=1e30)
    with pytest.raises(EditError, match="diverged in step"), fine_tuned(decoder, ROWS, how):
        pass
    assert bits(decoder.model) == before
    assert structure(decoder.model) == modules


# -- text --------------------------------------------------------------------------------------------------------------


def test_text_in_two_parts_that_name_no_edited_subject():
    tokenizer, world = make_tokenizer(), World.generate()
    decoder, sentences = find_decoder(make_llama()), list(world.sentences(0))
    subject = world.subjects[0]
    assert any(subject in sentence for sentence in sentences)
    how = SurvivalSettings(text_tokens=10**9, perplexity_tokens=500)
    found = ordinary_text(decoder, tokenizer, sentences, [subject, " "], how)
    assert found.held_out + found.trained == [one for one in sentences if subject not in one]
    assert found.left_out == sum(subject in sentence for sentence in sentences)
    assert 500 <= sum(len(tokenizer(text)["input_ids"]) for text in found.held_out) < 600
    read = ordinary_text(decoder, tokenizer, sentences, [subject], SurvivalSettings(about_edits=True))
    assert read.left_out == 0
    # How much is trained on does not change what is held out.
    more = ordinary_text(decoder, tokenizer, sentences, [subject], SurvivalSettings(text_tokens=30_000))
    less = ordinary_text(decoder, tokenizer, sentences, [subject], SurvivalSettings(text_tokens=300))
    assert more.held_out == less.held_out
    assert more.trained[: len(less.trained)] == less.trained


def test_texts_name_a_subject_in_whole_words_and_any_case():
    texts = ["Arthur slept.", "She sang for the beatles.", "It is art.", "Beatle drivers"]
    how = SurvivalSettings(text_tokens=10**9, perplexity_tokens=10)
    found = ordinary_text(find_decoder(make_llama()), make_tokenizer(), texts, ["Art", "The Beatles"], how)
    assert found.held_out + found.trained == ["Arthur slept.", "Beatle drivers"]
    assert found.left_out == 2


def test_without_any_text_the_model_writes_its_own():
    tokenizer, decoder = make_tokenizer(), find_decoder(make_llama())
    how = SurvivalSettings(text_tokens=300, perplexity_tokens=100)
    one, same = (ordinary_text(decoder, tokenizer, None, [], how) for _ in range(2))
    assert one == same
    assert one.held_out
    assert one.trained
    assert one.held_out[0] != one.trained[0]


def test_rows_are_of_one_length_and_end_texts():
    tokenizer = make_tokenizer()
    rows = OrdinaryText([], ["She plays.", "He sings in Rome."], 0).rows(tokenizer, 4, 64)
    assert {len(row) for row in rows} == {4}
    assert tokenizer.eos_token_id in {token for row in rows for token in row}
    tokenizer.eos_token = BOS
    assert tokenizer.eos_token_id == 0
    (row,) = OrdinaryText([], ["She", "plays"], 0).rows(tokenizer, 64, 64) or [[]]
    assert row.count(0) == 2
    assert {len(row) for row in OrdinaryText([], ["She plays in Rome."], 0).rows(tokenizer, 400, 3)} == {3}
    with pytest.raises(EditError, match="all 7 texts name the subject"):
        OrdinaryText(["kept"], [], 7).rows(tokenizer, 4, 64)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variants": ["edited", "pruned"]}, "There is no variant 'pruned'. There are: edited, base"),
        ({"variants": []}, "names nothing"),
        ({"variants": ["base", "base"]}, "something twice"),
        ({"weights": [0.5, 1.5]}, "from 0 to 1"),
        ({"weights": []}, "needs one"),
        ({"steps": 0}, "steps"),
        ({"lr": -1.0}, "lr"),
        ({"length": 1}, "2 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(EditError, match=message):
        SurvivalSettings(**settings)


def test_variants_are_told_apart_by_what_they_depend_on():
    made = {one.name: one for one in variants_of(SurvivalSettings(weights=[0.5], steps=7))}
    assert list(made) == ["edited", "base", "8-bit", "4-bit", "lora", "merged-0.5"]
    assert made["merged-0.5"].settings == {"weight": 0.5}
    near = SurvivalSettings(variants=["merged"], weights=[0.1234567, 0.1234568, 0, 1.0])
    names = ["merged-0.1234567", "merged-0.1234568", "merged-0", "merged-1"]
    assert [one.name for one in variants_of(near)] == names
    assert made["lora"].settings["steps"] == 7
    assert made["4-bit"].settings == {"quantization": "bnb-4bit"}
    assert variants_of(SurvivalSettings(variants=["torchao-float8"]))[0].settings["quantization"] == "torchao-float8"
