"""Shell examples: bash runs them, and what they call is called in this process, which has imported everything."""

import subprocess
from pathlib import Path

from lightning_edit.cli.main import main

# What is called is noted, one argument a line of its own; a launcher starts what follows its options.
FUNCTIONS = r"""
set -euo pipefail
lightning-edit() { printf '%s\0' "$@" >> "$CALLS"; printf '\n\0' >> "$CALLS"; }
srun() { while [[ $1 == -* ]]; do shift; done; "$@"; }
torchrun() { while [[ $1 != cli.py ]]; do shift; done; shift; lightning-edit "$@"; }
export NODE=0 HOST=localhost
"""
END = "\n\0"


def calls_of(text: str, folder: Path) -> list[list[str]]:
    """Runs a shell block in a folder; returns the arguments of each ``lightning-edit`` in it."""
    noted = folder / ".calls"
    noted.write_text("")
    subprocess.run(
        ["bash", "-c", FUNCTIONS + text], cwd=folder, env={"CALLS": str(noted), "PATH": "/usr/bin:/bin"}, check=True
    )
    calls = noted.read_text().split(END)[:-1]
    noted.unlink()
    return [call.split("\0")[:-1] for call in calls]


def check_syntax(text: str) -> None:
    """Fails if bash cannot read a block."""
    subprocess.run(["bash", "-n", "-c", text], check=True)


def run(arguments: list[str]) -> int:
    """The exit status of the command line, called in this process."""
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def parse(arguments: list[str]) -> int:
    """The exit status of the real parser, which reads a ``fit`` or ``test`` with all its files and runs nothing."""
    assert arguments[0] in ("fit", "test"), arguments
    words = list(arguments)
    if "--ckpt_path" in words:
        # There is no such run; that it would be looked for is not what is parsed here.
        words[words.index("--ckpt_path") + 1] = "null"
    return run([*words, "--print_config"])
