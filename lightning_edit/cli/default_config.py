"""``configs/default.yaml``, made from the defaults and explanations of the settings themselves.

``python -m lightning_edit.cli.default_config`` writes it anew.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import docstring_parser
import yaml

from lightning_edit.callbacks import Collateral, Downstream, EditCheckpoint, Harness, Retention, Watch
from lightning_edit.datamodules import TinyWorld
from lightning_edit.run.module import EditingModule
from lightning_edit.settings import accepted
from lightning_edit.solvers import EMMET
from lightning_edit.storage.atomic import atomic_path

FILE = Path(str(files("lightning_edit.configs"))) / "default.yaml"
WIDTH = 120
HEADER = """# The embedded example: 64 facts of a small fictional world, written into the small model that learned it.
# Made from the settings' own defaults and explanations by `python -m lightning_edit.cli.default_config`.
seed_everything: 0
weights_only: true  # no code is ever run from a checkpoint
"""
# What the example needs and a setting has no default for.
EXAMPLE = {"model": "tiny", "solver": EMMET()}
CALLBACKS = {
    "downstream": (Downstream, "few-shot tasks before, during and after editing"),
    "harness": (Harness, "tasks of lm-evaluation-harness; pip install 'lightning-edit[harness]'"),
    "collateral": (Collateral, "what else changed: general prompts and probes made from the edits, before and after"),
    "watch": (Watch, "after each of several updates: efficacy, retention, norms, time to go, in updates.csv"),
    "checkpoints": (EditCheckpoint, "from which a run that was stopped goes on"),
    "retention": (Retention, "earlier edits, measured again"),
}
TRAINER = """trainer:
  max_epochs: 1  # each edit is made once
  accelerator: auto
  devices: 1
  logger:
    class_path: TensorBoardLogger
    init_args:
      save_dir: runs  # each run gets runs/version_N
      name: null
      default_hp_metric: false
  callbacks:
    - class_path: EditProgressBar
    - class_path: ShowExamples
    - class_path: EditReport
    - class_path: RecordResults
    - class_path: LogResults
    - class_path: ExportEdits
  enable_checkpointing: false  # Lightning's own, which knows nothing of updates
  enable_model_summary: false
  num_sanity_val_steps: 0
"""


def default_config() -> str:
    """The text of ``configs/default.yaml``."""
    lines = [HEADER.rstrip()]
    for section, (chosen, given) in {"model": (EditingModule, EXAMPLE), "data": (TinyWorld, {})}.items():
        lines += [f"{section}:", f"  class_path: {chosen.__name__}", "  init_args:", *_settings(chosen, 4, given)]
    for section, (owner, what) in CALLBACKS.items():
        lines += [f"{section}:  # {what}", *_settings(owner, 2, {})]
    return "\n".join([*lines, TRAINER])


def _settings(owner: type, indent: int, given: Mapping[str, Any]) -> Iterator[str]:
    """The settings of a class, each under its explanation."""
    explained, space = explanations(owner), " " * indent
    for name, value in {**defaults(owner), **given}.items():
        text = explained.get(name, "")
        yield from textwrap.wrap(text, WIDTH, initial_indent=f"{space}# ", subsequent_indent=f"{space}# ")
        if type(value) is EMMET:
            yield from (f"{space}{name}:", f"{space}  class_path: EMMET", f"{space}  init_args:")
            yield from _settings(EMMET, indent + 4, {})
        elif is_dataclass(value):
            yield f"{space}{name}:"
            yield from _settings(type(value), indent + 2, vars(value))
        else:
            shown = yaml.safe_dump(value, default_flow_style=True, width=WIDTH).removesuffix("\n...\n").strip()
            yield f"{space}{name}: {shown}"


def defaults(owner: type) -> dict[str, Any]:
    """The default of each setting of a class; of those without one, None.

    Args:
        owner: The class.
    """
    values: dict[str, Any] = dict.fromkeys(accepted(owner))
    for part in reversed(inspect.getmro(owner)):
        for parameter in inspect.signature(vars(part).get("__init__", object)).parameters.values():
            if parameter.name in values and parameter.default is not parameter.empty:
                values[parameter.name] = parameter.default
    return values


def explanations(owner: type) -> dict[str, str]:
    """The first sentence that says what each setting of a class is.

    Args:
        owner: The class; what its docstring does not explain, those of its parents do.
    """
    sentences: dict[str, str] = {}
    for part in reversed(inspect.getmro(owner)):
        if part.__module__.startswith("lightning_edit"):
            for parameter in docstring_parser.parse(part.__doc__ or "").params:
                text = " ".join((parameter.description or "").split()).replace("``", "").replace("None", "null")
                sentences[parameter.arg_name] = re.split(r"(?<=\.) (?=[A-Z`])", text)[0]
    return sentences


if __name__ == "__main__":
    with atomic_path(FILE) as scratch:
        scratch.write_text(default_config(), encoding="utf-8")
