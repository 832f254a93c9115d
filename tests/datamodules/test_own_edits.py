"""A user's own edits, and the slips that are caught."""

import csv
import json
import time

import pytest
from datasets import Dataset

from lightning_edit.datamodules import OwnEdits
from lightning_edit.errors import EditError

EDIT = {"subject": "Anna", "prompt": "{} plays the", "target_new": "violin"}
FULL = EDIT | {
    "target_true": "piano",
    "case_id": 7,
    "paraphrase_prompts": ["Anna likes the", "Anna practices the"],
    "neighborhood_prompts": ["Bo plays the"],
    "attribute_prompts": ["Cid plays the"],
    "generation_prompts": ["Anna is known for"],
}


def write(tmp_path, content, name="edits.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def refusal(path):
    with pytest.raises(EditError) as error:
        OwnEdits(path).setup("fit")
    return str(error.value)


def test_json_json_lines_and_csv_say_the_same(tmp_path):
    cells = ['"' + "|".join(value) + '"' if isinstance(value, list) else str(value) for value in FULL.values()]
    paths = [
        write(tmp_path, [FULL], "a.json"),
        write(tmp_path, json.dumps(FULL) + "\n", "a.jsonl"),
        write(tmp_path, f"{','.join(FULL)}\n{','.join(cells).replace('|', ' | ')}\n", "a.csv"),
    ]
    (first,), (second,), (third,) = (OwnEdits(path).requests for path in paths)
    assert first == second == third
    assert (first.subject, first.target_true, first.case_id) == ("Anna", "piano", "7")
    assert first.paraphrase_prompts == ("Anna likes the", "Anna practices the")
    assert first.generation_prompts == ("Anna is known for",)


def test_three_fields_are_enough(tmp_path):
    text = "subject,prompt,target_new,target_true\nAnna,{} plays the,violin,\n"
    for path in (write(tmp_path, [EDIT | {"target_true": None}]), write(tmp_path, text, "a.csv")):
        (request,) = OwnEdits(path).requests
        assert (request.target_new, request.target_true, request.case_id) == ("violin", None, "")
        assert request.paraphrase_prompts == ()


def test_a_complete_prompt_is_cut(tmp_path):
    (request,) = OwnEdits(write(tmp_path, [EDIT | {"prompt": "Does anna play the"}])).requests
    assert (request.prompt, request.subject) == ("Does {} play the", "anna")


def test_a_bar_in_a_list_is_text(tmp_path):
    record = EDIT | {"paraphrase_prompts": ["a|b"], "locality": [["The sky is", "blue"]]}
    (request,) = OwnEdits(write(tmp_path, [record])).requests
    assert request.paraphrase_prompts == ("a|b",)
    assert request.locality == (("The sky is", "blue"),)


def test_a_forgotten_subject_is_told_by_its_hole(tmp_path):
    path = write(tmp_path, [EDIT, {"prompt": "{} plays the", "target_new": "violin"}])
    assert refusal(path) == (
        f"{path}, record 2: the prompt '{{}} plays the' holds {{}}, where a subject goes, and the record has none. "
        "Give it a `subject`; an edit without a subject has a complete prompt, without {}."
    )


def test_holes_in_a_cell_of_paraphrases_are_the_subject(tmp_path):
    rows = "subject,prompt,target_new,paraphrase_prompts\nAnna,{} plays the,violin,{} likes the|Every day {} plays the"
    (request,) = OwnEdits(write(tmp_path, rows, "a.csv")).requests
    assert request.paraphrase_prompts == ("Anna likes the", "Every day Anna plays the")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("target", "target_new"),
        ("Subject", "subject"),
        ("prompts", "prompt"),
        ("paraphrases", "paraphrase_prompts"),
        ("neighbourhood_prompts", "neighborhood_prompts"),
        ("caseid", "case_id"),
    ],
)
def test_a_slip_of_the_pen_is_refused(tmp_path, name, meant):
    message = refusal(write(tmp_path, [EDIT | {name: "x"}]))
    assert (
        f"edits.json, record 1: unknown field {name!r}: did you mean {meant!r}? Accepted: subject, prompt," in message
    )


def test_other_fields_are_not_read_but_named_once(tmp_path, caplog):
    path = write(tmp_path, [EDIT | {"notes": "x"}, EDIT | {"notes": "y", "subject": "Bo"}])
    assert len(OwnEdits(path).requests) == 2
    assert caplog.text.count("1 field is not read, being none of subject,") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "Bo plays the"}, "the prompt 'Bo plays the' holds neither {} nor the subject 'Anna'."),
        ({"prompt": "{} and {}"}, "exactly one {} where the subject goes, got 2"),
        ({"prompt": None}, "`prompt` must be a text that is not empty, got None."),
        ({"target_new": 5}, "`target_new` must be a text that is not empty, got 5."),
        ({"target_true": "violin"}, "nothing to edit"),
        ({"paraphrase_prompts": [3]}, "`paraphrase_prompts` must be a list of texts"),
        ({"paraphrase_prompts": 3}, "`paraphrase_prompts` must be a text or a list of texts, got 3."),
        ({"locality": "The sky is"}, "`locality` must hold pairs"),
        ({"case_id": ["a"]}, "`case_id` must be a text or a number, got ['a']."),
        ({"case_id": True}, "`case_id` must be a text or a number, got True."),
        ({"locality": 3}, "`locality` must be a text or a list of texts, got 3."),
    ],
)
def test_bad_edits_are_refused_by_name(tmp_path, changes, message):
    found = refusal(write(tmp_path, [EDIT | {"subject": "Bo"}, EDIT | changes]))
    assert found.startswith(f"{tmp_path}/edits.json, record 2: ")
    assert message in found


def test_a_bad_row_is_refused_by_line(tmp_path):
    path = write(tmp_path, "subject,prompt,target_new\nAnna,{} plays the,violin\nBo,{} plays the,\n", "a.csv")
    assert refusal(path) == f"{path}, line 3: the field 'target_new' is missing."


@pytest.mark.parametrize("rows", [1, 2])
def test_a_table_without_a_header_is_told_what_to_write(tmp_path, rows):
    path = write(tmp_path, "Anna,{} plays the,violin\n" * rows, "a.csv")
    assert refusal(path).endswith("taken for the header; if it is a record, write subject,prompt,target_new above it.")


def test_spaces_behind_commas_are_no_part_of_cells(tmp_path):
    rows = 'subject, prompt, target_new, answer\nAnna, {} plays the, violin, "The violin, often."\n'
    (request,) = OwnEdits(write(tmp_path, rows, "a.csv")).requests
    assert (request.subject, request.prompt, request.target_new) == ("Anna", "{} plays the", "violin")
    assert request.answer == "The violin, often."


def test_a_line_break_is_spelled_in_the_setting_as_in_a_cell(tmp_path):
    file = tmp_path / "facts.csv"
    file.write_text("subject,prompt,target_new\nAnna,{} plays the,violin\n")
    [request] = OwnEdits(str(file), separator="\\n").requests
    assert request.separator == "\n"


def test_a_line_break_as_separator_and_bars_stand_in_cells(tmp_path):
    rows = 'subject,prompt,target_new,separator,paraphrase_prompts\nAnna,{} plays the,violin,\\n,"[""a|b"", ""c""]"\n'
    (request,) = OwnEdits(write(tmp_path, rows, "a.csv")).requests
    assert request.separator == "\n" and request.paraphrase_prompts == ("a|b", "c")


def test_a_cell_may_be_long(tmp_path):
    target = "violin " * 30_000
    rows = f"subject,prompt,target_new\nAnna,{{}} plays the,{target}\n"
    (request,) = OwnEdits(write(tmp_path, rows, "a.csv")).requests
    assert request.target_new == target.strip()


def test_edits_of_a_known_data_set_get_a_hint(tmp_path):
    record = EDIT | {"ground_truth": "piano", "rephrase_prompt": "Anna likes the"}
    assert refusal(write(tmp_path, [record])).endswith("give --data EasyEditCounterFact.")
    record = {"requested_rewrite": EDIT, "case_id": 1}
    assert refusal(write(tmp_path, [record])).endswith("give --data CounterFact.")


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_other_delimiters_are_read(tmp_path, delimiter, suffix):
    rows = "subject,prompt,target_new\nAnna,{} plays the,violin\n".replace(",", delimiter)
    assert OwnEdits(write(tmp_path, rows, f"a.{suffix}")).requests[0].target_new == "violin"


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t"), ("csv", ";")])
@pytest.mark.parametrize("before", ["", "\n", " \r\n\n", "SEPSEP\n"])
def test_empty_lines_before_the_header_do_not_count(tmp_path, suffix, delimiter, before):
    rows = (before + "subjectSEPpromptSEPtarget_new\nBoSEP{} plays theSEP\n").replace("SEP", delimiter)
    path = write(tmp_path, rows, f"a.{suffix}")
    assert refusal(path) == f"{path}, line {2 + before.count(chr(10))}: the field 'target_new' is missing."


def test_tabs_come_first_in_a_file_of_tabs(tmp_path):
    rows = "subject\tprompt\ttarget_new\tnotes, and more\nBo\t{} says, in short,\tno\tx\n"
    assert OwnEdits(write(tmp_path, rows, "a.tsv")).requests[0].prompt == "{} says, in short,"


@pytest.mark.parametrize(
    ("given", "name"), [(1.0, "1"), (1.5, "1.5"), (1, "1"), ("1.0", "1.0"), (1e300, str(int(1e300)))]
)
def test_a_whole_number_is_one_name(tmp_path, given, name):
    (request,) = OwnEdits(write(tmp_path, [EDIT | {"case_id": given}]), case_ids=[name]).requests
    assert request.case_id == name


def test_numbers_of_a_column_with_gaps_are_found(tmp_path):
    rows = [EDIT | {"case_id": 1.0}, EDIT | {"subject": "Bo", "case_id": None}]
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    assert [one.subject for one in OwnEdits(str(tmp_path / "a.parquet"), case_ids=[1]).requests] == ["Anna"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("a|b | c", ("a", "b", "c")),
        ("<|im_start|>user\nHi<|im_end|>", ("<|im_start|>user\nHi<|im_end|>",)),
        ("<|user|>a<|end|>|<|user|>b<|end|>", ("<|user|>a<|end|>", "<|user|>b<|end|>")),
        ('["if a || b", "c"]', ("if a || b", "c")),
        ("[INST] a [/INST]|[x]", ("[INST] a [/INST]", "[x]")),
        ("|", ()),
        ("[]", ()),
        (" [ ] ", ()),
        ("[1999] was his year", ("[1999] was his year",)),
    ],
)
@pytest.mark.parametrize("in_csv", [False, True])
def test_the_bars_of_chat_markup_separate_nothing(tmp_path, cell, expected, in_csv):
    if in_csv:
        with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*EDIT, "paraphrase_prompts"])
            writer.writeheader()
            writer.writerow(EDIT | {"paraphrase_prompts": cell})
        path = str(tmp_path / "a.csv")
    else:
        path = write(tmp_path, [EDIT | {"paraphrase_prompts": cell}])
    assert OwnEdits(path).requests[0].paraphrase_prompts == expected


@pytest.mark.parametrize(
    "cell",
    ["['a', 'b']", "['a']", "[\"it's\", 'b']", "[('The sky is', 'blue')]", '[("a", "b")]', "['a' 'b']", "[1, None]"],
)
@pytest.mark.parametrize("name", ["locality", "paraphrase_prompts"])
def test_a_list_as_python_writes_it_is_refused(tmp_path, name, cell):
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*EDIT, name])
        writer.writeheader()
        writer.writerow(EDIT | {name: cell})
    found = refusal(str(tmp_path / "a.csv"))
    assert found.startswith(f"{tmp_path}/a.csv, line 2: `{name}`")
    assert found.endswith("Write a list as JSON, with double quotes, as `json.dumps` does.")


def test_locality_pairs_stand_in_a_cell_as_json(tmp_path):
    rows = 'subject,prompt,target_new,locality\nAnna,{} plays the,violin,"[[""The sky is"", ""blue""]]"\n'
    assert OwnEdits(write(tmp_path, rows, "a.csv")).requests[0].locality == (("The sky is", "blue"),)
    broken = rows.replace('""blue""]]', '""blue"" ')
    assert "b.csv, line 2: `locality`, line 1, column 24: not JSON" in refusal(write(tmp_path, broken, "b.csv"))


def test_a_prompt_with_a_hole_and_the_subject_is_warned_of_once(tmp_path, caplog):
    prompts = ["In Python, {} is an empty dict; Bo plays the", "Bo and {} is", "{} plays the", "Bob says {} is"]
    edits = OwnEdits(write(tmp_path, [EDIT | {"subject": "Bo", "prompt": prompt} for prompt in prompts])).requests
    assert [edit.prompt for edit in edits] == prompts
    (said,) = [entry.getMessage() for entry in caplog.records]
    assert said.startswith("2 prompts hold both {} and the subject; {} is taken for the subject's place")
    assert "('In Python, {} is an empty dict; Bo plays the', 'Bo and {} is')" in said


def test_the_edited_prompt_among_its_neighbors_is_warned_of(tmp_path, caplog):
    others = [{"neighborhood_prompts": ["Bo plays the", "Anna plays the"]}, {"attribute_prompts": ["Anna plays the "]}]
    others += [{"locality": [["Anna plays the", "piano"]]}, {"neighborhood_prompts": ["Bo plays the"]}]
    records = [EDIT | other | {"prompt": "{} plays the" + " " * place} for place, other in enumerate(others)]
    OwnEdits(write(tmp_path, records), conflicts="keep_first").setup("fit")
    assert "3 edits have the edited prompt itself among its prompts about others" in caplog.text


def test_many_unknown_columns_get_one_short_warning(tmp_path, caplog):
    began = time.monotonic()
    record = EDIT | {f"column {i} {'x' * 50}": "a" for i in range(20_000)} | {"y" * 1_000_000: "a"}
    assert len(OwnEdits(write(tmp_path, [record] * 3)).requests) == 1
    found = [entry.getMessage() for entry in caplog.records if "field" in entry.getMessage()]
    assert len(found) == 1
    assert found[0].startswith("20,001 fields are not read, being none of subject, prompt,")
    assert found[0].endswith("and 19,998 more).")
    assert len(found[0]) < 1000
    assert time.monotonic() - began < 5


def test_a_very_long_text_is_quoted_in_short(tmp_path):
    found = refusal(write(tmp_path, [EDIT | {"subject": "x" * 100_000, "prompt": "y" * 100_000}]))
    assert "(100,000 characters)" in found
    assert found.endswith("Put {} where the subject goes.")
    assert len(found) < 1000


def test_a_contradiction_names_both_lines(tmp_path):
    rows = "subject,prompt,target_new\nBo,{} plays the,violin\nAnna,{} plays the,tuba\nBo,{} plays the,piano\n"
    path = write(tmp_path, rows, "a.csv")
    found = refusal(path)
    assert found.startswith(f"the edit of 'Bo' ({path}, line 2) and the edit of 'Bo' ({path}, line 4) ask for")


@pytest.mark.parametrize("text", ["A\\ud800B", "\\udfff"])
def test_half_a_character_is_refused_as_the_file_is_read(tmp_path, text):
    for name in ("subject", "prompt", "target_new", "target_true", "case_id", "paraphrase_prompts", "notes"):
        content = json.dumps([EDIT | {name: "TEXT"}]).replace("TEXT", text)
        found = refusal(write(tmp_path, content))
        assert f"edits.json, record 1, field {name!r}: the text '{text}' holds half of a surrogate pair" in found
