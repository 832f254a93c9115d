"""Windows of long answers: AnyEdit as plain code has it in float64, and what is refused."""

import pytest
import torch

from lightning_edit import MEMIT, ROME, ContextTemplates, EditError, EditRequest, ValueSettings, Windows, edit
from lightning_edit.asking.chat import ChatTokenizer, chat_format
from lightning_edit.asking.questions import as_question
from lightning_edit.editor import Editor
from lightning_edit.models.decoder import find_decoder
from lightning_edit.run.methods.fine_tuning import target_nll
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.values.optimize import search_values
from lightning_edit.windows.search import window_values
from lightning_edit.windows.texts import cut
from tests.small_models import make_gpt2, make_llama, make_request, make_tokenizer
from tests.solvers.cases import moment_of
from tests.windows.plain import PlainWindows

FACTS = (
    ("Danielle Darrieux", "The mother tongue of {} is", "English, and she speaks English at home"),
    ("", "You know where the musician from London", "went to school in the old city of Berlin"),
    ("Anna", "{}'s brother went to", "Rome as well"),
    ("violin", "The {} is played by", "Paris"),
)
EDITS = [EditRequest(*fact) for fact in FACTS]
LAYERS, W = [0, 1], 3.0
VALUES = ValueSettings(lr=0.5, steps=4, weight_decay=1e-3, clamp_norm_factor=0.6, kl_factor=0.0)


def editor_of(model, source, moments, **changes):
    decoder = find_decoder(model.requires_grad_(False))
    settings = (MEMIT(W), list(LAYERS), ContextTemplates(), VALUES, moments)
    return Editor(EditedWeights(decoder, LAYERS), make_tokenizer(), *settings, source=source, **changes)


@pytest.mark.parametrize(("preserve_text", "overlap"), [(True, 0), (False, 2)])
def test_updates_are_those_of_the_published_method(preserve_text, overlap):
    source = Windows(window=6, overlap=overlap, preserve_text=preserve_text, at_once=2)
    moments = {layer: moment_of(24, seed=layer) for layer in LAYERS}
    editor = editor_of(make_gpt2(), source, moments, previous_keys={})
    plain = PlainWindows(make_gpt2(), make_tokenizer(), LAYERS, 6, overlap, VALUES)
    counts = [len(plain.cut(request)[1]) for request in EDITS]
    assert max(counts) >= 2 and min(counts) == 1
    for edits in (EDITS[:2], EDITS[2:]):
        written = editor.write(edits, torch.zeros(len(edits), 0))
        expected = plain.update(edits, moments, W, preserve_text)
        assert written.owners == tuple(i for i, edit in enumerate(edits) for _ in plain.cut(edit)[1])
        for layer, delta in expected.items():
            assert (written.factors[layer].dense() - delta).norm() <= 1e-9 * delta.norm()
    for layer, kept in plain.kept.items():
        assert torch.allclose(editor.previous_keys[layer].dense(), kept, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("made", [make_gpt2, make_llama])
@pytest.mark.parametrize("site", ["block", "mlp"])
def test_values_are_the_same_where_no_prefix_can_be_cached(made, site):
    decoder, whole = (find_decoder(made().requires_grad_(False)) for _ in range(2))
    whole.resumption.prefixes = False
    texts = [cut(range(3, 25), 5, 4, 0, 0), cut(range(40, 50), 3, 3, 1, 1)]
    settings = ValueSettings(steps=3, site=site, kl_factor=0.0)
    for one, other in zip(*(window_values(d, texts, 1, settings, 8) for d in (decoder, whole)), strict=True):
        assert len(one) > 2 and torch.allclose(one.z, other.z, rtol=1e-5, atol=1e-7)
        assert (one.z - one.z0).norm(dim=1).min() > 0.1


def test_earlier_windows_are_in_their_places():
    decoder = find_decoder(make_gpt2().requires_grad_(False))
    (found,) = window_values(decoder, [cut(range(3, 13), 5, 4, 0, 0)], 1, VALUES, 8)
    alone = search_values(decoder, [(0, cut(range(3, 13), 5, 4, 0, 0).up_to(1))], 1, 1, VALUES)
    # A state is what it was, and the loss is another.
    assert torch.allclose(found.z0[1], alone.z0[0], rtol=1e-12) and abs(found.nll[1] - alone.nll[0]) > 1e-3


def test_windows_cover_an_answer():
    assert cut(range(11), 3, 4, 0, 0).windows == ((3, 7), (7, 11))
    assert cut(range(12), 3, 4, 0, 0).windows == ((3, 7), (7, 11), (11, 12))
    assert cut(range(11), 3, 4, 2, 0).windows == ((3, 7), (5, 9), (7, 11))
    assert cut(range(4), 3, 4, 2, 0).windows == ((3, 4),)


def test_the_end_of_a_turn_is_part_of_the_answer():
    plain = make_tokenizer()
    plain.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    chat, request = ChatTokenizer(plain, chat_format(plain)), make_request(target_new="Rome in Berlin")
    with_end, without = (Windows(train_end=end)._texts(chat, [request], ContextTemplates())[0] for end in (True, False))
    assert with_end.ids[:-1] == without.ids and with_end.ids[-1] == plain.eos_token_id
    assert with_end.windows[0][1] == len(with_end.ids)


def test_the_answer_of_a_single_token_is_named_with_where_it_is_one():
    plain, decoder = make_tokenizer(), find_decoder(make_gpt2())
    plain.chat_template = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
    chat, templates = ChatTokenizer(plain, chat_format(plain)), ContextTemplates(worlds=("chat", "plain"))
    asked = as_question(make_request(target_new="a"), sentences=True)
    alone = as_question(make_request(target_new="a"), sentences=False)
    with pytest.raises(EditError, match=r"the answer 'a' in plain text is a single token.*`chat_settings.contexts: \["):
        Windows().check(chat, [asked], templates, decoder)
    Windows().check(chat, [asked], ContextTemplates(), decoder)
    with pytest.raises(EditError, match=r"the answer 'a' in a chat is a single token.* Give a longer answer, leave"):
        Windows().check(chat, [alone], ContextTemplates(), decoder)


def test_a_long_answer_becomes_likely_and_is_taken_out_again():
    model, tokenizer = make_gpt2(torch.float32), make_tokenizer()
    values = ValueSettings(lr=0.5, steps=10, weight_decay=1e-3, clamp_norm_factor=4.0)
    source, solver = Windows(window=5, preserve_text=False), MEMIT(0.001)
    result = edit(model, tokenizer, EDITS[:2], solver, LAYERS, source=source, values=values, progress=False)
    assert result.info["source"].startswith("Windows(window=5") and result.info["edits"] == 2
    with torch.no_grad():
        after = target_nll(find_decoder(model), tokenizer, EDITS[:2])
        result.remove(model)
        assert (target_nll(find_decoder(model), tokenizer, EDITS[:2]) - after).min() > 0.8
    for found, parameter in zip(model.parameters(), make_gpt2(torch.float32).parameters(), strict=True):
        assert torch.equal(found, parameter)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"requests": [make_request(target_new="a")]}, r"the answer 'a' is a single token.*leave `source` out"),
        ({"solver": ROME()}, "ROME writes one key in an update, and Windows gives one for each window of an answer"),
        ({"distribution": "replay"}, "finds values at the lowest edited layer, and Windows at the highest"),
        ({"values": ValueSettings(norm_anchor=3.0)}, "`values.norm_anchor` gives a norm to values"),
        ({"layers": [1, 2]}, "Layer 2 is the last block"),
        ({"requests": [make_request(target_new="Rome and " * 40)]}, "with its answer has .* tokens but"),
    ],
)
def test_what_means_nothing_together_is_refused(change, told):
    settings = {"requests": EDITS[:1], "source": Windows(), "layers": [0], "progress": False} | change
    with pytest.raises(EditError, match=told):
        edit(make_gpt2(), make_tokenizer(), **settings)


def test_windows_begin_behind_each_other():
    with pytest.raises(EditError, match=r"`source.overlap` must be less than `source.window` \(4\), got 4"):
        Windows(window=4, overlap=4)
