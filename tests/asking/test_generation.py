"""Free generation: the model's own words, whatever the batches are."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_edit.asking.generation import Sampling, generate
from lightning_edit.errors import EditError
from lightning_edit.models.decoder import find_decoder
from tests.architectures import FAMILIES, build
from tests.small_models import CONTEXT, make_gpt2, make_llama, make_tokenizer

PROMPTS = [
    "The Eiffel Tower is located in the city of",
    "Paris",
    "The mother tongue of Danielle Darrieux is",
    "Paris",
    "I think that you know where Anna's brother went to school in Rome, which",
]


def greedy(model, ids, count):
    """Reference: one text, no cache, the argmax again and again."""
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids


@pytest.mark.parametrize("make_model", [make_gpt2, make_llama])
@pytest.mark.parametrize("settings", [{}, {"bos": True}, {"padding_side": "left"}, {"token_type_ids": True}])
def test_greedy_texts_are_the_argmax_of_one_text_at_a_time(make_model, settings):
    model, tokenizer = make_model(), make_tokenizer(**settings)
    model.generation_config.eos_token_id = None
    found = generate(find_decoder(model), tokenizer, PROMPTS, 9)
    for prompt, text in zip(PROMPTS, found, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        assert prompt + text == tokenizer.decode(greedy(model, ids, 9), skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampling", [None, Sampling(top_k=5, seed=1)])
def test_texts_do_not_depend_on_the_batch(family, sampling, tiny_tokenizer):
    decoder = find_decoder(build(family).double())
    together = generate(decoder, tiny_tokenizer, PROMPTS, 6, sampling)
    assert together == [generate(decoder, tiny_tokenizer, [prompt], 6, sampling)[0] for prompt in PROMPTS]
    assert together == generate(decoder, tiny_tokenizer, PROMPTS, 6, sampling, max_tokens=40)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_beginning_of_many_prompts_is_run_once(family, tiny_tokenizer):
    model = build(family).double()
    shots = " ".join(f"{name} lives in Paris." for name in ["Anna", "Danielle", "Rome"] * 3)
    prompts = [f"{shots} {name} lives in" for name in ("Rome", "Darrieux", "the Eiffel Tower", "A", "B", "C", "D", "E")]
    alone = [generate(find_decoder(model), tiny_tokenizer, [prompt], 2)[0] for prompt in prompts]
    decoder, run = find_decoder(model), []
    assert decoder.resumption.prefixes
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: run.append(args[0].numel()))
    assert generate(decoder, tiny_tokenizer, prompts, 2) == alone
    handle.remove()
    lengths = [len(tiny_tokenizer(prompt)["input_ids"]) for prompt in prompts]
    # The whole of one, a few tokens of each, and a token for each step of each.
    assert sum(run) < max(lengths) + 12 * len(prompts) < sum(lengths) / 2


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Mistral"])
def test_prompts_of_many_lengths_share_a_head_in_one_batch(family, tiny_tokenizer):
    system = "You are a kind and patient helper who lives in Paris and answers everything. "
    prompts = [f"{system * 2}{'of ' * number}old Rome" for number in range(16)]
    model = build(family).double()
    model.generation_config.eos_token_id = None
    decoder, run = find_decoder(model), []
    alone = [generate(decoder, tiny_tokenizer, [prompt], 4)[0] for prompt in prompts]
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: run.append(args[0].shape))
    assert generate(decoder, tiny_tokenizer, prompts, 4) == alone
    handle.remove()
    tokens, plain = (
        sum(rows * columns for rows, columns in run),
        sum(len(tiny_tokenizer(p)["input_ids"]) for p in prompts),
    )
    if family == "Mistral":
        # Its window would end within the text, so there is nothing between a head and what follows it.
        assert tokens > plain
    else:
        # The head, the rest of all prompts, and then a token of each text.
        assert [rows for rows, _ in run] == [1, 16, 16, 16, 16]
        assert 2 * tokens < plain


def test_equal_prompts_differ_by_their_draws_alone():
    decoder, tokenizer = find_decoder(make_gpt2()), make_tokenizer()
    texts = generate(decoder, tokenizer, ["Paris"] * 3, 12, Sampling(), draws=[0, 1, 0])
    assert texts[0] == texts[2] != texts[1]
    assert generate(decoder, tokenizer, ["Paris"], 12, Sampling(seed=1)) != texts[:1]


def test_a_draw_follows_the_softmax_of_the_likeliest():
    model, tokenizer = make_gpt2(), make_tokenizer()
    prompt = "Because the mother tongue"
    ids = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        values, tokens = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(3)
    texts = generate(find_decoder(model), tokenizer, [prompt] * 2000, 1, Sampling(top_k=3), draws=range(2000))
    assert len(set(texts)) == 3
    seen = torch.tensor([texts.count(tokenizer.decode([int(token)])) for token in tokens]) / len(texts)
    # Four standard errors.
    assert float((seen - values.softmax(0)).abs().max()) < 4 * 0.5 / 2000**0.5
    assert float(values.softmax(0)[1]) > 0.1


def test_each_text_has_a_length_of_its_own():
    model, tokenizer = make_llama(), make_tokenizer()
    model.generation_config.eos_token_id = None
    longest = generate(find_decoder(model), tokenizer, PROMPTS, 9)
    found = generate(find_decoder(model), tokenizer, PROMPTS, [9, 1, 4, 2, 7])
    assert found[0] == longest[0]
    for prompt, text, count in zip(PROMPTS, found, [9, 1, 4, 2, 7], strict=True):
        ids = tokenizer(prompt)["input_ids"]
        assert prompt + text == tokenizer.decode(greedy(model, ids, count), skip_special_tokens=True)


def test_texts_end_with_the_context():
    model, tokenizer = make_gpt2(), make_tokenizer()
    model.generation_config.eos_token_id = None
    prompts = ["Paris " * 20, "Paris is", "Paris " * 24]
    texts = generate(find_decoder(model), tokenizer, prompts, 500)
    for prompt, text in zip(prompts, texts, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        assert prompt + text == tokenizer.decode(greedy(model, ids, CONTEXT - len(ids)), skip_special_tokens=True)


def test_a_prompt_that_fills_the_context_is_refused():
    prompt = "Paris" * CONTEXT
    with pytest.raises(EditError, match=r"'ParisParis.* the model's context holds 64"):
        generate(find_decoder(make_gpt2()), make_tokenizer(), ["Paris", prompt], 1)


@pytest.mark.parametrize("pad", [True, False])
def test_a_text_is_done_where_the_model_says_so(pad):
    model, tokenizer = make_gpt2(), make_tokenizer()
    if not pad:
        # Then zeros fill up finished texts, which are text to this tokenizer.
        tokenizer.pad_token = tokenizer.bos_token = None
    model.generation_config.eos_token_id = None
    ids = {prompt: tokenizer(prompt)["input_ids"] for prompt in PROMPTS}
    new = {prompt: greedy(model, ids[prompt], 9)[len(ids[prompt]) :] for prompt in PROMPTS}
    end = new["Paris"][2]
    model.generation_config.eos_token_id = [end, 479]
    found = generate(find_decoder(model), tokenizer, PROMPTS, 9)
    for prompt, text in zip(PROMPTS, found, strict=True):
        kept = new[prompt][: new[prompt].index(end)] if end in new[prompt] else new[prompt]
        assert text == tokenizer.decode(kept, skip_special_tokens=True)
    on = generate(find_decoder(model), tokenizer, ["Paris"], 9, stop=False)[0]
    parts = " ".join(map(str, new["Paris"])).split(str(end))
    assert on == "\n".join(tokenizer.decode([int(i) for i in part.split()]) for part in parts)


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("ends", [None, 479])
def test_a_text_ends_before_the_first_of_given_texts(pad, ends):
    model, tokenizer = make_llama(), make_tokenizer()
    if not pad:
        tokenizer.pad_token = tokenizer.bos_token = None
    model.generation_config.eos_token_id = ends
    whole = generate(find_decoder(model), tokenizer, PROMPTS, 9)
    # In the middle of tokens too: what is looked at is the text.
    stops = [whole[1][4:6], whole[2][-1]]
    assert stops[0] in whole[1][1:]
    found = generate(find_decoder(model), tokenizer, PROMPTS, 9, until=stops)
    for text, kept in zip(whole, found, strict=True):
        assert kept == min((text.split(stop)[0] for stop in stops), key=len)
    assert found != whole


def test_a_batch_is_done_when_each_of_its_texts_is():
    model, tokenizer = make_gpt2(), make_tokenizer()
    model.generation_config.eos_token_id = None
    decoder, passes, counts = find_decoder(model), [], []
    first = sorted({text[-1] for text in generate(decoder, tokenizer, PROMPTS, 1)})
    model.get_input_embeddings().register_forward_pre_hook(lambda *_: passes.append(1))
    for until in ((), first):
        generate(decoder, tokenizer, PROMPTS, 40, until=until)
        counts.append(len(passes))
    assert counts[1] - counts[0] <= counts[0] - 39


def test_nothing_but_the_logits_counts():
    model, tokenizer = make_llama(), make_tokenizer()
    model.generation_config.eos_token_id = None
    plain = generate(find_decoder(model), tokenizer, PROMPTS, 9)
    model.generation_config.repetition_penalty = 3.0
    model.generation_config.temperature = 0.1
    model.generation_config.min_new_tokens = 20
    assert generate(find_decoder(model), tokenizer, PROMPTS, 9) == plain
    assert model.generation_config.repetition_penalty == 3.0


def spaced_tokenizer():
    """Words with the space before them in one token, which decoding drops at the start of a text, as Llama 2 has it."""
    words = ["<s>", "</s>", *(f"▁{word}" for word in ("Paris", "is", "old", "Rome"))]
    vocabulary = {word: i for i, word in enumerate([*words, *(f"▁w{i}" for i in range(480 - len(words)))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def test_the_space_before_a_continuation_is_kept():
    model, tokenizer = make_llama(), spaced_tokenizer()
    model.generation_config.eos_token_id = None
    assert tokenizer.decode(tokenizer("is old")["input_ids"]) == "is old"
    for text in generate(find_decoder(model), tokenizer, ["Paris is", "Rome"], 3):
        assert text.startswith(" ")


def test_no_prompts_give_no_texts():
    assert generate(find_decoder(make_gpt2()), make_tokenizer(), [], 5) == []


def test_progress_counts_texts():
    seen = []
    decoder, tokenizer = find_decoder(make_gpt2()), make_tokenizer()
    generate(decoder, tokenizer, PROMPTS, 3, report=lambda *told: seen.append(told), max_tokens=30)
    assert [told[0] for told in seen] == ["generate (texts)"] * len(seen)
    assert len(seen) > 1
    assert seen[-1][1:] == (len(PROMPTS), len(PROMPTS))
