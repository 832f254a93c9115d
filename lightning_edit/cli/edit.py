"""The command line's ``edit``: a fit for those who want an edited model, with the settings that most of them need."""

import json
import shlex
from argparse import Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.commands.layer_words import layer_list
from lightning_edit.commands.path_words import path_setting
from lightning_edit.configs import CONFIGS, shipped
from lightning_edit.errors import EditError
from lightning_edit.loading.stated_config import NotStatedError, stated_config
from lightning_edit.messages import terminal
from lightning_edit.models.presets import Preset, has_presets, preset_for
from lightning_edit.storage.user.files import check_model_name, check_text
from lightning_edit.storage.user.yaml import read_yaml

USUAL = ("emmet", "memit", "alphaedit", "encore", "ultraedit", "ft")
METHODS = sorted(path.stem for path in (CONFIGS / "solvers").glob("*.yaml"))
DEVICES = ("auto", "cpu", "gpu")
# Settings that hold a path, which may have any name.
PATHS = ("--model.model", "--data.path", "--data.preservation.path")
DESCRIPTION = """Writes facts into a language model, measures it before and after, and saves the
edited model. It is `fit` with the common settings; defaults are in parentheses."""
EXAMPLE = """A CSV file of two facts:  subject,prompt,target_new
                          Eiffel Tower,{} is located in the city of,Rome
                          Anna,The job of {} is,pilot"""


def main(words: list[str]) -> None:
    """Runs ``edit``.

    Args:
        words: The arguments after the command.

    Raises:
        EditError: If an argument makes no sense.
    """
    given = _parser().parse_args(words)
    arguments = fit_arguments(given)
    command = shlex.join(["lightning-edit", "fit", *arguments])
    console = terminal()
    if given.dry_run:
        console.print(command, soft_wrap=True)
        return
    console.print(f"Equivalent command:\n{command}", soft_wrap=True)
    from lightning_edit.cli.fit import fit

    fit([shipped(word) for word in arguments])


def _parser() -> CommandParser:
    parser = CommandParser(
        "lightning-edit edit",
        "%(prog)s MODEL EDITS [options]",
        DESCRIPTION,
        EXAMPLE,
        formatter_class=_Formatter,
        add_help=False,
        allow_abbrev=False,
    )
    # One group without headings, so that all of it is on one screen of 80 by 24.
    add = parser.add_argument_group().add_argument
    add("model", metavar="MODEL", help="folder or hub name of a transformers model")
    add("edits", metavar="EDITS", help="the facts: a CSV, JSON or JSONL file")
    known = f"{', '.join(USUAL)}, or {len(METHODS) - len(USUAL)} more, which a wrong name lists"
    add("--method", default=USUAL[0], metavar="NAME", help=known)
    add("--layers", metavar="LIST", help="blocks to edit, e.g. 5 or 3-8 (a preset's, or a guess)")
    add("--out", metavar="DIR", help="a new folder for the results (runs/version_N)")
    add("--preserve", metavar="FILE", help="ordinary text to preserve (text from the model itself)")
    add("--limit", type=int, metavar="N", help="only the first N edits")
    add("--edits-per-update", type=int, metavar="N", help="write N edits at a time (all at once)")
    add("--batch-size", type=int, metavar="N", help="edits optimized at once; fewer need less memory")
    add("--device", choices=DEVICES, metavar="NAME", help="auto, cpu or gpu")
    add("--config", action="append", default=[], metavar="FILE", help="more settings of `fit`, in YAML")
    add("--dry-run", action="store_true", help="only print the equivalent `fit` command")
    add("-h", "--help", action="help", help="show this help and exit")
    return parser


class _Formatter(RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24, width=80)


def fit_arguments(given: Namespace) -> list[str]:
    """The arguments of the equal ``fit``.

    Args:
        given: What was asked of ``edit``.

    Raises:
        EditError: If an argument makes no sense.
    """
    check_model_name(given.model)
    _check(given)
    method, out = method_named(given.method), out_arguments(given.out)
    _check_method(given, method)
    configs, layers = _configs_and_layers(given, method)
    settings = {
        "--model.model": given.model,
        "--model.layers": None if layers is None else json.dumps(layers),
        "--model.edits_per_update": given.edits_per_update,
        "--data": "OwnEdits",
        "--data.path": given.edits,
        "--data.limit": given.limit,
        "--data.batch_size": given.batch_size,
        "--data.preservation": None if given.preserve is None else "TextFile",
        "--data.preservation.path": given.preserve,
        "--trainer.accelerator": given.device,
    }
    said = [(name, str(value)) for name, value in settings.items() if value is not None]
    pairs = [("--config", file) for file in configs]
    pairs += [path_setting(*pair) if pair[0] in PATHS else pair for pair in said]
    return [word for pair in pairs for word in pair] + out


def _configs_and_layers(given: Namespace, method: str) -> tuple[list[str], list[int] | None]:
    """The files of settings, the user's last, and the layers where these files do not say them."""
    own = [_settings_of(Path(file)) for file in given.config]
    layers = None if given.layers is None else layer_list(given.layers)
    preset = preset_for_method(given.model, method, any(settings.get("trust_remote_code") for settings in own))
    method_file = f"configs/solvers/{method}.yaml"
    if preset is None:
        return [method_file, *given.config], layers
    same = preset.solver.lower() == method
    instead = "" if same else f", with {method} in place of {preset.solver}"
    terminal(stderr=True).print(f"settings: {preset}{instead}", soft_wrap=True)
    if layers is None and not any("layers" in settings for settings in own) and len(preset.layers) > 1:
        # A value that is found at the MLP's own output is written by one layer.
        layers = preset.layers_for(several=False) if _written_by_mlp(method) else None
    return [preset.name, *([] if same else [method_file]), *given.config], layers


def _written_by_mlp(method: str) -> bool:
    return bool(_method_settings(method).get("values", {}).get("site") == "mlp")


def _check(given: Namespace) -> None:
    if not Path(given.edits).expanduser().exists():
        raise EditError(f"EDITS: there is no file {given.edits}. Give a CSV, JSON or JSONL file.")
    if given.preserve is not None:
        check_text(given.preserve, "--preserve")
    for file in given.config:
        if not Path(file).is_file():
            raise EditError(f"`--config`: there is no file {file}. Give a YAML file with settings of `fit`.")
    for name in ("limit", "edits_per_update", "batch_size"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise EditError(f"`--{name.replace('_', '-')}` must be a positive number, got {value}.")


def _check_method(given: Namespace, method: str) -> None:
    """Refuses options that mean nothing to a method."""
    kind = module_of(method)
    if given.edits_per_update is not None and kind not in ("EditingModule", "CrispEdit", "MemoryEditing"):
        raise EditError(
            f"`--edits-per-update`: {method} writes no updates one after the other, it takes up all edits in one run. "
            "Leave the option out."
        )
    if given.layers is not None and kind == "InContext":
        raise EditError(f"`--layers`: {method} changes no layer, it puts facts before prompts. Leave the option out.")


def module_of(method: str) -> str:
    """The name of the class that makes the edits of a method.

    Args:
        method: A name in ``configs/solvers/``.
    """
    content = read_yaml(CONFIGS / "solvers" / f"{method}.yaml", "`--method`: ")
    return str(content["model"].get("class_path", "EditingModule"))


def method_named(name: str) -> str:
    """The name of a method's file in ``configs/solvers/``, however it is written.

    Args:
        name: As people write it: ``MEMIT``, ``r-ROME``, ``FT-L``.

    Raises:
        EditError: If there is no such method.
    """
    plain = {method.replace("_", ""): method for method in METHODS}
    letters = "".join(letter for letter in name.lower() if letter.isalnum())
    if letters not in plain:
        raise EditError(f"`--method`: there is no method {name}. There are: {', '.join(METHODS)}.")
    return plain[letters]


def out_arguments(out: str | None) -> list[str]:
    """Where the run's folder is made.

    Args:
        out: The folder; None leaves it to the run.

    Raises:
        EditError: If there is something in it already, or it is a file.
    """
    if out is None:
        return []
    folder = Path(out).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise EditError(f"`--out`: {out} is not empty. Give a new or empty folder.")
    if not folder.name:
        raise EditError(f"`--out`: {out} has no name. Give a folder that is new.")
    # As a version, a number would make a folder called version_N.
    place = {"save_dir": str(folder.parent), "name": folder.name, "version": ""}
    return ["=".join(path_setting(f"--trainer.logger.{name}", value)) for name, value in place.items()]


def preset_for_method(model: str, method: str, trust_remote_code: bool = False) -> Preset | None:
    """The settings under ``configs/models/`` for a model and a method; None if there are none.

    Args:
        model: Folder or hub name of the model.
        method: A name in ``configs/solvers/``.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: If the model's configuration cannot be read.
    """
    # Fine-tuning has settings of its own.
    solver = _method_settings(method).get("solver", {}).get("class_path")
    try:
        stated = stated_config(model)
        if stated is not None and has_presets(stated):
            return None if solver is None else preset_for(stated, solver)
    except NotStatedError:
        pass
    # Takes seconds to import.
    from lightning_edit.loading.pretrained import read_config

    config = read_config(model, trust_remote_code)
    return None if solver is None else preset_for(config, solver)


def _method_settings(method: str) -> dict[str, Any]:
    return _settings_of(CONFIGS / "solvers" / f"{method}.yaml")


def _settings_of(file: Path) -> dict[str, Any]:
    """The settings of the model in a configuration file, as far as there are any."""
    content = read_yaml(file, "`--config`: ")
    model = content.get("model") if isinstance(content, dict) else None
    settings = model.get("init_args", model) if isinstance(model, dict) else None
    return settings if isinstance(settings, dict) else {}
