"""Values from gradients are those of the published methods, as plain code has them in float64."""

import pytest
import torch

from lightning_edit import (
    ROME,
    AlphaEdit,
    ContextTemplates,
    EditError,
    EditRequest,
    Gradient,
    Ridge,
    ValueSettings,
    edit,
)
from lightning_edit.asking.chat import ChatTokenizer, chat_format
from lightning_edit.editor import Editor
from lightning_edit.gradients.passes import check_backward, gradients_at_answers
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.moment_pass import compute_second_moments
from lightning_edit.keys.stored_moments import unneeded_moment
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.finding.places import places_of, spelled_out, with_maps
from lightning_edit.models.hooks import hidden_of, with_hidden
from lightning_edit.run.methods.fine_tuning import target_nll
from lightning_edit.tiny import World
from lightning_edit.updates.edited_weights import EditedWeights
from tests.gradients.plain import plain_pairs, plain_residuals, primal
from tests.plain import plain_second_moment
from tests.small_models import SENTENCES, make_gpt2, make_llama, make_request, make_tokenizer

FACTS = (
    ("Danielle Darrieux", "The mother tongue of {} is", "English at home"),
    ("Toyota Motor Corporation", "The headquarters of {} are in", "London"),
    ("Anna", "{}'s brother went to school in", "the old city of Berlin"),
    ("violin", "The {} is played by", "Paris and Rome as well"),
    ("Eiffel Tower", "The {} is located in the city of", "Rome"),
    ("", "You know where the musician from London", "went to school"),
)
EDITS = [EditRequest(*fact) for fact in FACTS]
ETA = 1e-2


def editor_of(model, source, ridge, layers):
    decoder = with_maps(find_decoder(model), source.maps)
    places = places_of(decoder, layers, source.maps)
    moments = {place: unneeded_moment(decoder, place) for place in places}
    settings = (places, ContextTemplates(), ValueSettings(), moments)
    return Editor(EditedWeights(decoder, places), make_tokenizer(), Ridge(ridge), *settings, source=source)


def plain_run(model, names, updates, ridge, **kwargs):
    """What is added to each matrix by updates that follow each other."""
    added, seen = dict.fromkeys(names, 0), {}
    for edits in updates:
        pairs = plain_pairs(model, make_tokenizer(), edits, names, mini_batch=2)
        for h, g in pairs.values():
            of_shape = seen.setdefault((g.shape[1], h.shape[1]), ([], []))
            of_shape[0].append(h)
            of_shape[1].append(g)
        for name, (h, g) in pairs.items():
            everything = (torch.cat(part) for part in seen[g.shape[1], h.shape[1]])
            delta = primal(h, plain_residuals(h, g, *everything, ETA, **kwargs), ridge)
            added[name] = added[name] + delta
            with torch.no_grad():
                # GPT-2 stores its weights the other way round.
                model.get_submodule(name).weight += delta.T
    return added


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({}, {}),
        ({"normalize": "whitened", "floor": 1e-8}, {"whitened": True, "floor": 1e-8}),
        ({"scale": "key_product"}, {"product": True}),
    ],
    ids=["UltraEdit", "StableEdit", "RLEdit"],
)
def test_updates_are_those_of_the_published_methods(settings, plain):
    maps, names = ["mlp.*"], [f"transformer.h.{layer}.mlp.{name}" for layer in (1, 2) for name in ("c_fc", "c_proj")]
    editor = editor_of(make_gpt2(), Gradient(maps=maps, eta=ETA, mini_batch=2, **settings), 3.0, [1, 2])
    updates = (EDITS[:4], EDITS[4:])
    for edits in updates:
        editor.write(edits, torch.zeros(len(edits), 0))
    expected = plain_run(make_gpt2(), names, updates, 3.0, **plain)
    decoder = editor.weights.decoder
    assert {decoder.label(place) for place in editor.layers} == {
        "layer_1",
        "layer_2",
        "layer_1.mlp.c_fc",
        "layer_2.mlp.c_fc",
    }
    for place, factors in editor.weights.added.items():
        delta = expected[decoder.names[place]]
        assert (factors.dense() - delta).norm() <= 1e-9 * delta.norm()
    if "whitened" in plain:
        assert all(seen.tokens > 24 + 1 for seen in editor.statistics.values())


def test_gradients_of_gated_maps_are_those_of_autograd():
    model, tokenizer = make_llama(), make_tokenizer()
    decoder = with_maps(find_decoder(model), ["mlp.{gate,up}_proj", "self_attn.v_proj"])
    places = places_of(decoder, [0, 2], ["mlp.{gate,up}_proj", "self_attn.v_proj"])
    texts = [text for request in EDITS for text in ContextTemplates().answered(tokenizer, request)]
    found = gradients_at_answers(decoder, texts, places)
    expected = plain_pairs(model, tokenizer, EDITS, [decoder.names[place] for place in places], mini_batch=len(EDITS))
    answers = sum(len(ids) - start for ids, start in texts)
    for place in places:
        h, g = expected[decoder.names[place]]
        # Its norms are in float32, whatever the model's precision.
        assert torch.allclose(found[place][0], h, rtol=1e-4, atol=1e-6)
        assert torch.allclose(found[place][1] / answers, g, rtol=1e-4, atol=1e-6)


def test_statistics_do_not_depend_on_how_tokens_are_divided():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(30, 5, dtype=torch.float64, generator=generator) + 3
    gradients = torch.randn(30, 4, dtype=torch.float64, generator=generator) * 1e-3
    whole = Statistics.of(keys, gradients, products=True)
    parts = [Statistics.of(keys[a:b], gradients[a:b], products=True) for a, b in ((0, 1), (1, 2), (2, 17), (17, 30))]
    added = sum(parts[1:], parts[0])
    for name in ("mean", "squares", "products"):
        assert torch.allclose(getattr(added, name), getattr(whole, name), rtol=1e-12, atol=1e-18)
    _, white = whole.normalized(keys, gradients, floor=1e-12)
    assert torch.allclose(white.T @ white, 25 * torch.eye(4, dtype=torch.float64), atol=1e-9)


def test_a_single_token_is_not_compared_with_itself():
    editor, one = editor_of(make_gpt2(), Gradient(eta=ETA), 1.0, [1]), make_request(target_new="a")
    told = r"A single token was seen .* Write more edits in one update, set `source.warmup`"
    with pytest.raises(EditError, match=told):
        editor.write([one], torch.zeros(1, 0))
    assert not editor.weights.added
    call = {"layers": [1], "progress": False}
    # A call knows beforehand what will be seen; the prompt's tokens count where they give keys, too.
    with pytest.raises(EditError, match=r"The first update, record 7, has a single token, so there is nothing"):
        edit(make_gpt2(torch.float32), make_tokenizer(), [one], source=Gradient(eta=ETA), **call)
    for seen in (Gradient(eta=ETA, tokens="all"), Gradient(eta=ETA, normalize="none")):
        edit(make_gpt2(torch.float32), make_tokenizer(), [one], source=seen, **call)
    written = editor.write([one, *EDITS[:2]], torch.zeros(3, 0))
    assert written.owners.count(0) == 1
    assert not editor.write([one], torch.zeros(1, 0)).factors[1].dense().isnan().any()


def test_edits_without_a_subject_are_made_from_gradients_alone():
    asked, model, tokenizer = [EDITS[-1], EDITS[0]], make_gpt2(torch.float32), make_tokenizer()
    result = edit(model, tokenizer, asked, layers=[1], source=Gradient(eta=10 * ETA), progress=False)
    assert result.info["source"].startswith("Gradient(") and result.info["solver"] == "Ridge(ridge=1.0)"
    result.remove(model)
    told = r"1 edit \(the edit of 'You know where.*\) has no subject.*source=Gradient\(\)"
    with pytest.raises(EditError, match=told):
        edit(model, tokenizer, asked, layers=[1], progress=False)
    # Without a subject nothing takes its place: it is plain text.
    assert EditRequest("", "{} is", "Rome").rewrite_prompt == "{} is"


def test_experts_learn_from_gradients():
    model, tokenizer = load_model("tiny-moe"), load_tokenizer("tiny-moe")
    records = World.generate().records(8, seed=0)
    requests = [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in records]
    decoder = find_decoder(model)
    with torch.no_grad():
        before = target_nll(decoder, tokenizer, requests).mean()
    edit(model, tokenizer, requests, layers=[1], source=Gradient(eta=1e-3), progress=False)
    with torch.no_grad():
        assert target_nll(decoder, tokenizer, requests).mean() < before - 0.5


def test_prompts_of_a_chat_are_rendered():
    plain = make_tokenizer()
    plain.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    chat = ChatTokenizer(plain, chat_format(plain))
    ((ids, start),) = ContextTemplates(train_end=True).answered(chat, make_request())
    assert plain.decode(ids[:start]).startswith("user: The Eiffel Tower is located")
    assert plain.decode(ids[start:]).strip() == "Rome</s>"


def test_names_of_maps():
    assert spelled_out("mlp.{gate, up,down}_{a,b}") == [f"mlp.{n}_{e}" for n in ("gate", "up", "down") for e in "ab"]
    decoder = with_maps(find_decoder(make_llama()), ["*.{gate,down}_proj"])
    places = places_of(decoder, [0, 2], ["*.{gate,down}_proj"])
    assert [decoder.shown(place) for place in places] == ["0", "2", "0.mlp.gate_proj", "2.mlp.gate_proj"]
    assert [decoder.names[place] for place in places][2:] == [f"model.layers.{n}.mlp.gate_proj" for n in (0, 2)]
    wrong = r"layer 1 of LlamaForCausalLM has no linear map 'mlp.gate'. It has self_attn.q_proj, .*, mlp.down_proj"
    with pytest.raises(EditError, match=wrong):
        places_of(decoder, [1], ["mlp.gate"])


def test_second_moments_of_other_maps_are_those_of_their_inputs():
    model, tokenizer, maps = make_gpt2(), make_tokenizer(), ["mlp.*", "attn.c_attn"]
    rows = [tokenizer(text)["input_ids"] for text in SENTENCES]
    decoder = with_maps(find_decoder(model), maps)
    places = places_of(decoder, [0, 1], maps)
    moments = compute_second_moments(decoder, rows, places)
    assert sorted(map(decoder.shown, moments)) == [
        *("0", "0.attn.c_attn", "0.mlp.c_fc", "1", "1.attn.c_attn", "1.mlp.c_fc")
    ]
    for place, moment in moments.items():
        expected = plain_second_moment(model, decoder.down_projection(place), [rows])
        assert torch.allclose(moment, expected, rtol=1e-9, atol=1e-12)
    source, solver = Gradient(maps=maps, eta=ETA), AlphaEdit(threshold=1e3)
    edit(model, tokenizer, EDITS[:3], solver, [0, 1], source=source, texts=SENTENCES * 40, progress=False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": Gradient(maps=["mlp.up_proj"])}, "has no linear map 'mlp.up_proj'. It has attn.c_attn"),
        ({"solver": ROME()}, "ROME writes one key in an update, and Gradient gives one for each token"),
        ({"distribution": "last"}, "shares one residual between layers, and Gradient gives each map one of its own"),
    ],
)
def test_what_means_nothing_together_is_refused(change, told):
    settings = {"source": Gradient(), "layers": [0], "progress": False} | change
    with pytest.raises(EditError, match=told):
        edit(make_gpt2(), make_tokenizer(), EDITS[:2], **settings)


def test_a_map_without_backward_is_refused():
    model = make_gpt2()
    decoder = find_decoder(model)
    block = model.transformer.h[1]
    block.register_forward_hook(lambda _, args, output: with_hidden(output, hidden_of(output).detach()))
    check_backward(decoder, [2])
    with pytest.raises(EditError, match=r"No gradient comes back to transformer.h.1.mlp.c_proj"):
        check_backward(decoder, [1])


def test_a_norm_of_values_means_nothing_to_gradients():
    model = load_model("tiny")
    how = {"source": Gradient(), "values": ValueSettings(norm_anchor="auto"), "progress": False}
    with pytest.raises(EditError, match=r"`values.norm_anchor` gives a norm to values that are searched for"):
        edit(model, load_tokenizer("tiny"), [make_request()], layers=[0], **how)
