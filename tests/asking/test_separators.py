"""What stands between prompt and answer: what a writer would put there, or what the user says."""

import json

import pytest
import torch

from lightning_edit import EditError, EditRequest
from lightning_edit.asking.tokenization import encode_target, join_target, separator_of, usual_separator
from lightning_edit.datamodules import OwnEdits
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.metrics import EditMetrics, evaluate
from lightning_edit.metrics.generated_text import generated_match
from lightning_edit.models.decoder import find_decoder
from lightning_edit.values.optimize import encode_texts
from tests.small_models import make_gpt2, make_request, make_tokenizer

SPACE = [
    ("The capital is", "Rome"),
    ('He said "yes" to', "Rome"),
    ('The pipe is called "tube"', "Rome"),
    ("the dogs'", "Rome"),
    ("He is (was)", "Rome"),
    ("„Rom“", "Paris"),
    ("The capital is", "北京"),
    ("수도는", "서울"),
    ("2 + 2 =", "4"),
    ("वह „की“", "Rome"),
    ("city:", "Rome"),
    ("She was born in the old town of 東京", "Rome"),
]
NOTHING = [
    ("The capital is ", "Rome"),
    ("The capital is\n", "Rome"),
    ("首都是", "北京"),
    ("首都是：", "Paris"),
    ("埃菲尔铁塔位于 X", "巴黎"),
    ("日本の首都は", "東京"),
    ("iPhone的制造商是", "Apple"),
    ("हिन्दी是什么", "Rome"),
    ("She was born in 東京", "東"),
    ("เมืองหลวงคือ", "กรุงเทพ"),
    ('{"city": "', "Paris"),
    ('{"city":"', "Paris"),
    ("The city (", "Paris"),
    ("print(", "Paris"),
    ("cities = ['", "Paris"),
    ("a list [", "Paris"),
    ("首都是“", "北京"),
    ("首都は「", "東京"),
    ("He said “", "Rome"),
    ("«", "Rome"),
    ("city=", "Paris"),
    ("see https://example.org/", "paris"),
    ("#", "Paris"),
]


@pytest.mark.parametrize(("prompt", "target"), SPACE)
def test_a_space_where_a_writer_puts_one(prompt, target):
    assert usual_separator(prompt, target) == " "


@pytest.mark.parametrize(("prompt", "target"), NOTHING)
def test_nothing_where_script_bracket_or_quote_want_none(prompt, target):
    assert join_target(prompt, target) == prompt + target


def text_of(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("separator", [None, "", " ", "\n", " -> "])
def test_the_text_that_is_optimized_and_the_one_that_is_measured_are_the_same(separator):
    tokenizer, decoder = make_tokenizer(), find_decoder(make_gpt2())
    request = make_request(prompt="The {} stands in", separator=separator)
    between = " " if separator is None else separator
    templates = ContextTemplates(("{}", "I think. {}"))
    rows = encode_texts(tokenizer, [request], templates, "{} is a", 64)
    expected = f"The Eiffel Tower stands in{between}Rome"
    assert [text_of(tokenizer, row.ids) for _, row in rows[:2]] == [expected, f"I think. {expected}"]
    record = evaluate(decoder, tokenizer, [request], EditMetrics())[0]["efficacy"][0]
    ids, start = encode_target(tokenizer, request.rewrite_prompt, "Rome", separator)
    assert text_of(tokenizer, ids) == expected
    with torch.no_grad():
        log_probs = decoder.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    wanted = torch.stack([log_probs[i - 1, ids[i]] for i in range(start, len(ids))]).mean()
    assert record["log_prob_new"] == pytest.approx(float(wanted), abs=1e-9)


def test_contexts_do_not_change_what_stands_before_the_answer():
    tokenizer = make_tokenizer()
    request = EditRequest("Toyota", 'Its {} says "', "Rome")
    rows = encode_texts(tokenizer, [request], ContextTemplates(("{}", '"You play. {}')), "{} is a", 64)
    assert [text_of(tokenizer, row.ids)[-6:] for _, row in rows[:2]] == [' "Rome', ' "Rome']
    chinese = EditRequest("iPhone 3", "{}", "苹果")
    assert separator_of(chinese) == " "
    rows = encode_texts(tokenizer, [chinese], ContextTemplates(("{}", "公司。{}")), "{} is a", 64)
    assert text_of(tokenizer, rows[1][1].ids).endswith("iPhone 3 苹果")


def edits(tmp_path, records, **settings):
    path = tmp_path / "edits.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return OwnEdits(str(path), **settings).requests


def test_the_setting_holds_for_records_without_a_column(tmp_path):
    record = {"subject": "Toyota", "prompt": "{} is in", "target_new": "Rome"}
    other = {"subject": "Anna", "prompt": "{} is in", "target_new": "Rome", "separator": ""}
    assert [r.separator for r in edits(tmp_path, [record, other])] == [None, ""]
    assert [r.separator for r in edits(tmp_path, [record, other], separator="\n")] == ["\n", ""]
    with pytest.raises(EditError, match="`separator` must be a text"):
        edits(tmp_path, [{**record, "separator": 3}])


def test_a_column_of_csv_whose_empty_cells_mean_what_is_usual(tmp_path):
    path = tmp_path / "edits.csv"
    path.write_text("subject,prompt,target_new,separator\nToyota,{} is in,Rome, -> \nAnna,{} is in,Rome,\n")
    assert [r.separator for r in OwnEdits(str(path)).requests] == [" -> ", None]


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("纽约市，", "纽约", True),
        ("他在纽约工作", "纽约", True),
        ("在东京", "纽约", False),
        ("それは東京です。", "東京", True),
        ("首都是Paris。", "Paris", True),
        ("首都是Parisien。", "Paris", False),
        (" Romeo", "Rome", False),
        (" Rome, Italy", "Rome", True),
        (" un cafe\u0301 noir", "caf\u00e9", True),
        (" un caf\u00e9 noir", "cafe\u0301", True),
        (" cafe", "caf\u00e9", False),
        # A particle follows right behind the word.
        ("서울은", "서울", True),
    ],
)
def test_a_match_in_any_script(text, target, expected):
    assert generated_match(text, target) is expected


def test_tokens_after_a_quote_are_those_of_the_plain_text(tiny_tokenizer):
    ids, start = encode_target(tiny_tokenizer, 'He said "', "cold")
    plain = tiny_tokenizer('He said "cold')["input_ids"]
    assert ids == plain
    assert tiny_tokenizer.decode(ids[start:]).endswith("cold")
