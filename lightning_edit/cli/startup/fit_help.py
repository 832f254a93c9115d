"""What ``fit --help`` and ``test --help`` show: ``configs/default.yaml`` as options, which takes no imports.

The file explains every common setting, beside it or in the lines before it, and has Lightning's trainer last.
"""

import re
import textwrap
from collections.abc import Iterator

from lightning_edit.configs import CONFIGS

WIDTH = 80
LINE = re.compile(r"(?P<indent> *)(?P<name>\w+):(?: +(?P<value>[^#\s][^#]*?))?(?: +# (?P<comment>.*))?")
HEAD = {
    "fit": """usage: lightning-edit fit [--config FILE.yaml]... [--SETTING VALUE]...

Edits a model and measures it before and after. Without any settings it edits
the small embedded model. `lightning-edit edit` is a simpler way to start.
""",
    "test": """usage: lightning-edit test [--ckpt_path PATH] [--SETTING VALUE]...

Measures a model, or the edited model of a checkpoint (edited.ckpt of a run).
""",
}
OPTIONS = {
    "--config FILE": "A YAML file with settings, see configs/; may be given several times.",
    "--name NAME": "A name for the run: of its folder, and in tables and figures; runs/NAME, not runs/version_N.",
    "--ckpt_path PATH": "A checkpoint or a run's folder to resume from, or `last`; for `test`, what to measure.",
    "--trust_config": "With --ckpt_path: the run's own config.yaml may name any classes and folders.",
    "--print_config": "Prints all settings as YAML and exits, e.g. to start a file of your own.",
    "--model.help NAME, --data.help NAME": "The settings of another class: EditingModule, FineTuning, LoRA, CrispEdit, "
    "InContext or MemoryEditing; CounterFact, ZsRE, EasyEditCounterFact, UnKE, OwnEdits or TinyWorld.",
    "--help_all": "All options, including those of Lightning's trainer.",
}


def help_text(command: str) -> str:
    """The help of ``fit`` or ``test``.

    Args:
        command: Which.
    """
    lines = [HEAD[command]]
    for option, what in OPTIONS.items():
        lines += [f"  {option}", *_explained(what)]
    lines += ["", "settings, with their defaults:"]
    for name, value, what in settings():
        if value is None:
            lines += ["", *textwrap.wrap(f"{name}: {what}" if what else f"{name}:", WIDTH)]
        else:
            lines += [f"  --{name} {value}", *_explained(what)]
    lines += ["", *textwrap.wrap("Any other argument of lightning.Trainer is --trainer.NAME; see --help_all.", WIDTH)]
    return "\n".join(lines) + "\n"


def settings() -> Iterator[tuple[str, str | None, str]]:
    """The settings of ``configs/default.yaml`` in its order: name on the command line, default, explanation.

    What only holds other settings has no default; the name of a class stands under what it is the class of.
    """
    comments: list[str] = []
    path: list[tuple[int, str]] = []
    for line in (CONFIGS / "default.yaml").read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            comments.append(line.strip("# "))
            continue
        entry = LINE.fullmatch(line)
        if entry is None:
            comments.clear()
            continue
        indent = len(entry["indent"])
        path = [(depth, name) for depth, name in path if depth < indent]
        names = [name for _, name in path if name != "init_args"]
        what = " ".join([*comments, entry["comment"] or ""]).strip() if path or not comments else entry["comment"] or ""
        comments.clear()
        path.append((indent, entry["name"]))
        if entry["name"] == "class_path":
            yield ".".join(names), entry["value"], what
        elif entry["name"] != "init_args" and (entry["value"] is not None or not names):
            yield ".".join([*names, entry["name"]]), entry["value"], what


def _explained(what: str) -> list[str]:
    return textwrap.wrap(what, WIDTH, initial_indent="      ", subsequent_indent="      ")
