"""Parity with the published implementation, in float64 on a real trained model."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit import EMMET, MEMIT, ROME, ContextTemplates, EditRequest, ValueSettings
from lightning_edit.editor import Editor
from lightning_edit.keys.edit_keys import compute_keys
from lightning_edit.models.decoder import find_decoder
from lightning_edit.updates.edited_weights import EditedWeights

CASES = [
    "emmet_one_layer",
    "emmet_single_edit",
    "emmet_two_layers",
    "memit_published_value_settings",
    "memit_three_layers",
    "rome_sequential",
]


class GoldenCase:
    """One case of the reference outputs, with an editor set up as it says."""

    def __init__(self, shared, name):
        self.settings = json.loads((shared / "golden" / f"{name}.json").read_text())
        self.expected = load_file(shared / "golden" / f"{name}.safetensors")
        path = shared / "models" / "cf-gpt"
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
        self.decoder = find_decoder(model)
        self.layers = self.settings["layers"]
        moments = load_file(shared / "golden" / "second_moments.safetensors")
        self.requests = self._requests(shared)
        self.editor = Editor(
            weights=EditedWeights(self.decoder, self.layers),
            tokenizer=AutoTokenizer.from_pretrained(path),
            solver=self._solver(),
            layers=self.layers,
            templates=self._templates(),
            values=self._values(),
            moments={
                layer: next(t for n, t in moments.items() if n.endswith(str(layer))).double() for layer in self.layers
            },
        )

    def _requests(self, shared):
        records = {r["case_id"]: r for r in json.loads((shared / "data" / "counterfact_known.json").read_text())}
        chosen = [records[case]["requested_rewrite"] for case in self.settings["case_ids"]]
        return [EditRequest(r["subject"], r["prompt"], r["target_new"]["str"]) for r in chosen]

    def _solver(self):
        weight = self.settings["second_moment_weight"]
        return {
            "ROME": lambda: ROME(),
            "MEMIT": lambda: MEMIT(weight),
            "EMMET": lambda: EMMET(weight, emmet_lambda=self.settings["emmet_lambda"]),
        }[self.settings["algorithm"]]()

    def _templates(self):
        texts = tuple(text for group in self.settings["context_templates"] for text in group)
        return ContextTemplates(texts, "flat" if self.settings["algorithm"] == "ROME" else "nested")

    def _values(self):
        s = self.settings
        return ValueSettings(
            lr=s["lr"],
            steps=s["num_grad_steps"],
            weight_decay=s["weight_decay"],
            clamp_norm_factor=s["clamp_norm_factor"],
            kl_factor=s["kl_factor"],
            early_stop_loss=s["early_stop_loss"],
            site={"block output": "block", "mlp output": "mlp"}[s["value_site"]],
        )


def relative_error(actual, expected):
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


SLOW = {"emmet_two_layers", "memit_three_layers", "memit_published_value_settings"}
MARKED = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES]


@pytest.mark.parametrize("name", MARKED)
def test_values_keys_and_updates_agree_with_the_published_code(shared, name):
    case = GoldenCase(shared, name)
    editor, errors = case.editor, {}
    if case.settings["sequential"]:
        for request in case.requests:
            editor.write([request], editor.find_values([request]).z)
    else:
        values = editor.find_values(case.requests)
        errors["values"] = relative_error(values.z, case.expected["values"])
        editor.write(case.requests, values.z)
    added = editor.weights.added
    if not case.settings["sequential"]:
        # Keys of a layer are those of the model with the layers below written, which no longer depend on later ones.
        for layer in case.layers:
            keys = compute_keys(case.decoder, editor.tokenizer, case.requests, editor.templates, layer)
            errors[f"keys.{layer}"] = relative_error(keys.mean.T, case.expected[f"keys.{layer}"])
    assert all(error <= 1e-5 for error in errors.values()), errors
    for layer in case.layers:
        errors[f"update.{layer}"] = relative_error(added[layer].dense(), case.expected[f"update.{layer}"])
    assert all(errors[f"update.{layer}"] <= 1e-4 for layer in case.layers), errors
