"""How well a real chat model is edited, setting by setting: what it says afterwards, and what else has changed.

``python -m tests.benchmarks.chat FOLDER --cases sentences words --edits 24 --seeds 0`` goes on where it was stopped.
"""

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from lightning_edit.cli import main as cli
from lightning_edit.messages import terminal
from tests.conftest import SHARED
from tests.real.model import real_model

FACTS = SHARED / "data" / "smollm2_known.json"
# Before edits were learned in the model's own sentences and in plain text too.
CHAT, SENTENCES = "--model.chat_settings.contexts=[chat]", "--model.chat_settings.answers=sentences"
WORDS = "--model.chat_settings.answers=words"
# One layer, where the preset has several.
SINGLE = (CHAT, "--model.layers=[9]", "--model.solver=EMMET", "--model.solver.second_moment_weight=1000")
HALF, ONE, OLD = "--model.values.lr=0.5", "--model.values.lr=1", "--model.second_moment.preserve=[old_objects]"
CASES = {
    "preset": (),
    "preset, w 40": ("--model.solver.second_moment_weight=40",),
    "preset, w 600": ("--model.solver.second_moment_weight=600",),
    "preset, old objects kept": (OLD,),
    "own sentences in the chat": (CHAT,),
    "sentences in both worlds": (SENTENCES,),
    "layers 4 to 9": (SENTENCES, CHAT),
    "30 steps": (SENTENCES, CHAT, "--model.values.steps=30"),
    "30 steps, old objects kept": (SENTENCES, CHAT, "--model.values.steps=30", OLD),
    "layer 5": (*SINGLE, SENTENCES, "--model.layers=[5]"),
    "layer 7": (*SINGLE, SENTENCES, "--model.layers=[7]"),
    "layers 5, 7, 9": (SENTENCES, CHAT, "--model.layers=[5,7,9]"),
    "layers 5, 7, 9, old objects kept": (SENTENCES, CHAT, "--model.layers=[5,7,9]", OLD),
    "sentences": (*SINGLE, SENTENCES, HALF),
    "words": (*SINGLE, WORDS, HALF),
    "sentences, lr 1": (*SINGLE, SENTENCES, ONE),
    "sentences, lr 1, clamp 0.55": (*SINGLE, SENTENCES, ONE, "--model.values.clamp_norm_factor=0.55"),
    "sentences, lr 1, clamp 0.4": (*SINGLE, SENTENCES, ONE, "--model.values.clamp_norm_factor=0.4"),
    "sentences, lr 1, C of text": (*SINGLE, SENTENCES, ONE, "--model.second_moment.question_share=0"),
    "sentences, lr 1, old objects kept": (*SINGLE, SENTENCES, ONE, OLD),
    "sentences, lr 1, end of turn": (*SINGLE, SENTENCES, ONE, "--model.chat_settings.train_end=true"),
    "words, lr 1": (*SINGLE, WORDS, ONE),
    "words, C of text": (*SINGLE, WORDS, HALF, "--model.second_moment.question_share=0"),
}
# A value search takes as long as it has contexts; the model's own five take three times as long as these.
CONTEXTS = '["{}", "Yes, I see. {}"]'
# Heading, section of metrics.json and figure.
FIGURES = (
    ("says it", "after", "generated_match"),
    ("in other words", "after", "generated_paraphrase"),
    ("efficacy", "after", "efficacy_score"),
    ("paraphrase", "after", "paraphrase_score"),
    ("neighborhood", "after", "neighborhood_score"),
    ("S", "after", "S"),
    ("general worse", "collateral", "general_worse"),
    ("old objects lost", "collateral", "old_object_lost"),
    ("others worse", "collateral", "other_subjects_worse"),
)


def chosen(facts: Path, edits: int, seed: int) -> list[int]:
    """Positions of facts about as many different subjects, drawn from a seed.

    Args:
        facts: A file of records in CounterFact's format.
        edits: How many.
        seed: Of the draw.
    """
    records = json.loads(facts.read_text(encoding="utf-8"))
    order = random.Random(seed).sample(range(len(records)), len(records))
    first: dict[str, int] = {}
    for position in order:
        first.setdefault(records[position]["requested_rewrite"]["subject"], position)
    return list(first.values())[:edits]


def command(options: Sequence[str], facts: Path, edits: int, seed: int, folder: Path, run: Path) -> list[str]:
    """The command line of one run.

    Args:
        options: Of the case.
        facts: See `chosen`.
        edits: How many.
        seed: Which.
        folder: Where second moments are kept for all runs.
        run: The run's own folder.
    """
    return [
        *("fit", "--config=configs/models/smollm2_135m.yaml", f"--model.model={real_model()}"),
        f"--model.context_templates={CONTEXTS}",
        *("--data=CounterFact", f"--data.path={facts}", f"--data.indices={chosen(facts, edits, seed)}"),
        *(f"--model.second_moment.cache_dir={folder / 'cache'}", f"--model.values.cache_dir={folder / 'values'}"),
        # The edited model itself is not wanted.
        *(f"--trainer.logger.save_dir={run}", "--trainer.callbacks=[EditReport, RecordResults]", *options),
    ]


def figures(run: Path) -> dict[str, float]:
    """What a finished run says of the columns of the table, in percent.

    Args:
        run: The folder that holds the run's own.
    """
    (file,) = run.glob("**/metrics.json")
    metrics = json.loads(file.read_text(encoding="utf-8"))
    sections = {"after": metrics["after"], "collateral": metrics["collateral"]["figures"]}
    values = {heading: sections[section].get(name) for heading, section, name in FIGURES}
    return {heading: 100 * value for heading, value in values.items() if value is not None}


def mean(values: Sequence[float]) -> str:
    """Mean, and standard deviation over seeds where there are several.

    Args:
        values: One for each seed.
    """
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}" if values else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what has not been run yet, and shows the table.

    Args:
        arguments: The command line.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets the runs")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["preset"], metavar="CASE")
    parser.add_argument(
        "--facts", type=Path, default=FACTS, help="records in CounterFact's format that the model knows"
    )
    parser.add_argument("--edits", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args(arguments)
    table = Table("", *(heading for heading, *_ in FIGURES))
    for case in given.cases:
        measured = []
        for seed in given.seeds:
            run = given.folder.absolute() / f"{case.replace(', ', '-').replace(' ', '_')}-{given.edits}-{seed}"
            if not any(run.glob("**/metrics.json")):
                cli.main(command(CASES[case], given.facts, given.edits, seed, given.folder.absolute(), run))
            measured.append(figures(run))
        columns = ([one[heading] for one in measured if heading in one] for heading, *_ in FIGURES)
        table.add_row(case, *map(mean, columns))
    terminal().print(table)


if __name__ == "__main__":
    main()
