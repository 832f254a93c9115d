"""Which methods `tests.benchmarks.sequential` compares, on which models and edits, and with which settings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.conftest import SHARED
from tests.real.model import cached

REAL = cached()


@dataclass(frozen=True)
class Case:
    """What all methods edit, and their settings for it.

    Args:
        options: Model, layers, values and data, as on the command line.
        edits: How many.
        per_update: Edits of an update; ROME and r-ROME write each by itself.
        text: Ordinary text for perplexity, JSON lines with a field ``text``; the embedded world's own if not given.
        weight: w of MEMIT and EMMET.
        ridge: Of ENCORE.
        mpes: Passes with the answer after which MPES stops.
        threshold: Of AlphaEdit.
        alpha_ridge: Of AlphaEdit.
        eta: Of values from gradients.
        trained: Learning rate of CrispEdit.
        gradient_layers: Whose maps values from gradients change, where they are others than those of values searched.
    """

    options: tuple[str, ...]
    edits: int
    per_update: int
    text: Path | None
    weight: float
    ridge: float
    mpes: int
    threshold: float
    alpha_ridge: float
    eta: float
    trained: float
    gradient_layers: str | None = None


CASES = {
    "tiny": Case(
        options=("--model.layers=[0]", "--data=TinyWorld", "--data.edits={edits}"),
        edits=200,
        per_update=20,
        text=None,
        weight=100,
        ridge=1,
        mpes=2,
        threshold=0.02,
        alpha_ridge=1,
        eta=1e-3,
        trained=5e-3,
    ),
    "cf-gpt": Case(
        options=(
            f"--model.model={SHARED / 'models' / 'cf-gpt'}",
            "--model.layers=[0]",
            "--model.values.lr=0.1",
            "--model.values.steps=25",
            "--model.values.clamp_norm_factor=4",
            "--model.values.early_stop_loss=0.05",
            "--data=CounterFact",
            f"--data.path={SHARED / 'data' / 'counterfact_known.json'}",
            "--data.limit={edits}",
            "--data.conflicts=keep_first",
            "--data.preservation=TextFile",
            f'--data.preservation.path=["{SHARED / "data" / "text_10k.jsonl"}","{SHARED / "data" / "text_facts.txt"}"]',
        ),
        edits=1000,
        per_update=50,
        text=SHARED / "data" / "text_10k.jsonl",
        # The best of a few, over 100 edits.
        weight=100,
        ridge=3,
        mpes=6,
        threshold=0.1,
        alpha_ridge=3,
        # Chosen among thirteen pairs on these very edits, for MEMIT with earlier keys.
        eta=3e-4,
        gradient_layers="[3]",
        trained=5e-3,
    ),
    # In the chat; layers, values and w are those of the model's preset.
    "smollm2": Case(
        options=(
            "--config=configs/models/smollm2_135m.yaml",
            f"--model.model={REAL}",
            '--model.context_templates=["{}", "Yes, I see. {}"]',
            "--data=CounterFact",
            f"--data.path={SHARED / 'data' / 'smollm2_known.json'}",
            "--data.limit={edits}",
            "--data.conflicts=keep_first",
        ),
        edits=200,
        per_update=20,
        text=SHARED / "data" / "text_10k.jsonl",
        weight=10,
        ridge=3,
        mpes=6,
        threshold=0.1,
        alpha_ridge=3,
        eta=1e-3,
        trained=5e-4,
    ),
}
# What only the search for values takes.
SEARCHED = ("--model.values.", "--model.context_templates", "--config=configs/models/")


def methods(case: Case) -> dict[str, list[str]]:
    """The options of each method. Where a ridge is no part of the method, it is 0."""

    def solver(name: str, *options: str, **arguments: float) -> list[str]:
        return [
            f"--model.solver={name}",
            *(f"--model.solver.{key}={value}" for key, value in arguments.items()),
            *options,
        ]

    memit = partial(solver, "MEMIT", second_moment_weight=case.weight)
    emmet = partial(solver, "EMMET", second_moment_weight=case.weight, ridge=0, emmet_lambda=0.1)
    earlier, mpes = "--model.previous_keys=true", f"--model.values.mpes={case.mpes}"
    return {
        "ROME": solver("ROME", "--model.values.site=mlp", "--model.key_average=flat", ridge=0),
        "r-ROME": solver("RROME", ridge=0),
        "EMMET": emmet(),
        "MEMIT": memit(ridge=0),
        "EMMET, earlier keys": emmet(earlier),
        "sequential MEMIT": memit(earlier, ridge=0),
        "AlphaEdit": solver("AlphaEdit", threshold=case.threshold, ridge=case.alpha_ridge),
        "EMMET + MPES": emmet(earlier, mpes),
        "ENCORE": memit(earlier, mpes, ridge=case.ridge),
        **newer(case, solver),
        **others(case),
    }


def newer(case: Case, solver: Callable[..., list[str]]) -> dict[str, list[str]]:
    """Methods of 2025 and 2026, and combinations of their parts that nobody has published."""
    memit = partial(solver, "MEMIT", second_moment_weight=case.weight, ridge=case.ridge)
    alpha = partial(solver, "AlphaEdit", threshold=case.threshold, ridge=case.alpha_ridge)
    gradient = ["--model.source=Gradient", f"--model.source.eta={case.eta}"]
    gradient += [] if case.gradient_layers is None else [f"--model.layers={case.gradient_layers}"]
    earlier, processed = "--model.previous_keys=true", "--model.post_processing"
    return {
        "LyapLock": memit("--model.anchor=LyapLock"),
        "EvoEdit": alpha("--model.anchor=EvoEdit"),
        "SimIE": memit("--model.anchor=SimIE", "--model.values.weights=unedited"),
        "NAS": alpha("--model.values.norm_anchor=auto"),
        "SPHERE": alpha(f"{processed}=SPHERE"),
        "REVIVE": memit(earlier, f"{processed}=REVIVE"),
        "UltraEdit": solver("Ridge", *gradient, ridge=1),
        "UltraEdit, earlier keys": solver("Ridge", *gradient, earlier, ridge=1),
        "gradients, MEMIT, earlier keys": memit(*gradient, earlier),
        "gradients, AlphaEdit": alpha(*gradient),
        "sequential MEMIT + NAS": memit(earlier, "--model.values.norm_anchor=auto"),
        "MEMIT by output direction": solver("OutputMEMIT", earlier, second_moment_weight=case.weight, ridge=case.ridge),
        "ENCORE + SPHERE": memit(earlier, f"--model.values.mpes={case.mpes}", f"{processed}=SPHERE"),
    }


def others(case: Case) -> dict[str, list[str]]:
    """What is no least squares: training, memories beside the model, and facts in the context, by their presets."""

    def preset(name: str, *options: str) -> list[str]:
        return [f"--config=configs/solvers/{name}.yaml", *options]

    return {
        "LocFT-BF": preset("locft_bf", f"--data.batch_size={min(100, case.edits)}"),
        "CrispEdit": preset("crispedit", f"--model.lr={case.trained}"),
        "GRACE": preset("grace"),
        "MEMOIR": preset("memoir"),
        "retrieval": preset("retrieval"),
        "facts in the context": preset("in_context"),
    }


def options_of(case: Case, method: str) -> list[str]:
    """The options of a case and of a method: the files first, as what comes later counts.

    Args:
        case: What is edited.
        method: One of `methods`.
    """
    own = methods(case)[method]
    if method not in others(case):
        return [*case.options, f"--model.edits_per_update={updates_of(case, method)}", *own]
    # Nothing is searched, and what is only put into the context has no layer.
    given = [option for option in case.options if not option.startswith(SEARCHED)]
    if method in ("retrieval", "facts in the context"):
        given = [option for option in given if not option.startswith("--model.layers")]
    elif not any(option.startswith("--model.layers") for option in given):
        given.append("--model.layers=[9]")
    if method in ("CrispEdit", "GRACE", "MEMOIR"):
        given.append(f"--model.edits_per_update={updates_of(case, method)}")
    return [own[0], *given, *own[1:]]


def updates_of(case: Case, method: str) -> int:
    """Edits of an update."""
    return 1 if method in ("ROME", "r-ROME") else case.per_update
