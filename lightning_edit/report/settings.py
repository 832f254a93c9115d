"""How a run was made, in words: its method, its settings, its time, and how it is undone."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from lightning_edit.commands.comparison.methods import published
from lightning_edit.commands.comparison.runs import Run
from lightning_edit.commands.comparison.settings import LAYERS, METHOD, MODEL, ONCE
from lightning_edit.messages import counted, listed, quoted, updates_were
from lightning_edit.storage.run_files import MEMORIES, UPDATE

IN_CONTEXT, IN_MEMORY, TRAINED = ("InContext",), ("MemoryEditing",), ("FineTuning", "LoRA", "CrispEdit")
# Settings that any reader may ask for, and what the page calls them.
WORDS = {
    LAYERS: "Edited layers",
    "model.dtype": "Precision",
    "model.quantization": "Quantization",
    "model.chat": "Asked in a chat",
    "model.seed": "Seed of the run",
    "data.seed": "Seed of the data",
}
# What says nothing to a reader.
UNSAID = (None, "null", "auto")
STAGES = {
    "values": "Finding what each fact has to change",
    "second_moments": "Counting ordinary text",
    "solve": "Computing and writing the changes",
    "checkpoints": "Saving on the way",
    "evaluate": "Measuring before and after",
    "collateral": "Asking what else changed",
}
IN_PYTHON = "in Python: takes all facts out of a model that holds them"
_PATH = re.compile(r"(~|/|[A-Za-z]:\\)")
_LISTED = re.compile(r"""(['"])([^'"]+)\1""")


def without_folders(value: str) -> str:
    """A path on somebody's machine as its last part, also in a list; other texts as they are.

    Args:
        value: The value of a setting.
    """
    if value.startswith("["):
        return _LISTED.sub(lambda match: match[1] + without_folders(match[2]) + match[1], value)
    return PurePath(value.replace("\\", "/")).name or value if _PATH.match(value) else value


def model_of(run: Run) -> str:
    """The name of the edited model.

    Args:
        run: The run.
    """
    return without_folders(run.settings.get(MODEL, "")) or "a language model"


def changes_model(run: Run) -> bool:
    """Whether the method changes what the model says by itself, without the facts in front of a question.

    Args:
        run: The run.
    """
    return run.settings.get("model", "") not in IN_CONTEXT


def way_of_working(run: Run) -> str:
    """What the method does to the model, as the end of a sentence.

    Args:
        run: The run.
    """
    kind = run.settings.get("model", "")
    if kind in IN_CONTEXT:
        return "which changes nothing in the model: the facts are put in front of each question"
    if kind in IN_MEMORY:
        return "which keeps the facts in a memory beside the model and changes none of its own numbers"
    if kind in TRAINED:
        return "which trains the model on the facts"
    return "which computes a change of a few of the model's own numbers (its weights)"


def settings_of(run: Run, content: Mapping[str, Any], when: str | None) -> list[tuple[str, str]]:
    """The settings that any reader may ask for, with their names.

    Args:
        run: The run.
        content: Its ``metrics.json``.
        when: When its last update was written, if that is known.
    """
    known = run.settings
    once = "all in one update" if run.batch_size >= run.edits else f"{run.batch_size:,} in each update"
    rows = [
        ("Method", published(known[METHOD])),
        ("Model", model_of(run)),
        ("Facts", f"{run.edits:,}, {once}"),
        ("Data", _data(known)),
        *((word, _word(known[name])) for name, word in WORDS.items() if known.get(name) not in UNSAID),
        ("Finished", when or "not recorded"),
        ("Versions", _versions(content)),
    ]
    return [(name, value) for name, value in rows if value]


def _word(value: str) -> str:
    return {"true": "yes", "false": "no"}.get(value, without_folders(value.strip("[]")))


def _data(known: Mapping[str, str]) -> str:
    path = known.get("data.path")
    return f"{known.get('data', 'not recorded')}{f', {without_folders(path)}' if path not in (None, 'null') else ''}"


def _versions(content: Mapping[str, Any]) -> str:
    versions = content.get("versions")
    if not isinstance(versions, Mapping) or not versions:
        return "not recorded"
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def all_settings(run: Run) -> list[tuple[str, str]]:
    """Every setting that has an effect, under its own name.

    Args:
        run: The run.
    """
    shown = {name: value for name, value in run.settings.items() if name not in (METHOD, ONCE) or value != "null"}
    return sorted((name, without_folders(value)) for name, value in shown.items())


def seconds_of(run: Run) -> list[tuple[str, float]]:
    """Seconds of each stage, those that took none left out.

    Args:
        run: The run.
    """
    return [(STAGES.get(name, name.replace("_", " ")), value) for name, value in run.seconds.items() if value]


def warnings_of(run: Run, content: Mapping[str, Any], removed: list[int]) -> list[str]:
    """What must be known to read a run's figures rightly.

    Args:
        run: The run.
        content: Its ``metrics.json``.
        removed: The updates that were removed since.
    """
    found = []
    if content.get("stopped"):
        found.append(f"The run ended before all facts were written: {str(content['stopped']).rstrip('.')}.")
    if run.not_made:
        found.append(
            f"{counted(run.not_made, 'fact was', 'facts were')} not written, as the run ended before their turn. The "
            "figures count them as facts that are not there."
        )
    if run.left_out:
        found.append(f"{counted(run.left_out, 'fact')} could not be written, as no change to write was found.")
    unused = content.get("records_left_out")
    if isinstance(unused, Mapping) and unused:
        reasons = listed(f"{quoted(reason)}: {_number_of(names)}" for reason, names in unused.items())
        found.append(f"Not all records of the data could be used as facts ({reasons}).")
    if removed:
        found.append(
            f"Since the run was measured, {updates_were(removed)} taken out of the model again. The figures are those "
            "from before that."
        )
    return found


def _number_of(names: Any) -> str:
    """How many records a reason left out: which ones names their file, and that is on somebody's machine."""
    return f"{len(names) if isinstance(names, list) else 1:,}"


def undo_of(run: Run, updates: int) -> tuple[list[str], list[tuple[str, str]]]:
    """How the edits are undone: sentences, and commands with what each does.

    Args:
        run: The run.
        updates: How many updates it has kept, one by one.
    """
    folder = run.folder
    name = folder.resolve().name
    if run.settings.get("model") in IN_CONTEXT:
        return ["Nothing has to be undone: the model was not changed."], []
    if run.settings.get("model.independent_updates") == "true":
        return ["Nothing has to be undone: each update was tried on the original model, and none was kept."], []
    sentences = ["The original model is as it was: the run wrote its results into a folder of its own."]
    commands: list[tuple[str, str]] = []
    if (folder / MEMORIES).is_dir():
        sentences.append(f"The facts are in the folder {MEMORIES}. Without it the model is the original one.")
    elif (folder / "model").is_dir():
        sentences.append("The edited model is in the folder model. To undo everything, use the original model again.")
    else:
        sentences.append("To undo everything, use the original model again.")
    if (folder / UPDATE).is_file():
        sentences.append("The change alone is kept, too, so it can be taken out of a model that holds it, bit for bit.")
        file = json.dumps(f"{name}/update.safetensors", ensure_ascii=False)
        commands.append((f"lightning_edit.ModelUpdate.load({file}).remove(model)", IN_PYTHON))
    if updates:
        count = "one update" if updates == 1 else f"{updates:,} updates"
        sentences.append(f"The facts were written in {count}. Each can be taken out and put back by itself.")
        if updates > 1:
            sentences.append(
                "Later updates were made with the earlier ones in place. So only the last ones come out without a "
                "trace; when an earlier one is taken out, the command says how much of it is left in the later ones."
            )
        commands += [
            (f"lightning-edit updates list {shlex.quote(name)}", "shows which facts are in which update"),
            (f"lightning-edit updates remove {shlex.quote(name)} 1", "takes the first update out of the edited model"),
            (f"lightning-edit updates apply {shlex.quote(name)} 1", "puts it back"),
        ]
    return sentences, commands
