"""The command line's ``ask``: what the model says before and after a run, side by side."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.errors import EditError
from lightning_edit.messages import cells, terminal
from lightning_edit.storage.user_json import read_json

FORGET, LEAVE = ("/new", "/reset"), ("/quit", "/exit")
HELP = "Type a question; /new begins a new conversation, /quit (or Ctrl-D) ends."


def main(words: list[str]) -> None:
    """Runs ``ask``.

    Args:
        words: The arguments after the command.

    Raises:
        EditError: If there is no such run, or it left no update.
    """
    parser = CommandParser(
        prog="lightning-edit ask",
        description="Asks the model of a run, before and after its edits, side by side. " + HELP,
    )
    parser.add_argument("run", metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "--once",
        metavar="QUESTION",
        action="append",
        help="answer this and end; several --once are one conversation: in a chat each question is asked after the "
        "earlier ones and their answers",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a question, for scripts")
    parser.add_argument("--tokens", type=int, default=128, metavar="N", help="most tokens of an answer (128)")
    parser.add_argument(
        "--plain", action="store_true", help="continue prompts in plain text, without the chat template"
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    given = parser.parse_args(words)
    if given.tokens < 1:
        raise EditError(f"`--tokens` must be a positive number, got {given.tokens}.")
    settings, update = _settings(Path(given.run).expanduser()), Path(given.run).expanduser() / "update.safetensors"
    before, after, edited = _conversations(settings, update, given.tokens, given.plain, given.trust_remote_code)
    show = _as_json if given.json else _side_by_side
    questions = iter(given.once) if given.once else _typed(before, after)
    for question in questions:
        show(question, before.ask, _within(edited, after.ask))


def _settings(run: Path) -> Mapping[str, Any]:
    """How the run's model was loaded and asked."""
    if not run.is_dir():
        raise EditError(f"RUN: there is no folder {run}. Give the folder of a finished run, such as runs/version_0.")
    if not (run / "metrics.json").is_file():
        raise EditError(f"RUN: {run} holds no metrics.json, so no run was finished there.")
    content = read_json(run / "metrics.json")
    config = content.get("config") if isinstance(content, dict) else None
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("model"), str):
        raise EditError(f"RUN: {run / 'metrics.json'} does not say which model was edited.")
    if not (run / "update.safetensors").is_file():
        raise EditError(
            f"RUN: {run} holds no update.safetensors, so there is nothing to compare with. Runs with "
            "`independent_updates` and those whose ExportEdits writes no update leave none."
        )
    return model


def _conversations(settings: Mapping[str, Any], file: Path, tokens: int, plain: bool, trusted: bool) -> tuple[Any, ...]:
    """A conversation with the model before its edits and one after them, and a context in which it is edited."""
    from lightning_edit.asking.chat import ChatSettings, settle_chat
    from lightning_edit.asking.conversation import Conversation
    from lightning_edit.loading.pretrained import load_model, load_tokenizer
    from lightning_edit.models.decoder import find_decoder
    from lightning_edit.updates.model_update import ModelUpdate, inserted

    update, name = ModelUpdate.load(file), settings["model"]
    tokenizer = load_tokenizer(name, trusted)
    try:
        asking = ChatSettings(**(settings.get("chat_settings") or {}))
    except TypeError as error:
        raise EditError(f"RUN: {file.parent / 'metrics.json'}: `chat_settings` holds what is no setting.") from error
    tokenizer = settle_chat(tokenizer, bool(settings.get("chat")) and not plain, asking)
    model = load_model(name, settings.get("dtype", "auto"), trust_remote_code=trusted)
    update.check(model)
    decoder = find_decoder(model, settings.get("down_projection"))
    pair = (Conversation(decoder, tokenizer, tokens) for _ in range(2))
    return *pair, lambda: inserted(model, update)


def _within(context: Callable[[], Any], ask: Callable[..., str]) -> Callable[..., str]:
    def answer(*args: Any) -> str:
        with context():
            return ask(*args)

    return answer


def _typed(*conversations: Any) -> Iterator[str]:
    """What the user types, line by line."""
    console = terminal()
    if sys.stdin.isatty():
        console.print(HELP, style="dim")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line in LEAVE:
            return
        if line in FORGET:
            for conversation in conversations:
                conversation.history.clear()
        elif line:
            yield line


def _as_json(question: str, before: Callable[..., str], after: Callable[..., str]) -> None:
    answers = {"question": question, "before": before(question), "after": after(question)}
    sys.stdout.write(json.dumps(answers, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _side_by_side(question: str, before: Callable[..., str], after: Callable[..., str]) -> None:
    """Both answers in a table that grows while they are written."""
    written = {"before": "", "after": ""}
    with _table(question, written) as refresh:
        for name, ask in (("before", before), ("after", after)):

            def show(piece: str, name: str = name) -> None:
                written[name] += piece
                refresh()

            written[name] = ask(question, show)
            refresh()


@contextmanager
def _table(question: str, written: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    console = terminal()

    def made() -> Table:
        table = Table(*written, title=cells([question])[0], title_justify="left", expand=console.is_terminal)
        table.add_row(*cells([text.strip() for text in written.values()]))
        return table

    # What is not a terminal cannot be written over: there the finished table is printed once.
    live = Live(made(), console=console, refresh_per_second=12) if console.is_terminal else nullcontext()
    with live:
        yield (lambda: live.update(made())) if isinstance(live, Live) else (lambda: None)
    if not isinstance(live, Live):
        console.print(made())
