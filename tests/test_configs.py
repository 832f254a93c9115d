"""Every shipped YAML through the real command line, on small models of the architecture that it names."""

import itertools
import json
import re
import shlex

import pytest
import yaml

from lightning_edit.cli import main as cli
from lightning_edit.configs import CONFIGS as SHIPPED
from lightning_edit.loading.pretrained import load_tokenizer
from lightning_edit.models.presets import Preset
from lightning_edit.tiny import MODELS, World
from tests import data_files
from tests.architectures import build

OTHER_FILES = {"tasks", "sweeps", "harness"}
CONFIGS = sorted(
    path for path in SHIPPED.rglob("*.yaml") if path.name != "default.yaml" and path.parent.name not in OTHER_FILES
)
FAMILIES = {
    "openai-community/gpt2": "GPT2",
    "TinyLlama": "Llama",
    "HuggingFaceTB/SmolLM2": "Llama",
    "HuggingFaceTB/SmolLM3": "SmolLM3",
    "microsoft/phi-2": "Phi",
    "microsoft/": "Phi3",
    "allenai/OLMo-2": "Olmo2",
    "ibm-granite": "Granite",
    "EleutherAI/gpt-j": "GPTJ",
    "EleutherAI/gpt-neox": "GPTNeoX",
    "meta-llama": "Llama",
    "mistralai": "Mistral",
    "Qwen/Qwen2.5": "Qwen2",
    "Qwen/Qwen3": "Qwen3",
    "google/gemma-2": "Gemma2",
    "google/gemma-3": "Gemma3Text",
}
# Settings besides model, solver and data of which every value is tried in a run.
KINDS = (
    *("model.post_processing.0", "model.independent_updates", "model.anchor"),
    *("model.layer_distribution", "model.second_moment.source"),
)
BLOCKS = 2  # of three: the last one cannot be edited


def flat(value, name=""):
    """Settings under dotted names, and of classes their last names, however they are nested."""
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        value = {str(position): entry for position, entry in enumerate(value)}
    if not isinstance(value, dict):
        return {name: value}
    found = {name: value["class_path"].rpartition(".")[2]} if "class_path" in value else {}
    inner = value.get("init_args", {}) if "class_path" in value else value
    for key, entry in inner.items():
        found |= flat(entry, f"{name}.{key}".lstrip("."))
    return found


def kinds_of(config):
    """The architecture, solver, kind of run and format of data of a file."""
    settings = flat(yaml.safe_load(config.read_text()))
    model = settings.get("model.model", "tiny")
    architecture = next((family for prefix, family in FAMILIES.items() if model.startswith(prefix)), model)
    names = ("data", "model", "model.solver", *KINDS)
    return {("architecture", architecture), *((name, str(settings.get(name))) for name in names)}


def one_of_each(configs):
    """A few files that have together all kinds that there are, the file with most of what is missing first."""
    kinds = {config: kinds_of(config) for config in configs}
    missing, chosen = set.union(*kinds.values()), []
    while missing:
        chosen.append(max(configs, key=lambda config: len(kinds[config] & missing)))
        missing -= kinds[chosen[-1]]
    return chosen


def counterfact(record):
    rewrite = {name: record[name] for name in ("subject", "prompt")}
    rewrite |= {name: {"str": record[name]} for name in ("target_new", "target_true")}
    prompts = {name: record[name] for name in record if name.endswith("_prompts")}
    return {"case_id": record["case_id"], "requested_rewrite": rewrite, **prompts}


def easyedit(record):
    return {
        "subject": record["subject"],
        "prompt": record["prompt"].format(record["subject"]),
        "target_new": record["target_new"],
        "ground_truth": record["target_true"],
        "rephrase_prompt": record["paraphrase_prompts"][0],
    }


def zsre(record):
    return {
        "subject": record["subject"],
        "src": record["prompt"].format(record["subject"]),
        "answers": [record["target_new"]],
        "rephrase": record["paraphrase_prompts"][0],
    }


FORMATS = {"CounterFact": counterfact, "EasyEditCounterFact": easyedit, "ZsRE": zsre, "OwnEdits": dict}
FORMATS |= {"UnKE": data_files.unke, "EditEverything": data_files.editeverything, "KnowEdit": data_files.knowedit}
FORMATS |= {"RippleEdits": data_files.rippleedits, "MQuAKE": data_files.mquake, "AKEW": data_files.akew}
FORMATS |= {"QAEdit": data_files.qaedit, "WikiBigEdit": data_files.wikibigedit, "FEVER": data_files.fever}
FORMATS |= {"UltraEditBench": data_files.ultraeditbench, "HalluEditBench": data_files.halluedit}
SOURCES = {"UnKE": "Windows", "EditEverything": "Windows", "FEVER": "Gradient", "UltraEditBench": "Gradient"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A function from a model's hub name to the folder of a small one of its architecture."""
    folder = tmp_path_factory.mktemp("models")

    def saved(name):
        family = next(family for prefix, family in FAMILIES.items() if name.startswith(prefix))
        if not (folder / family).is_dir():
            build(family, initializer_range=0.2).save_pretrained(folder / family)
            load_tokenizer("tiny").save_pretrained(folder / family)
        return str(folder / family)

    return saved


def smaller(settings, tmp_path, small):
    """What replaces the settings of a file that only a large machine with a network could run."""
    found = {"trainer.logger.save_dir": str(tmp_path), "trainer.callbacks": "[EditReport, RecordResults]"}
    found |= {"collateral.prompts": 0, "model.evaluation.generated_match": "false"}
    if settings.get("model") not in ("FineTuning", "LoRA", "InContext", "MemoryEditing"):
        found |= {"model.second_moment.tokens": 2000, "model.second_moment.cache_dir": str(tmp_path / "cache")}
        if settings.get("model") != "CrispEdit":
            found["model.values.steps"] = 5
            if settings.get("model.solver") != "Sum":
                found["model.solver.ridge"] = 0.01
    if settings.get("model.model", "tiny") not in MODELS:
        found |= {"model.model": small(settings["model.model"])}
        found["model.layers"] = list(range(min(len(settings["model.layers"]), BLOCKS)))
        if "model.solver.second_moment_weight" in settings:
            # What suits billions of parameters leaves nothing of an edit of a random model.
            found["model.solver.second_moment_weight"] = 1
        # A random model has nothing to lose, and what it says changes with any edit.
        found["watch.max_worse"] = "null"
    if settings.get("model.evaluation.generate"):
        found["model.evaluation.max_length"] = 24
    if settings.get("model.solver") == "AlphaEdit":
        found["model.solver.threshold"] = 10  # for the large keys of a random model
    if source := SOURCES.get(settings.get("data")):
        found["model.source"] = source
    if source == "Gradient":
        # As configs/solvers/ultraedit.yaml, with a step that suits prompts that the embedded model never saw.
        del found["model.solver.ridge"], found["model.values.steps"]
        found |= {"model.source.eta": 1e-4, "model.solver": "Ridge", "model.solver.ridge": 1.0}
    if settings.get("data", "TinyWorld") == "TinyWorld":
        return {**found, "data.edits": 2}
    records = tmp_path / "records.json"
    records.write_text(json.dumps([FORMATS[settings["data"]](record) for record in World.generate().records(2)]))
    return {**found, "data.path": str(records), "data.limit": 2, "data.preservation": "TinyWorldText"}


def log_probs(folder, stage):
    """What the model gave the new targets, in nats a token."""
    records = map(json.loads, (folder / "records.jsonl").read_text().splitlines())
    return [record["efficacy"][0]["log_prob_new"] for record in records if record["stage"] == stage]


FITTED = one_of_each(CONFIGS)
# Other architectures are edited in the tests of `models`.
SLOW = {"sphere", "revive", "memit_fe", "lyaplock", "evoedit", "simie", "nas", "memit_output", "crispedit"}
FITS = [
    pytest.param(path, marks=pytest.mark.slow) if path.parent.name == "models" or path.stem in SLOW else path
    for path in FITTED
]


@pytest.mark.parametrize("config", FITS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_two_real_edits_with_all_settings_of_the_file(config, tmp_path, small):
    settings = flat(yaml.safe_load(config.read_text()))
    changed = smaller(settings, tmp_path, small)
    cli.main(["fit", "--config", str(config), *(f"--{name}={value}" for name, value in changed.items())])

    resolved = flat(yaml.safe_load((tmp_path / "version_0" / "config.yaml").read_text()))
    kept = {name: value for name, value in settings.items() if not name.startswith(tuple(changed))}
    assert {name: resolved.get(name, "absent") for name in kept} == kept

    metrics = json.loads((tmp_path / "version_0" / "metrics.json").read_text())
    assert metrics["edits"] == 2
    before, after = (log_probs(tmp_path / "version_0", stage) for stage in ("before", "after"))
    assert sum(after) > sum(before) + 0.05
    assert ("generation_entropy" in metrics["after"]) == settings.get("model.evaluation.generate", False)


def parsed(command, monkeypatch, capsys):
    """The settings of a fit that is not run."""
    monkeypatch.chdir(SHIPPED.parent)
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", *command, "--print_config"])
    shown = capsys.readouterr()
    assert not left.value.code, shown.err
    return flat(yaml.safe_load(shown.out))


def untested(config):
    """Whether a file has the settings of another one at other layers."""
    return config.parent.name == "models" and Preset.read(config).status == "analogy"


# The fits above have taken the settings of theirs, but for those that make them small.
WITHOUT = {path for path in CONFIGS if (path in FITTED and path.parent.name != "models") or untested(path)}
PARSED = [pytest.param(path, marks=pytest.mark.slow) if path in WITHOUT else path for path in CONFIGS]


@pytest.mark.parametrize("config", PARSED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_all_settings_of_a_file_are_taken(config, monkeypatch, capsys):
    settings = flat(yaml.safe_load(config.read_text()))
    resolved = parsed(["--config", str(config)], monkeypatch, capsys)
    assert {name: resolved.get(name, "absent") for name in settings} == settings


def commands(config):
    """What the comments of a file tell to type: whole fits, and options to add to its own."""
    lines = [line.lstrip("# ") for line in config.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", "").replace("$n", "4")
    for line in re.sub(r"\n(?=--)", " --more ", text).splitlines():
        whole, options = line.partition("lightning-edit fit ")[2], line.partition(" --more ")[2].replace("--more ", "")
        if whole:
            yield shlex.split(whole)
        elif options:
            yield ["--config", str(config), *shlex.split(options)]


COMMANDS = [pytest.param(command, id=path.stem) for path in CONFIGS for command in commands(path)]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_in_comments_are_understood(command, monkeypatch, capsys):
    resolved = parsed(command, monkeypatch, capsys)
    given = {name.removeprefix("--"): value for name, value in itertools.pairwise(command) if name != "--config"}
    asked = {name: yaml.safe_load(value) for name, value in given.items() if name.startswith(("model", "data"))}
    assert {name: resolved.get(name, "absent") for name in asked} == asked


def test_commands_in_comments_are_found():
    assert len(COMMANDS) > 30
