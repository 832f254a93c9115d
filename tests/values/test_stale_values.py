"""A changed input never finds values that were found for another one; one that changes nothing finds them."""

import typing
from dataclasses import fields, replace

import pytest
import torch
from tokenizers import AddedToken, normalizers

from lightning_edit import ContextTemplates, ValueSettings
from lightning_edit.settings import compared_fields
from lightning_edit.values.cache import NOT_COUNTED
from tests.cached_run import Run, same_bits
from tests.small_models import make_gpt2, make_llama, make_request, make_tokenizer

OF_DESCENT = ("radius", "growth")


def perturbed(name):
    """The settings with the least possible change of one field, by its type: fields to come are covered as well."""
    hint, value = typing.get_type_hints(ValueSettings)[name], getattr(ValueSettings(steps=2), name)
    kinds = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return next(kind for kind in kinds if kind != value)
    if type(None) in kinds:
        samples = {int: 1, float: 0.5, str: "text"}
        return samples[next(kind for kind in kinds if kind in samples)] if value is None else None
    changes = {
        bool: lambda: not value,
        int: lambda: value + 1,
        float: lambda: float(torch.tensor(value, dtype=torch.float64).nextafter(torch.tensor(9e9).double())),
        str: lambda: value + " ",
    }
    return changes[type(value)]()


def set_field(name):
    beside = {"optimizer": "descent"} if name in OF_DESCENT else {}
    return lambda run: setattr(run, "settings", replace(run.settings, **{name: perturbed(name)}, **beside))


def flip(name):
    """Flips the last bit of one number of a weight."""

    def change(run):
        parameter = run.model.get_parameter(name)
        parameter.data.view(torch.int64).view(-1)[3] ^= 1

    return change


def edited_after_the_start(run):
    run.start()
    flip("transformer.h.0.mlp.c_proj.weight")(run)


def backend(**changes):
    def change(run):
        for name, value in changes.items():
            setattr(run.tokenizer.backend_tokenizer, name, value)

    return change


def put(name, value):
    return lambda run: setattr(run, name, value)


def edits(choose):
    return lambda run: setattr(run, "requests", choose(run.requests))


FREE = {"cache_dir", *NOT_COUNTED}
CHANGES = {
    **{f"settings.{f.name}": set_field(f.name) for f in fields(ValueSettings) if f.name not in FREE},
    "one template more": put("templates", ContextTemplates(("{}", "I think. {}", "You. {}"))),
    "another template": put("templates", ContextTemplates(("{}", "I think.  {}"))),
    "order of templates": put("templates", ContextTemplates(("{}", "You. {}", "I think. {}"))),
    "average": put("templates", ContextTemplates(("{}", "I think. {}"), "flat")),
    "bos": put("tokenizer", make_tokenizer(bos=True)),
    "normalizer": backend(normalizer=normalizers.Lowercase()),
    "added token": lambda run: run.tokenizer.add_tokens([AddedToken("Eiffel")]),
    "split special tokens": lambda run: setattr(run.tokenizer, "split_special_tokens", True),
    "bit of the embedding": flip("transformer.wte.weight"),
    "bit of a norm above": flip("transformer.ln_f.bias"),
    "bit of an edited layer": flip("transformer.h.1.mlp.c_proj.weight"),
    "bit of an edited layer during the run": edited_after_the_start,
    "configuration": lambda run: setattr(run.model.config, "layer_norm_epsilon", 2e-5),
    "precision": put("model", make_gpt2(torch.float32)),
    "another model": put("model", make_llama()),
    "attention": lambda run: run.model.set_attn_implementation("eager"),
    "layer": put("layer", 0),
    "subject": edits(lambda all: [make_request(subject="Eiffel"), *all[1:]]),
    "prompt": edits(lambda all: [make_request(prompt="The {} is located in  the city of"), *all[1:]]),
    "target": edits(lambda all: [make_request(target_new="London"), *all[1:]]),
    "order of edits": edits(lambda all: all[::-1]),
    "one edit less": edits(lambda all: all[:-1]),
    "one edit more": edits(lambda all: [*all, make_request(subject="Toyota")]),
    "one edit twice": edits(lambda all: [*all, all[-1]]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_input_finds_no_stale_values(tmp_path, change):
    first, _ = Run(tmp_path).values()
    run = Run(tmp_path)
    change(run)
    values, hit = run.values()
    assert not hit
    again, hit = run.values()
    assert hit
    assert same_bits(values, again)
    unchanged, hit = Run(tmp_path).values()
    assert hit
    assert same_bits(first, unchanged)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_no_two_changes_share_a_file(tmp_path):
    Run(tmp_path).values()
    for change in CHANGES.values():
        run = Run(tmp_path)
        change(run)
        assert not run.values()[1]
    assert len(list(tmp_path.iterdir())) == len(CHANGES) + 1


def padded_before(run):
    run.tokenizer(["one", "and two"], padding=True, truncation=True, max_length=3)


NO_CHANGES = {
    "nothing": lambda run: None,
    "folder of the cache": lambda run: setattr(run, "settings", replace(run.settings, cache_dir="elsewhere")),
    **{f"settings.{name}": set_field(name) for name in sorted(NOT_COUNTED)},
    "layers below that are to be edited": put("layers", [1]),
    "padding side": put("tokenizer", make_tokenizer(padding_side="left")),
    "padding token": lambda run: setattr(run.tokenizer, "pad_token", "<s>"),
    "an earlier padded call": padded_before,
    "where the model lies": lambda run: setattr(run.model.config, "_name_or_path", "elsewhere"),
    "training mode": lambda run: run.model.train(),
    "name and measurements of a record": edits(
        lambda all: [make_request(case_id="8", paraphrase_prompts=("Where is it?",)), *all[1:]]
    ),
}


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
def test_what_changes_no_value_does_not_count(tmp_path, change):
    first, _ = Run(tmp_path).values()
    run = Run(tmp_path)
    change(run)
    values, hit = run.values()
    assert hit
    assert same_bits(first, values)
    assert same_bits(values, Run().values()[0])


def test_a_learning_rate_that_nothing_takes_does_not_count(tmp_path):
    for lr in (0.5, 0.1):
        run = Run(tmp_path)
        run.settings = replace(run.settings, optimizer="descent", lr=lr)
        assert run.values()[1] == (lr == 0.1)


def test_layers_count_once_they_are_edited(tmp_path):
    runs = [Run(tmp_path), Run(tmp_path), Run(tmp_path)]
    for run, layers in zip(runs, ([0, 1], [1], [0, 1]), strict=True):
        run.layers = layers
        run.start()
        flip("transformer.h.1.mlp.c_proj.weight")(run)
    assert [run.values()[1] for run in runs] == [False, True, True]
    flip("transformer.h.0.mlp.c_proj.weight")(runs[2])
    assert not runs[2].values()[1]


def test_only_the_folder_of_the_cache_is_left_out_of_the_settings():
    assert {field.name for field in fields(ValueSettings)} - compared_fields(ValueSettings()).keys() == {"cache_dir"}
