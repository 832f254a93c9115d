"""Who may import whom: all imports between rooms run one way, and few rooms know Lightning."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = {"": ROOT / "lightning_edit", "callbacks": ROOT / "callbacks", "datamodules": ROOT / "datamodules"}
# A file imports from lower floors and from its own room; `configs` holds no code.
FLOORS = [
    {"characters", "configs", "messages", "version", "whole_words"},
    {"errors", "old_names", "progress", "sentences"},
    {"ripples"},
    {"requests", "settings"},
    {"repetitions", "request_texts", "without_effect"},
    {"distributed", "solvers"},
    {"storage"},
    {"stored_requests"},
    {"models", "probes", "tiny"},
    {"asking"},
    {"loading"},
    {"export"},
    {"keys", "metrics", "updates"},
    {"baselines", "collateral", "downstream", "memories", "tracing", "values"},
    {"gradients"},
    {"nets", "searching", "windows"},
    {"commands", "editor", "loggers"},
    {"loop"},
    {"api", "report", "run", "survival", "tuning"},
    {"callbacks", "datamodules"},
    {"__init__", "cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ALLOWED = {"solvers": {"errors", "settings", "messages"}, "distributed": {"errors", "messages"}}
ALLOWED["probes"] = {"errors", "messages", "requests", "settings", "storage", "whole_words"}
ALLOWED["commands"] = {"errors", "messages", "old_names", "progress", "requests", "settings", "metrics"}
ALLOWED["commands"] |= {"configs", "updates", "storage", "solvers"}
WITH_LIGHTNING = {"callbacks", "datamodules", "loggers", "run", "cli"} | {
    "commands.argument_errors",
    "distributed.shutdown",
    "distributed.strategy",
    "loop.measured_again",
    "loop.on_top_of",
    "models.out_of_memory",
    "nets.training",
    "storage.checkpoints.known_classes",
    "storage.run_folder",
    "tiny.train",
}


def names_of(path):
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "lightning_edit")


FILES = {
    ".".join(part for part in (place, *path.relative_to(folder).with_suffix("").parts) if part): path
    for place, folder in PLACES.items()
    for path in sorted(folder.rglob("*.py"))
}


@pytest.mark.parametrize("module", FILES)
def test_imports_run_one_way(module):
    room, names = module.split(".")[0], set(names_of(FILES[module]))
    assert room in FLOOR, "a new room needs a floor"
    others = {name.split(".")[1] for name in names if name.startswith("lightning_edit.")} & FLOOR.keys() - {room}
    assert {other for other in others if FLOOR[other] >= FLOOR[room]} == set()
    assert others <= ALLOWED.get(room, others)
    if "lightning" in {name.split(".")[0] for name in names}:
        assert {room, module} & WITH_LIGHTNING
