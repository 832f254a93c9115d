"""The command line: which commands there are. Each is imported when it is asked for, as some take seconds for it."""

import pkgutil
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple

from lightning_edit.configs import shipped
from lightning_edit.errors import EditError
from lightning_edit.version import own_version


class Command(NamedTuple):
    """A command.

    Args:
        function: Where the function is that runs it, as ``module:name``; it gets the arguments after the command.
        summary: What it does, in a line.
    """

    function: str
    summary: str


COMMANDS = {
    "edit": Command("lightning_edit.cli.edit:main", "write facts from a file into a model; start here"),
    "fit": Command("lightning_edit.cli.startup.early:fit", "edit a model with all settings, or resume a run"),
    "test": Command("lightning_edit.cli.startup.early:test", "measure a model or a checkpoint"),
    "ask": Command("lightning_edit.cli.ask:main", "ask a run's model, before and after its edits, side by side"),
    "compare": Command("lightning_edit.cli.compare:main", "compare finished runs in a table and a figure"),
    "report": Command("lightning_edit.cli.report:main", "write finished runs as one HTML file for anybody"),
    "export": Command(
        "lightning_edit.cli.exporting.command:main", "write a run's edits as an adapter, a model or a GGUF file"
    ),
    "survive": Command(
        "lightning_edit.cli.survive:main", "measure a run's edits after quantization, fine-tuning and merging"
    ),
    "sweep": Command("lightning_edit.cli.sweep:main", "run every combination of settings"),
    "train-net": Command("lightning_edit.cli.train_net:main", "train a net for edits from gradients"),
    "trace": Command("lightning_edit.cli.trace:main", "show which layers of a model carry a fact, as a heat map"),
    "tune": Command("lightning_edit.cli.tune:main", "find the settings by which a model is edited best"),
    "updates": Command("lightning_edit.commands.updates:main", "list, remove and re-apply the updates of a run"),
    "cache": Command("lightning_edit.commands.cache:main", "list, verify and clear cached results"),
}
USAGE = """usage: lightning-edit COMMAND ...

Edits facts in language models and measures what changed.

commands:
{commands}

Run `lightning-edit COMMAND --help` for help on a command, `lightning-edit --version` for the version.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake of the user's is shown as one message and exit status 2.

    Args:
        args: The arguments, those of the process if not given.
    """
    words = [shipped(word) for word in (sys.argv[1:] if args is None else args)]
    if not words or words[0] in ("-h", "--help"):
        (sys.stdout if words else sys.stderr).write(usage())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        sys.stdout.write(f"lightning-edit {own_version()}\n")
        return
    _stop_once()
    try:
        if words[0] not in COMMANDS:
            raise EditError(f"There is no command {words[0]}. There are: {', '.join(COMMANDS)}.")
        pkgutil.resolve_name(COMMANDS[words[0]].function)(words[1:])
    except KeyboardInterrupt:
        # One that comes while a fit runs is answered by the trainer, which says how to go on.
        sys.stderr.write("Stopped.\n")
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        _explain(error)
        raise


class _FirstInterrupt:
    """Lets the first Ctrl-C end the command, and further ones leave alone what is kept and said then.

    It stays in place, for at the end of a fit the trainer puts back whatever it found in the beginning.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: object) -> None:
        if not self.came:
            self.came = True
            raise KeyboardInterrupt


def _stop_once() -> None:
    own = signal.getsignal(signal.SIGINT)
    replaceable = own is signal.default_int_handler or isinstance(own, _FirstInterrupt)
    if replaceable and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _FirstInterrupt())


def usage() -> str:
    """What ``--help`` shows: all commands, a line each."""
    return USAGE.format(commands="\n".join(f"  {name:11}{command.summary}" for name, command in COMMANDS.items()))


def _explain(error: Exception) -> None:
    """Ends with a message where it is the user who can mend it."""
    # Not needed for a command that goes well.
    from lightning_edit.commands.failure import causes, fail
    from lightning_edit.messages import bounded, one_line

    if isinstance(error, OSError):
        fail(one_line(error))
    # The parser wraps what a class says of its arguments; the user should read the class's own words.
    for cause in causes(error):
        if isinstance(cause, EditError):
            fail(str(cause))
    for cause in causes(error):
        if isinstance(cause, UnicodeDecodeError):
            fail(f"A settings file is not UTF-8 text ({cause}); save it as UTF-8.")
    from lightning_edit.models.out_of_memory import is_out_of_memory

    if memory := next((cause for cause in causes(error) if is_out_of_memory(cause)), None):
        said = (str(memory).strip().splitlines() or ["the machine has none left"])[0]
        fail(
            f"Out of memory: {bounded(said, 600)} Load the model in bfloat16, on a device with more memory, or give "
            "the command less to do at once."
        )
