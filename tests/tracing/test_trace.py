"""Causal tracing equals its definition, for every kind of part and every structure of a decoder."""

import pytest
import torch

from lightning_edit.asking.chat import ChatFormat, ChatTokenizer
from lightning_edit.asking.tokenization import encode_subject
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import World
from lightning_edit.tracing.average import GROUPS, average, groups_of, suggested_layers
from lightning_edit.tracing.facts import Fact, encode_fact, known_facts
from lightning_edit.tracing.noise import draw_noise, embedding_std
from lightning_edit.tracing.runs import added_by
from lightning_edit.tracing.settings import KINDS, TracingSettings
from lightning_edit.tracing.trace import trace_fact
from tests.architectures import FAMILIES, build
from tests.tracing import reference

STD = 0.2


@pytest.fixture(scope="module")
def decoder():
    return find_decoder(load_model("tiny", "float64"))


@pytest.fixture(scope="module")
def facts():
    world = World.generate()
    return [Fact(r["subject"], r["prompt"], r["target_true"]) for r in world.records(6, seed=1)]


def expected(decoder, tokenizer, fact, settings, kind):
    depth = len(decoder.blocks)
    modules = {layer: added_by(decoder, kind, layer)[0] for layer in range(depth)}
    windows = [settings.layers_around(layer, depth, kind) for layer in range(depth)]
    text = encode_fact(decoder, tokenizer, fact)
    return reference.trace(decoder.model, modules, text, settings.noise * STD, settings.samples, settings.seed, windows)


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.slow
def test_every_restoration_equals_its_definition(decoder, tiny_tokenizer, facts, window):
    settings = TracingSettings(samples=2, window=window, seed=3)
    # An answer of several tokens, and a subject that is not at the beginning.
    fact = Fact(facts[0].subject, "A small book says that {} is", "a very old man")
    trace = trace_fact(decoder, tiny_tokenizer, fact, STD, settings)
    for kind in KINDS:
        clean, low, restored = expected(decoder, tiny_tokenizer, fact, settings, kind)
        assert trace.clean == pytest.approx(clean, rel=1e-8)
        assert trace.corrupted == pytest.approx(low, rel=1e-8)
        torch.testing.assert_close(trace.restored[kind], restored, rtol=1e-8, atol=1e-14)
        assert (trace.restored[kind][: trace.subject.start] == trace.corrupted).all()
    assert "".join(trace.tokens).strip() == fact.text


def test_a_question_in_a_chat_is_traced_where_its_subject_stands(decoder, tiny_tokenizer, facts):
    chat = ChatTokenizer(tiny_tokenizer, ChatFormat("The old man asked the man: ", " He said that"))
    settings, fact = TracingSettings(samples=2, window=1), Fact(facts[2].subject, "Who is {}?", "a man")
    trace = trace_fact(decoder, chat, fact, STD, settings)
    assert "".join(trace.tokens) == f"The old man asked the man: {fact.text} He said that"
    assert "".join(trace.tokens[i] for i in trace.subject).strip() == fact.subject
    clean, low, restored = expected(decoder, chat, fact, settings, "state")
    assert (trace.clean, trace.corrupted) == pytest.approx((clean, low), rel=1e-8)
    torch.testing.assert_close(trace.restored["state"], restored, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_structure_equals_the_definition(family, tiny_tokenizer, facts):
    decoder = find_decoder(build(family).double())
    settings = TracingSettings(samples=1, window=2)
    fact = Fact(facts[1].subject, "So they say that {} is a", "man")
    trace = trace_fact(decoder, tiny_tokenizer, fact, STD, settings)
    for kind in KINDS:
        clean, low, restored = expected(decoder, tiny_tokenizer, fact, settings, kind)
        assert (trace.clean, trace.corrupted) == pytest.approx((clean, low), rel=1e-6)
        torch.testing.assert_close(trace.restored[kind], restored, rtol=1e-6, atol=1e-10)


def test_attention_is_what_is_left_of_a_block(decoder):
    assert [added_by(decoder, "attention", layer) for layer in range(3)] == [
        [block.attn.c_proj] for block in decoder.model.transformer.h
    ]
    assert added_by(decoder, "mlp", 0) == [decoder.model.transformer.h[0].mlp.c_proj]


def test_the_subject_end_alone_has_the_same_figures(decoder, tiny_tokenizer, facts):
    settings = TracingSettings(samples=2)
    whole = trace_fact(decoder, tiny_tokenizer, facts[0], STD, settings, ["mlp"])
    end = trace_fact(decoder, tiny_tokenizer, facts[0], STD, settings, ["mlp"], only_subject_end=True)
    last = whole.subject[-1]
    torch.testing.assert_close(end.restored["mlp"][last], whole.restored["mlp"][last], rtol=1e-10, atol=0)
    assert end.restored["mlp"][last + 1 :].isnan().all()


def test_without_an_answer_the_likeliest_token_is_traced(decoder, tiny_tokenizer, facts):
    asked = trace_fact(decoder, tiny_tokenizer, Fact(facts[0].subject, facts[0].prompt), STD)
    text = encode_subject(tiny_tokenizer, facts[0].prompt, facts[0].subject)
    token = decoder.model(torch.tensor([text.ids])).logits[0, -1].argmax()
    assert asked.answer == tiny_tokenizer.decode([token]).strip()
    assert asked.clean > asked.corrupted


def test_a_trace_does_not_depend_on_other_facts_but_on_its_seed(decoder, tiny_tokenizer, facts):
    first = trace_fact(decoder, tiny_tokenizer, facts[0], STD, TracingSettings(samples=2))
    trace_fact(decoder, tiny_tokenizer, facts[1], STD, TracingSettings(samples=2))
    again = trace_fact(decoder, tiny_tokenizer, facts[0], STD, TracingSettings(samples=2))
    other = trace_fact(decoder, tiny_tokenizer, facts[0], STD, TracingSettings(samples=2, seed=1))
    assert all(torch.equal(first.restored[kind], again.restored[kind]) for kind in KINDS)
    assert other.corrupted != first.corrupted
    assert other.clean == pytest.approx(first.clean, rel=1e-12)


def test_noise_has_the_scale_asked_for(decoder, tiny_tokenizer, facts):
    text = encode_fact(decoder, tiny_tokenizer, facts[0])
    noise = draw_noise(text, 2000, 8, 0.3, seed=0)
    assert noise.shape == (2000, text.subject_last + 1 - text.subject_first, 8)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    subjects = [fact.subject for fact in facts]
    ids = [token for subject in subjects for token in tiny_tokenizer(subject)["input_ids"]]
    whole = decoder.model.get_input_embeddings().weight[ids].std()
    assert embedding_std(decoder, tiny_tokenizer, [*subjects, subjects[0]]) == pytest.approx(float(whole), rel=1e-12)


def test_facts_that_the_model_does_not_know_are_left_out(decoder, tiny_tokenizer, facts):
    wrong = Fact(facts[0].subject, facts[0].prompt, "market")
    known, others = known_facts(decoder, tiny_tokenizer, [facts[0], wrong])
    assert (known, others) == ([facts[0]], 1)


def test_average_is_the_mean_over_facts_of_the_mean_over_tokens(decoder, tiny_tokenizer, facts):
    traces = [trace_fact(decoder, tiny_tokenizer, fact, STD, TracingSettings(samples=2)) for fact in facts[:4]]
    mean = average(traces)
    assert mean.facts == 4
    assert mean.clean == pytest.approx(sum(trace.clean for trace in traces) / 4)
    for number in range(len(GROUPS)):
        rows = [
            trace.restored["mlp"][groups_of(trace)[number]].mean(0) - trace.corrupted
            for trace in traces
            if groups_of(trace)[number]
        ]
        assert mean.counts[number] == len(rows)
        if len(rows) > 1:
            torch.testing.assert_close(mean.effects["mlp"].mean[number], torch.stack(rows).mean(0))
            stderr = torch.stack(rows).std(0) / len(rows) ** 0.5
            torch.testing.assert_close(mean.effects["mlp"].stderr[number], stderr)
    with pytest.raises(EditError, match="no trace"):
        average([])


def test_every_token_from_the_subject_on_is_in_one_group(decoder, tiny_tokenizer, facts):
    for prompt in ("{}", "{} is", "They say that {} is", "{} is a very old"):
        trace = trace_fact(decoder, tiny_tokenizer, Fact(facts[0].subject, prompt), STD, TracingSettings(samples=1))
        grouped = [token for group in groups_of(trace) for token in group]
        assert sorted(grouped) == list(range(trace.subject.start, len(trace.tokens)))
        assert groups_of(trace)[2] == [trace.subject[-1]]


def test_suggested_layers_end_at_the_highest_that_brings_back_nearly_most():
    effect = torch.tensor([0.1, 0.5, 0.4, 0.9, 0.82, 0.8] + [0.0] * 5 + [2.0])
    assert suggested_layers(12, effect, range(12)) == (4, [3, 4])
    assert suggested_layers(12, effect, [0, 1, 2]) == (1, [0, 1])
    assert suggested_layers(12, -effect, range(11)) == (10, [9, 10])
    with pytest.raises(EditError, match="no layer below its last"):
        suggested_layers(12, effect, [11])


def test_windows_are_the_published_ones():
    published = [list(range(max(0, layer - 5), min(48, layer + 5))) for layer in range(48)]
    assert [list(TracingSettings().layers_around(layer, 48, "mlp")) for layer in range(48)] == published
    assert TracingSettings().width(12) == 2
    assert TracingSettings().layers_around(3, 12, "state") == range(3, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "no place"}, "exactly one {}"),
        ({"subject": " "}, "`subject` must be a text"),
        ({"answer": ""}, "`answer` must be a text"),
    ],
)
def test_a_fact_that_cannot_be_traced_is_refused(fields, message):
    with pytest.raises(EditError, match=message):
        Fact(**({"subject": "Anna", "prompt": "{} is", "answer": "old"} | fields))


def test_settings_out_of_range_are_refused():
    with pytest.raises(EditError, match=r"`tracing\.samples` must be a whole number of 1 or more"):
        TracingSettings(samples=0)
