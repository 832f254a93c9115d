"""The measured tables of ``docs/benchmarks.md``: ``python -m tests.benchmarks.page`` writes them anew.

They come from the files in ``docs/measured/``, one for each machine, as ``make benchmark`` writes them:
``python -m tests.benchmarks.page benchmarks.json --name two-cores`` takes in one more. Stages that the new
file lacks keep their figures, where the machine and its packages are the same.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_edit.errors import EditError
from lightning_edit.storage.atomic import atomic_path
from tests.benchmarks.__main__ import STAGES

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = DOCS / "measured"
PAGE = DOCS / "benchmarks.md"
PART = re.compile(r"(?<=<!-- measured -->\n\n).*?(?=\n\n<!-- end of measured -->)", re.DOTALL)
NAME = re.compile(r"[a-z0-9-]+")


def markdown(table: Table) -> str:
    """A table of the terminal as Markdown, its caption below."""
    columns = list(table.columns)
    rules = ("---:" if column.justify == "right" else "---" for column in columns)
    rows = zip(*(list(column.cells) for column in columns), strict=True)
    lines = [[str(column.header) for column in columns], list(rules), *([str(cell) for cell in row] for row in rows)]
    shown = "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
    caption = str(table.caption or "").replace("|", "\\|")
    return f"#### {table.title}\n\n{shown}\n\n{caption}".rstrip()


def section(results: dict[str, Any]) -> str:
    """What was measured on one machine.

    Args:
        results: As `tests.benchmarks` writes them.
    """
    machine = results["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "transformers") if name in machine)
    cores = f"{machine['threads']} threads on {machine['cores']} cores"
    about = f"{machine.get('processor', machine['device'])}, {cores}, {results['date'][:10]}; {versions}."
    tables = [markdown(table) for name in STAGES if name in results for table in STAGES[name].tables(results[name])]
    return "\n\n".join([f"### {machine.get('processor', machine['device'])}", about, *tables])


def part() -> str:
    """The sections of all machines."""
    files = sorted(MEASURED.glob("*.json"))
    return "\n\n".join(section(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def taken_in(new: dict[str, Any], former: dict[str, Any]) -> dict[str, Any]:
    """New figures, and those of stages that were measured earlier on the same machine alone.

    Args:
        new: As `tests.benchmarks` writes them.
        former: The same, or empty.
    """
    machine, before = (
        {name: value for name, value in results.get("machine", {}).items() if name != "load_at_start"}
        for results in (new, former)
    )
    return new | {name: former[name] for name in STAGES if machine == before and name in former and name not in new}


def main(words: Sequence[str] | None = None) -> None:
    """Takes in a file, if one is given, and writes the page.

    Args:
        words: The command line.

    Raises:
        EditError: If the figures are of a quick run, or the name is none for a file.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.page", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", help="figures to take in")
    parser.add_argument("--name", default="this-machine", help="of the machine: small letters, digits and hyphens")
    given = parser.parse_args(words)
    if not NAME.fullmatch(given.name):
        raise EditError(f"`--name` must be small letters, digits and hyphens, e.g. two-cores, not {given.name!r}.")
    if given.file is not None:
        figures = json.loads(given.file.read_text(encoding="utf-8"))
        if figures["quick"]:
            raise EditError(f"{given.file} is of a quick run, which is not for quoting: measure without `--quick`.")
        MEASURED.mkdir(exist_ok=True)
        file = MEASURED / f"{given.name}.json"
        former = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        with atomic_path(file) as scratch:
            scratch.write_text(json.dumps(taken_in(figures, former), indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    if not PART.search(page):
        raise EditError(f"{PAGE} has no marks `<!-- measured -->` and `<!-- end of measured -->`: put them back.")
    with atomic_path(PAGE) as scratch:
        scratch.write_text(PART.sub(lambda _: part(), page), encoding="utf-8")


if __name__ == "__main__":
    main()
