"""What edits do behind long contexts: the figure against a plain loop, damage that no short prompt shows, chats."""

from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch

from lightning_edit.asking.chat import ChatFormat, ChatTokenizer
from lightning_edit.collateral import Asking, Probe
from lightning_edit.collateral.long_context import AFTER, BEFORE, RATIO, long_context, text_of
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder

CHAT = ChatFormat("They say that Anna lives in Paris. ", " Now:", " ", ".", (), ". Then ")


@pytest.fixture(scope="module")
def probes(tiny_tokenizer):
    prompts = [prompt.prompt for prompt in TinyWorld(edits=4).sources().general[:20]]
    answers = Asking(find_decoder(load_model("tiny", "auto")), tiny_tokenizer, 16, nullcontext).now(prompts)
    return [Probe("general", prompt, before=asked.text) for prompt, asked in zip(prompts, answers, strict=True)]


@pytest.fixture
def asking(tiny_tokenizer):
    return Asking(find_decoder(load_model("tiny", "auto")), tiny_tokenizer, 16, nullcontext)


def damaged(asking, first):
    """The model with noise on its positions from one on, and how it was before."""
    weight = asking.decoder.model.transformer.wpe.weight.data
    sound = weight.clone()
    noise = torch.randn(weight[first:].shape, generator=torch.Generator().manual_seed(0))
    weight[first:] += 5 * weight.std() * noise

    @contextmanager
    def before():
        now = weight.clone()
        weight.copy_(sound)
        yield
        weight.copy_(now)

    return replace(asking, before=before)


def test_an_unedited_model_is_as_before(asking, probes):
    figures = long_context(asking, probes)
    assert figures[RATIO] == 1
    assert 1 < figures[AFTER] == figures[BEFORE] < 10


def test_harm_behind_long_contexts_is_seen_where_short_prompts_show_none(asking, probes):
    harmed = damaged(asking, 64)
    asked = harmed.now([probe.prompt for probe in probes], [True] * len(probes))
    assert all(answer.text == probe.before for answer, probe in zip(asked, probes, strict=True))
    assert max(answer.kl for answer in asked) < 1e-6
    figures = long_context(harmed, probes)
    with harmed.before():
        assert figures[BEFORE] == long_context(replace(harmed, before=nullcontext), probes)[AFTER]
    assert figures[RATIO] > 1.5
    assert figures[RATIO] == pytest.approx(figures[AFTER] / figures[BEFORE])


@pytest.mark.parametrize("chat", [None, CHAT])
def test_the_figures_are_those_of_a_plain_loop(asking, probes, tiny_tokenizer, chat):
    harmed = damaged(asking, 64)
    if chat is not None:
        harmed = replace(harmed, tokenizer=ChatTokenizer(tiny_tokenizer, chat))
    rows = text_of(harmed.tokenizer, [(probe.prompt, probe.before) for probe in probes], 128)
    start = max(map(len, rows)) // 2

    def perplexity():
        losses = []
        for row in rows:
            with torch.no_grad():
                logits = harmed.decoder.model(torch.tensor([list(row)])).logits[0].double().log_softmax(-1)
            losses += [-float(logits[i - 1, row[i]]) for i in range(start, len(row))]
        return float(torch.tensor(losses).mean().exp())

    figures = long_context(harmed, probes)
    assert figures[AFTER] == pytest.approx(perplexity(), rel=1e-4)
    with harmed.before():
        assert figures[BEFORE] == pytest.approx(perplexity(), rel=1e-4)


def test_rows_hold_the_prompts_and_answers_one_after_the_other(probes, tiny_tokenizer):
    answered = [(probe.prompt, probe.before) for probe in probes]
    rows = text_of(tiny_tokenizer, answered, 128)
    assert len(rows) > 2 and {len(row) for row in rows[:-1]} == {128}
    text = " ".join(prompt + answer for prompt, answer in answered)
    assert "".join(tiny_tokenizer.decode(list(row)) for row in rows).split() == text.split()


def test_in_a_chat_each_row_is_a_conversation_of_whole_turns(probes, tiny_tokenizer):
    answered = [(probe.prompt, probe.before.strip()) for probe in probes]
    rows = text_of(ChatTokenizer(tiny_tokenizer, CHAT), answered, 128)
    texts = [tiny_tokenizer.decode(list(row)).strip() for row in rows]
    assert 2 < len(rows) < len(probes) and all(64 < len(row) <= 128 for row in rows[:-1])
    assert all(text.startswith(CHAT.before.strip()) for text in texts)
    turns = [turn for text in texts for turn in text.removeprefix(CHAT.before).split(CHAT.between)]
    assert [turn.rstrip(".") for turn in turns] == [f"{q} Now: {a}".rstrip(".") for q, a in answered]


def test_too_little_text_gives_no_figure(asking, probes):
    assert long_context(asking, []) == long_context(asking, probes[:1]) == {}
