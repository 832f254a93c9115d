"""Prompts in a chat have the tokens that the tokenizer's template gives them; an edit can be made in both worlds."""

import copy

import pytest
import torch

from lightning_edit.asking.chat import ChatSettings, ChatTokenizer, chat_format, plain_tokenizer
from lightning_edit.asking.generation import generate
from lightning_edit.asking.questions import as_question
from lightning_edit.asking.tokenization import encode_prompt, encode_subject, encode_target
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.loading.fingerprints import fingerprint_tokenizer
from lightning_edit.models.decoder import find_decoder
from tests.small_models import make_llama, make_request, make_tokenizer

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<s>system\nBe kind.</s>\n{% endif %}"
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
INSTRUCTION = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "bos": WITH_BOS, "instruction": INSTRUCTION}
QUESTION = "Where is the {} to be found? {{x}}"


def tokenizer_with(template, bos=False):
    tokenizer = make_tokenizer(bos=bos)
    tokenizer.chat_template = template
    return tokenizer


def in_chat(template, bos=False, **kwargs):
    tokenizer = tokenizer_with(template, bos)
    return ChatTokenizer(tokenizer, chat_format(tokenizer, **kwargs))


def rendered(tokenizer, *turns, system=None, ask=True):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
    messages = messages if system is None else [{"role": "system", "content": system}, *messages]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=False)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_prompt_has_the_tokens_of_the_template(template, bos):
    chat = in_chat(template, bos)
    assert encode_prompt(chat, " Who lives in Paris? ") == rendered(chat.plain, "Who lives in Paris?")


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_conversation_has_the_tokens_of_the_template(template):
    chat = in_chat(template)
    turns = ("Who lives in Paris?", "Anna.", "And in Rome?")
    text = chat.chat(turns[2], [turns[:2]])
    assert chat.plain(text, add_special_tokens=False)["input_ids"] == rendered(chat.plain, *turns)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_an_answer_ends_its_turn_as_in_the_template(template):
    chat = in_chat(template)
    ids, start = encode_target(chat, "Who lives there?", "Anna", end=True)
    whole = rendered(chat.plain, "Who lives there?", "Anna", ask=False)
    assert ids == whole[: len(ids)]
    assert ids[-1] == chat.plain.eos_token_id
    assert chat.plain.decode(ids[start:-1]).strip() == "Anna"
    without = encode_target(chat, "Who lives there?", "Anna")
    assert without == (ids[:-1], start)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_subject_is_found_within_the_turn(template, bos):
    chat, subject = in_chat(template, bos), "old tower of London"
    encoded = encode_subject(chat, "London: the {}, where is it?", subject, "Rome")
    text = "London: the old tower of London, where is it?"
    assert list(encoded.ids) == encode_target(chat, text, "Rome")[0]
    before = chat.plain.decode(list(encoded.ids[: encoded.subject_last + 1]))
    assert before.endswith("the old tower of London")
    assert chat.plain.decode(list(encoded.ids[encoded.target_start :])).strip() == "Rome"


def test_system_prompts_are_none_of_our_own_the_templates_or_given():
    tokenizer = tokenizer_with(CHATML)
    assert "Be kind." in chat_format(tokenizer).before
    assert "Be kind." not in chat_format(tokenizer, "").before
    chat = ChatTokenizer(tokenizer, chat_format(tokenizer, "Be {brief}."))
    assert encode_prompt(chat, "Why?") == rendered(tokenizer, "Why?", system="Be {brief}.")
    encoded = encode_subject(chat, "Who is {}?", "Anna")
    assert tokenizer.decode(list(encoded.ids[: encoded.subject_last + 1])).endswith("Who is Anna")


def test_templates_that_cannot_be_used_are_refused_in_words():
    with pytest.raises(EditError, match="has no chat template"):
        chat_format(make_tokenizer())
    with pytest.raises(EditError, match="Some templates know no system turn"):
        chat_format(tokenizer_with(INSTRUCTION), system="Be brief.")
    with pytest.raises(EditError, match="changes the text of a user turn"):
        chat_format(tokenizer_with("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"))
    with pytest.raises(EditError, match="chat template fails"):
        chat_format(tokenizer_with("{{ messages[7].content }}{% for %}"))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(EditError, match="exactly one"):
        ChatSettings(complete="Complete this:")
    with pytest.raises(EditError, match="each once"):
        ChatSettings(contexts=["chat", "chat"])


def test_a_copy_and_a_fingerprint_know_the_chat():
    chat = in_chat(CHATML)
    assert copy.deepcopy(chat).chat == chat.chat
    assert len(chat) == len(chat.plain)
    assert plain_tokenizer(chat) is chat.plain
    assert len({fingerprint_tokenizer(t) for t in (chat, chat.plain, in_chat(CHATML, system="Be brief."))}) == 3


def test_a_record_is_asked_by_its_questions_or_to_be_completed():
    plain = make_request(
        prompt="{} lives in",
        paraphrase_prompts=["Home is"],
        neighborhood_prompts=["Bo lives in"],
        question="Where does {} live?",
    )
    asked = as_question(plain, "Go on: {}")
    assert asked.prompt == "Where does {} live?"
    assert asked.paraphrase_prompts == ("Go on: Home is",)
    assert asked.neighborhood_prompts == ("Go on: Bo lives in",)
    assert asked.original == plain


def test_both_worlds_have_all_contexts_and_half_the_weight():
    chat = in_chat(CHATML)
    plain = make_request(prompt="{} lives in", question="Where does {} live?", separator=" ")
    request = as_question(plain, sentences=False)
    both = ContextTemplates(("{}", "Well. {}"), worlds=("chat", "plain"), train_end=True)
    texts = [chat.plain.decode(list(text.ids)) for text in both.encode(chat, request, target=True)]
    subject, target = request.subject, request.target_new
    assert texts[0].endswith(f"<s>user\nWhere does {subject} live?</s>\n<s>assistant\n{target}</s>")
    assert texts[1].endswith(f"<s>user\nWell. Where does {subject} live?</s>\n<s>assistant\n{target}</s>")
    assert texts[2:] == [f"{subject} lives in {target}", f"Well. {subject} lives in {target}"]
    assert torch.equal(both.key_weights(), torch.full((4,), 0.25, dtype=torch.float64))
    assert both.deciding == [False, True, False, True]


def test_generation_answers_in_the_turn_and_ends_with_it():
    chat, model = in_chat(CHATML), make_llama(torch.float32)
    decoder = find_decoder(model)
    ids = torch.tensor([encode_prompt(chat, "Who lives in Paris?")])
    model.generation_config.eos_token_id = None
    own = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
    written = own[0, ids.shape[1] :].tolist()
    end = chat.plain.eos_token_id
    written = written[: written.index(end)] if end in written else written
    expected = chat.plain.decode(written, skip_special_tokens=True)
    assert generate(decoder, chat, ["Who lives in Paris?"], 8) == [expected]
