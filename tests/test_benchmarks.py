"""The benchmarks run, and their floors count what they say."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_edit.asking.tokenization import encode_subject, encode_target
from lightning_edit.errors import EditError
from lightning_edit.models.decoder import find_decoder
from lightning_edit.values.optimize import optimize_values
from tests.benchmarks import page, size
from tests.benchmarks.__main__ import main
from tests.benchmarks.floor import Sizes, key_flops, score_flops, solve_flops, text_flops, value_flops
from tests.benchmarks.gpu import main as measure_sizes
from tests.benchmarks.material import SHAPES, Choice, invented_requests, load
from tests.benchmarks.values import settings
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

LAYER = 0


def shrunk(name="llama-3-8b", edits=6):
    case = load(Choice(name, edits, shrunk=True), torch.float32)
    return case, find_decoder(case.model)


def counted(job):
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", SHAPES)
def test_a_forward_pass_has_the_operations_that_torch_counts(name):
    case, decoder = shrunk(name)
    case.model.set_attn_implementation("eager")
    if name == "qwen3-30b-a3b":
        # The counter knows no grouped products.
        case.model.set_experts_implementation("batched_mm")
    sizes, tokens = Sizes.of(decoder), 7
    found = counted(lambda: case.model(torch.arange(tokens)[None]))
    # Without a kernel for it, attention also multiplies what the mask then hides.
    hidden = sum(4 * width * tokens * (tokens - 1) / 2 for width in sizes.mixed)
    wanted = sizes.run(0, tokens) + 2 * tokens * sizes.head + hidden
    # The angles of rotary positions are a matrix product to torch.
    assert wanted <= found <= 1.001 * wanted
    assert sizes.run(0, 3) + sizes.run(3, tokens) == sizes.run(0, tokens)
    assert sizes.run(0, tokens, 0, 1) + sizes.run(0, tokens, 1) == sizes.run(0, tokens)


def token_by_token(sizes, first, last=None):
    """Operations of one token, by its position, in some blocks."""

    def cost(position):
        blocks = zip(sizes.linear[first:last], sizes.mixed[first:last], strict=True)
        return sum(2 * linear + 4 * mixed * (position + 1) for linear, mixed in blocks)

    return cost


def test_values_need_shared_prefixes_once_and_upper_blocks_in_each_pass():
    case, decoder = shrunk()
    sizes, wanted = Sizes.of(decoder), settings(3)
    everywhere, lower, upper = (token_by_token(sizes, *part) for part in ((0,), (0, LAYER + 1), (LAYER + 1,)))
    passes, expected, known = [3, 1, 2, 3, 3, 2], 0, [set() for _ in range(len(case.templates.texts) + 1)]
    for request, count in zip(case.requests, passes, strict=True):
        texts = [
            encode_subject(case.tokenizer, text, request.subject, request.target_new)
            for text in case.templates.apply(request.prompt)
        ]
        texts.append(encode_subject(case.tokenizer, wanted.kl_prompt, request.subject))
        for which, text in enumerate(texts):
            head = len(case.tokenizer(case.templates.texts[which].removesuffix(" {}"))["input_ids"]) if which < 6 else 0
            for place in range(text.subject_last):
                if which in (0, 6) or place >= head or place not in known[which]:
                    expected += everywhere(place)
                known[which].add(place)
            targets = len(text.ids) - text.target_start
            end = len(text.ids) - 1 if targets else text.subject_last + 1
            for place in range(text.subject_last, end):
                expected += lower(place) + (2 * count - 1) * upper(place)
            expected += (2 * count - 1) * 2 * sizes.head * (targets or 1)
    found = value_flops(decoder, case.tokenizer, case.requests, case.templates, LAYER, wanted, passes)
    assert found == pytest.approx(expected)


def test_the_library_does_not_do_less_than_the_floor_of_values():
    case, decoder = shrunk()
    arguments = (decoder, case.tokenizer, case.requests, case.templates, LAYER, settings(4))
    needed = value_flops(*arguments)
    # Left out of the count: of the highest block's prefixes only keys and values are needed.
    assert 0.8 * needed < counted(lambda: optimize_values(*arguments)) < 3 * needed


def test_keys_need_texts_up_to_the_subject_and_not_the_way_down():
    case, decoder = shrunk(edits=1)
    request, sizes, down = case.requests[0], Sizes.of(decoder), decoder.down_projection(LAYER).weight.numel()
    expected = 0
    for text in case.templates.apply(request.prompt):
        tokens = encode_subject(case.tokenizer, text, request.subject).subject_last + 1
        expected += sizes.run(0, tokens, 0, LAYER + 1) - 2 * down * tokens
    assert key_flops(decoder, case.tokenizer, case.requests, case.templates, LAYER) == pytest.approx(expected)
    twice = key_flops(decoder, case.tokenizer, case.requests * 2, case.templates, LAYER)
    assert twice == pytest.approx(expected)


def test_evaluation_reads_each_beginning_once():
    case, decoder = shrunk()
    sizes, cost = Sizes.of(decoder), token_by_token(Sizes.of(decoder), 0)
    pairs = [("Anna Lugones was born in", answer) for answer in ("Rome", "Lima")] + [("Anna Lugones", "Oslo")]
    encoded = [encode_target(case.tokenizer, *pair) for pair in pairs]
    read = {tuple(ids[: end + 1]) for ids, _ in encoded for end in range(len(ids) - 1)}
    asked = {tuple(ids[:end]) for ids, start in encoded for end in range(start, len(ids))}
    expected = sum(cost(len(row) - 1) for row in read) + 2 * sizes.head * len(asked)
    assert score_flops(decoder, case.tokenizer, pairs * 2) == pytest.approx(expected)
    texts = text_flops(decoder, [[5, 6, 7], [5, 6, 7]], 10)
    assert texts == pytest.approx(sizes.run(0, 9) + sizes.run(3, 9) + 2 * 2 * 7 * sizes.head)


def test_solving_needs_the_smaller_form():
    d_in, d_out = 3072, 768
    assert solve_flops(0, d_in, d_out) == pytest.approx(d_in**3 / 3, rel=0.01)
    assert solve_flops(1, d_in, d_out, factored=True) < 3 * d_in**2
    # Twice as many edits cost at most twice as much beyond d_in, where their number only adds products.
    assert solve_flops(8 * d_in, d_in, d_out) < 2 * solve_flops(4 * d_in, d_in, d_out)


def test_ten_thousand_edits_are_different():
    requests = invented_requests(10_000)
    assert len({request.subject for request in requests}) == 10_000
    assert max(len(request.subject.split()) for request in requests[:512]) >= 2


def test_both_numbers_of_each_stage_are_written(tmp_path):
    output = tmp_path / "benchmarks.json"
    words = ["--quick", "--here", "--models", "tiny", "--edits", "4", "--output", str(output)]
    main([*words, "--only", "values", "gradients", "keys", "whole"])
    found = json.loads(output.read_text())
    for name in ("values", "gradients", "keys", "whole"):
        models = {row["model"] for row in found[name]["timed"]}
        assert models == {"the shipped tiny model"}
        for row in found[name]["timed"]:
            assert row["seconds"] > 0
            assert 0 < row["floor_fraction"] < 1.5
            assert math.isclose(row["floor_fraction"], row["floor_seconds"] / row["seconds"])
        assert {row["relative_error_float64"] < 1e-9 for row in found[name]["compared"]} == {True}


def test_models_of_published_sizes_are_measured_in_small(tmp_path):
    output = tmp_path / "gpu.json"
    few = ["--edits", "3", "--gradient_edits", "10", "20", "--tokens", "512", "--solved", "2"]
    measure_sizes(["--device", "cpu", "--shrunk", "--here", *few, "--output", str(output)])
    models = json.loads(output.read_text())["models"]
    assert len(models) == 4
    for found in models.values():
        rows = [row for part in found.values() if isinstance(part, list) for row in part]
        assert len(rows) >= 5
        assert not [row for row in rows if "error" in row]
        assert all(row["seconds"] > 0 for row in rows)


def test_a_stage_that_fails_is_reported_and_the_others_go_on(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such thing")

    monkeypatch.setattr("tests.benchmarks.keys.measure", fail)
    output = tmp_path / "gpu.json"
    few = ["--models", "llama-3-8b", "--edits", "2", "--gradient_edits", "10", "--tokens", "512", "--solved", "2"]
    with pytest.raises(SystemExit, match=r"These stages failed: .*keys"):
        measure_sizes(["--device", "cpu", "--shrunk", "--here", *few, "--output", str(output)])
    (found,) = json.loads(output.read_text())["models"].values()
    assert found["keys"] == [{"error": "RuntimeError: no such thing"}]
    assert found["second moments"][0]["seconds"] > 0


def test_the_script_for_a_bare_machine_runs_in_small(tmp_path):
    few = [
        "--models",
        "gpt2-xl",
        "--edits",
        "2",
        "--gradient_edits",
        "10",
        "--tokens",
        "512",
        "--solved",
        "2",
        "--here",
    ]
    done = subprocess.run(
        ["bash", str(ROOT / "tests" / "benchmarks" / "gpu.sh"), "--device", "cpu", "--shrunk", *few],
        env={**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "gpu.json").read_text())["models"]) == 1


def test_what_an_edit_costs_over_size_is_fitted(tmp_path):
    output = tmp_path / "size.json"
    main(["--quick", "--here", "--models", "tiny", "--only", "size", "--output", str(output)])
    found = json.loads(output.read_text())["size"]
    assert {row["axis"] for row in found["timed"]} == {size.PARAMETERS, size.EDITS, size.LAYERS, size.ANSWER}
    assert all(row["seconds"] > 0 for row in found["timed"])
    assert size.power([1, 10, 100], [2.0, 20.0, 200.0]) == pytest.approx(1)
    assert size.power([4, 16], [6.0, 12.0]) == pytest.approx(0.5)
    assert size.power([4], [6.0]) is None


def test_the_page_shows_the_figures_of_its_files():
    shown = page.PART.search(page.PAGE.read_text(encoding="utf-8"))
    assert shown is not None and shown[0] == page.part(), "run `python -m tests.benchmarks.page`"


def test_a_quick_run_is_not_taken_for_the_page(tmp_path):
    file = tmp_path / "quick.json"
    file.write_text('{"quick": true}')
    with pytest.raises(EditError, match="not for quoting"):
        page.main([str(file), "--name", "here"])
    with pytest.raises(EditError, match="small letters"):
        page.main(["--name", "../here"])


def test_figures_of_other_stages_stay_where_the_machine_is_the_same():
    former = {
        "date": "1",
        "machine": {"processor": "a", "load_at_start": 2.0},
        "size": {"timed": [1]},
        "keys": {"timed": [2]},
    }
    new = {"date": "2", "machine": {"processor": "a", "load_at_start": 0.1}, "keys": {"timed": [3]}}
    assert page.taken_in(new, former) == {**new, "size": {"timed": [1]}}
    assert page.taken_in({**new, "machine": {"processor": "b"}}, former) == {**new, "machine": {"processor": "b"}}
    assert page.taken_in(new, {}) == new
