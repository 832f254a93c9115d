"""The table of presets in ``docs/how-to/choose-layers.md``; ``python docs/scripts/preset_table.py`` writes it anew."""

import re
from collections.abc import Sequence
from pathlib import Path

from lightning_edit.models.presets import STATUSES, presets
from lightning_edit.storage.atomic import atomic_path

PAGE = Path(__file__).parents[1] / "how-to" / "choose-layers.md"
TABLE = re.compile(r"(?<=<!-- presets -->\n\n).*?(?=\n\n<!-- end of presets -->)", re.DOTALL)


def table() -> str:
    """A Markdown table of the shipped presets, each with its models, layers, solver and where its numbers come from."""
    lines = ["| models | layers | solver | numbers | preset |", "|---|---|---|---|---|"]
    for preset in presets():
        models = ", ".join(name.rpartition("/")[2] for name in preset.models)
        depth = preset.fits["num_hidden_layers"]
        cells = (f"{_shown(preset.layers)} of {depth}", preset.solver, STATUSES[preset.status], f"`{preset.file.stem}`")
        lines.append(f"| {' | '.join((models, *cells))} |")
    return "\n".join(lines)


def _shown(layers: Sequence[int]) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"


if __name__ == "__main__":
    with atomic_path(PAGE) as scratch:
        scratch.write_text(TABLE.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
