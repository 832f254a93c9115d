"""Short runs of the embedded model under watch, and what they leave behind."""

import csv

from lightning_edit import EMMET, ValueSettings
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.run.module import EditingModule
from lightning_edit.tiny import World
from tests.trainers import quiet_trainer


def module(**changes):
    settings = {"solver": EMMET(1.0, ridge=0.01), "values": ValueSettings(steps=5, clamp_norm_factor=4.0)}
    settings |= {"second_moment": SecondMomentSettings(tokens=1000), "layers": [0], "edits_per_update": 2}
    settings |= {"context_templates": ["{}", "Well. {}"]}
    return EditingModule("tiny", **{**settings, **changes})


def run(folder, *callbacks, data=None, logger=False, **changes):
    made, runner = module(**changes), quiet_trainer(folder, *callbacks, logger=logger)
    runner.fit(made, datamodule=data or TinyWorld(edits=6))
    return made


def rows(folder, run="version_0"):
    with (folder / "lightning_edit_run" / run / "updates.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_text(folder):
    file = folder / "ordinary.txt"
    file.write_text("\n".join(World.generate().sentences(0)[:400]))
    return file


def between(found, first=0, name="layer_0/weight_growth"):
    return (float(found[first][name]) + float(found[first + 1][name])) / 2
