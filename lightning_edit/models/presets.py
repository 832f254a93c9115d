"""Presets: files of settings for models of one shape, which say where their numbers come from.

A preset is a configuration of ``fit`` that begins with a header, which is YAML in comments:

    # preset:
    #   status: published
    #   fits: {model_type: llama, num_hidden_layers: 32, hidden_size: 4096, intermediate_size: 14336}
    #   models: [meta-llama/Llama-3.1-8B]
    #   source: arXiv 2405.00664
    #   one_layer: 5

``fits`` names attributes of the model's configuration, all of which a model must have; ``models`` is for readers.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from lightning_edit.configs import CONFIGS
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.storage.user.files import read_text
from lightning_edit.storage.user.yaml import LARGEST, parse_yaml

PRESETS = CONFIGS / "models"
# Where the numbers of a preset come from, and how that is said.
STATUSES = {
    "published": "published",
    "tuned": "found by tune",
    "tried": "found by hand",
    "analogy": "by analogy, untested",
}
# The solvers that are published with one edited layer; the others share an edit between several.
SINGLE = ("EMMET", "ROME", "RROME")
MATCHED = ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size")
WIDTH = 120
START, INDENT = "# preset:", "#   "


@dataclass(frozen=True)
class Preset:
    """A file of settings for models of one shape.

    Args:
        file: The file.
        status: Where its numbers come from, one of `STATUSES`.
        fits: Attributes of the configuration of the models that it is for.
        source: A publication or repository, or what was done to find the numbers.
        settings: The settings of `EditingModule`.
        models: Hub names of some models of this shape.
        one_layer: The layer to edit where there can be only one; None for the middle one of several.
    """

    file: Path
    status: str
    fits: Mapping[str, Any]
    source: str
    settings: Mapping[str, Any]
    models: Sequence[str] = ()
    one_layer: int | None = None

    @staticmethod
    def read(file: Path) -> "Preset":
        """Reads a preset.

        Args:
            file: A configuration of ``fit`` with a header.

        Raises:
            EditError: If it has no header, or the header or the settings lack something.
        """
        text = read_text(file, "preset: ", LARGEST)
        content = {} if START not in text.splitlines() else parse_yaml(_header(text), str(file))["preset"]
        settings = parse_yaml(text, str(file)) or {}
        try:
            preset = Preset(file, settings=settings["model"]["init_args"], **content)
            fine = preset.status in STATUSES and bool(preset.fits) and bool(preset.layers) and bool(preset.solver)
        except (KeyError, TypeError) as error:
            raise EditError(f"{file} is no preset ({quoted(str(error))}); configs/models/ has some.") from error
        if not fine:
            raise EditError(f"{file}: `status` must be one of {', '.join(STATUSES)}, and `fits` name attributes.")
        return preset

    @property
    def layers(self) -> list[int]:
        """The layers to edit."""
        return list(self.settings["layers"])

    @property
    def solver(self) -> str:
        """The class of its solver."""
        return str(self.settings["solver"]["class_path"])

    @property
    def name(self) -> str:
        """The file as it is written on a command line."""
        return f"configs/models/{self.file.name}" if self.file.parent == PRESETS else str(self.file)

    def __str__(self) -> str:
        """The file and where its numbers come from."""
        return f"{self.name} ({STATUSES[self.status]})"

    def is_for(self, config: Any) -> bool:
        """Whether a model is of the shape.

        Args:
            config: The model's transformers configuration.
        """
        text = config.get_text_config()
        return all(getattr(text, name, None) == value for name, value in self.fits.items())

    def layers_for(self, several: bool) -> list[int]:
        """The layers to edit.

        Args:
            several: Whether there can be more than one.
        """
        layers = self.layers
        if several or len(layers) == 1:
            return layers
        return [layers[(len(layers) - 1) // 2] if self.one_layer is None else self.one_layer]


def presets(folder: Path = PRESETS) -> Iterator[Preset]:
    """All presets of a folder, by the names of their files.

    Args:
        folder: The folder; that of the shipped ones if not given.
    """
    return map(Preset.read, sorted(folder.glob("*.yaml")))


def has_presets(config: Any, folder: Path = PRESETS) -> bool:
    """Whether there are presets for models of this type, of whatever shape.

    Args:
        config: The model's transformers configuration.
        folder: Where presets are looked for.
    """
    return config.get_text_config().model_type in {preset.fits.get("model_type") for preset in presets(folder)}


def preset_for(config: Any, solver: str, folder: Path = PRESETS) -> Preset | None:
    """The preset for a model and a solver, or else for a solver that edits as many layers; None if there is none.

    Args:
        config: The model's transformers configuration.
        solver: The name of the solver's class.
        folder: Where presets are looked for.
    """
    alone = solver in SINGLE
    fitting = [preset for preset in presets(folder) if preset.is_for(config)]
    return min(fitting, key=lambda one: (one.solver != solver, (len(one.layers) == 1) != alone), default=None)


def render_preset(
    config: Any,
    settings: Mapping[str, Any],
    status: str,
    source: str,
    about: str = "",
    models: Sequence[str] = (),
    one_layer: int | None = None,
    data: Mapping[str, Any] | None = None,
) -> str:
    """The text of a preset, as `Preset.read` and ``fit --config`` read it.

    Args:
        config: The transformers configuration of the model that it is for.
        settings: Those of `EditingModule`, in plain types; ``layers`` and ``solver`` are needed.
        status: One of `STATUSES`.
        source: Where the numbers come from, in a line.
        about: What else a reader should know.
        models: Hub names of models of this shape.
        one_layer: The layer to edit where there can be only one.
        data: Settings of the records, whichever class reads them.
    """
    text = config.get_text_config()
    fits = {name: getattr(text, name) for name in MATCHED if getattr(text, name, None) is not None}
    header: dict[str, Any] = {"status": status, "fits": _Flow(fits)}
    header |= {"models": list(models)} if models else {}
    header |= {"source": " ".join(source.split())}
    header |= {} if one_layer is None else {"one_layer": one_layer}
    comments = [line.rstrip() for line in _dumped({"preset": header}).splitlines()]
    comments += [line for part in about.splitlines() for line in textwrap.wrap(part, WIDTH - 2)]
    content: dict[str, Any] = {"model": {"class_path": "EditingModule", "init_args": dict(settings)}}
    body = _dumped(content | ({"data": {"init_args": dict(data)}} if data else {}))
    return "".join(f"# {line}\n" for line in comments) + body


def _header(text: str) -> str:
    lines = text.splitlines()
    start = lines.index(START)
    inside = takewhile(lambda line: line.startswith(INDENT), lines[start + 1 :])
    return "\n".join(line.removeprefix("# ") for line in (START, *inside))


class _Flow(dict[str, Any]):
    """A mapping that is written in one line."""


class _Dumper(yaml.SafeDumper):
    """Writes lists, and mappings that ask for it, in one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, True))
_Dumper.add_representer(_Flow, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, True))


def _dumped(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH - 2)
