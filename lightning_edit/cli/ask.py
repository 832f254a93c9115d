"""The command line's ``ask``: what the model says before and after a run, side by side."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live

from lightning_edit.asking.answers import Answers
from lightning_edit.commands.arguments import CommandParser
from lightning_edit.errors import EditError
from lightning_edit.messages import terminal
from lightning_edit.storage.run_files import MEMORIES, UPDATE, UPDATES
from lightning_edit.storage.unfinished import has_begun, to_go_on
from lightning_edit.storage.user.json import read_json
from lightning_edit.updates.files.update_list import IN_MEMORIES
from lightning_edit.updates.run_settings import refuse_apart

if TYPE_CHECKING:
    from lightning_edit.updates.before_after import BeforeAfter
    from lightning_edit.updates.model_update import ModelUpdate

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
    settings, update = _settings(Path(given.run).expanduser()), Path(given.run).expanduser() / UPDATE
    asked = _loaded(settings, update, given.tokens, given.plain, given.trust_remote_code)
    show = _as_json if given.json else _side_by_side
    for question in given.once or _typed(asked):
        show(question, asked)


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
    if not (run / UPDATE).is_file():
        if (run / MEMORIES).is_dir():
            raise EditError(IN_MEMORIES.format(run))
        refuse_apart(model, run)
        if not content.get("after") and has_begun(run):
            raise EditError(
                f"RUN: {run} is not finished, so there is no edited model to ask. Wait for its end, or if it was "
                f"stopped, resume it: {to_go_on(run)}"
            )
        raise EditError(
            f"RUN: {run} holds no update.safetensors, so there is nothing to compare with. Runs that "
            "put facts in the context and those whose ExportEdits writes no update leave none."
        )
    return model


def _loaded(settings: Mapping[str, Any], file: Path, tokens: int, plain: bool, trusted: bool) -> "BeforeAfter":
    """The run's model and its update."""
    from lightning_edit.asking.chat import ChatSettings, settle_chat
    from lightning_edit.loading.editable import ModelSource, load_base
    from lightning_edit.loading.fingerprints import check_sample, sample_of
    from lightning_edit.loading.pretrained import load_tokenizer
    from lightning_edit.models.decoder import find_decoder
    from lightning_edit.updates.before_after import BeforeAfter
    from lightning_edit.updates.model_update import ModelUpdate

    update, name = ModelUpdate.load(file), settings["model"]
    tokenizer = load_tokenizer(name, trusted)
    try:
        asking = ChatSettings(**(settings.get("chat_settings") or {}))
    except TypeError as error:
        raise EditError(f"RUN: {file.parent / 'metrics.json'}: `chat_settings` holds what is no setting.") from error
    tokenizer = settle_chat(tokenizer, bool(settings.get("chat")) and not plain, asking)
    edited = [layer.module for layer in update.layers.values()]
    how: Any = {"quantization": settings.get("quantization"), "beside": settings.get("write") == "beside"}
    model = load_base(ModelSource(name, settings.get("dtype", "auto"), None, None, trusted, **how), edited).model
    update.check(model)
    check_sample(update.info.get("model_sample"), sample_of(model), name)
    decoder, earlier = find_decoder(model, settings.get("down_projection")), _found(settings, file.parent)
    return BeforeAfter(decoder, tokenizer, update, tokens, earlier)


def _found(settings: Mapping[str, Any], run: Path) -> "ModelUpdate | None":
    """What a run on top of another found in the weights; None where that is nothing, or is not known any more."""
    from lightning_edit.updates.history import History
    from lightning_edit.updates.model_update import ModelUpdate

    if not settings.get("on_top_of"):
        return None
    start, why = History(run / UPDATES).start_if_known()
    if start:
        return ModelUpdate(start)
    said = f"{why} So 'before' is the base model without any edit, and not the model that the run was built on."
    terminal(stderr=True).print(said, soft_wrap=True)
    return None


def _typed(asked: "BeforeAfter") -> Iterator[str]:
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
            asked.forget()
        elif line:
            yield line


def _as_json(question: str, asked: "BeforeAfter") -> None:
    sys.stdout.write(json.dumps(asdict(asked.ask(question)), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _side_by_side(question: str, asked: "BeforeAfter") -> None:
    """Both answers in a table that grows while they are written."""
    with _table(Answers(question, "", "")) as show:
        written = {"before": "", "after": ""}
        for name, ask in (("before", asked.before), ("after", asked.after)):

            def add(piece: str, name: str = name) -> None:
                written[name] += piece
                show(Answers(question, **written))

            written[name] = ask(question, add)
            show(Answers(question, **written))


@contextmanager
def _table(answers: Answers) -> Iterator[Callable[[Answers], None]]:
    console = terminal()
    if console.is_terminal:
        with Live(answers.table(expand=True), console=console, refresh_per_second=12) as live:
            yield lambda now: live.update(now.table(expand=True))
        return
    # What is not a terminal cannot be written over: there the finished table is printed once.
    latest = answers

    def keep(now: Answers) -> None:
        nonlocal latest
        latest = now

    yield keep
    console.print(latest.table())
