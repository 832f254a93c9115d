"""What a run says of its edits, for the card of what is exported, and whether a truncated update still has them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_edit.asking.chat import ChatSettings, settle_chat
from lightning_edit.asking.conversation import Conversation
from lightning_edit.asking.room import room_for
from lightning_edit.asking.tokenization import without_special
from lightning_edit.commands.comparison.methods import published
from lightning_edit.commands.comparison.settings import BEFORE_NOTED, METHOD, flat_settings
from lightning_edit.commands.method_file import METHOD_FILE
from lightning_edit.errors import EditError
from lightning_edit.export.card import SAMPLE, CardFacts
from lightning_edit.loading.pretrained import load_tokenizer
from lightning_edit.messages import counted, listed, terminal
from lightning_edit.metrics.generated_text import generated_match
from lightning_edit.models.decoder import find_decoder
from lightning_edit.progress import ProgressBars
from lightning_edit.report.settings import without_folders
from lightning_edit.requests import complete
from lightning_edit.solvers import Factors
from lightning_edit.storage.form import Form, WrongFormError, anything, count, each, fields, maybe, number, table, text
from lightning_edit.storage.user.json import json_lines, read_json
from lightning_edit.updates.base_model import settings_of
from lightning_edit.updates.files.saved import Saved, run_of
from lightning_edit.updates.model_update import ModelUpdate, inserted

# Settings that a reader of the card may want, and parts of which all are: those of them that had an effect.
PARTS = ("model.solver", "model.source", "model.anchor", "model.post_processing")
SHOWN = (
    *("model.previous_keys", "model.values.optimizer", "model.values.radius", "model.values.growth"),
    *("model.layers", "model.edits_per_update", "model.dtype", "model.quantization", "model.write", "model.seed"),
    *("model.values.lr", "model.values.steps", "model.values.clamp_norm_factor", "model.second_moment.tokens"),
    *("model.lr", "model.rank", "model.alpha", "model.epochs"),
)
FIGURES: Form = table(text, maybe(number))
# Of `metrics.json`, what a card tells.
METRICS: Form = fields(
    {},
    {
        **dict.fromkeys(("before", "after"), maybe(FIGURES)),
        **dict.fromkeys(("edits", "not_made"), maybe(count)),
        "collateral": maybe(
            fields({}, {"figures": maybe(FIGURES), "worst": maybe(each(table(text, anything)))}, others=True)
        ),
        "config": maybe(fields({}, dict.fromkeys(("model", "data"), maybe(table(text, anything))), others=True)),
        METHOD_FILE: maybe(text),
    },
    others=True,
)
# Most tokens of a short answer, beside a repetition of the question.
TOKENS = 20


def with_run(facts: CardFacts, saved: Saved, all_edits: bool = False) -> CardFacts:
    """The facts of a card with what the run's ``metrics.json`` and records say.

    Args:
        facts: What the update itself knows.
        saved: The edits.
        all_edits: Whether the card lists all of them.
    """
    metrics = _metrics(saved.folder)
    edits = saved.edits or _of_records(saved.folder)
    facts = replace(facts, sample=edits if all_edits else edits[:SAMPLE], form=[*facts.form, *_still_held(saved)])
    if not metrics:
        return facts
    idle = metrics.get("settings_without_effect", BEFORE_NOTED)
    flat = flat_settings(metrics.get("config") or {}, idle, metrics.get(METHOD_FILE))
    shown = {name.removeprefix("model."): value for name, value in flat.items() if _is_shown(name, value)}
    settings = {name: without_folders(value) for name, value in shown.items()}
    removed = saved.update.info.get("removed_updates") or []
    which = f"update{'s' * (len(removed) > 1)} {listed(removed)} of the run"
    stale = [f"Removed after the figures below were measured: {which}"] if removed else []
    facts = replace(facts, method=published(flat[METHOD]) if flat.get(METHOD) else facts.method, settings=settings)
    held, of_run = saved.update.info.get("edits"), metrics.get("edits")
    if metrics.get("after") and not removed and held not in (None, of_run):
        return replace(facts, form=[*facts.form, _of_more(held, of_run)])
    if left := metrics.get("not_made"):
        stale.append(f"Not made, as the run ended early, and counted as failed below: {counted(left, 'edit')}")
    return replace(
        facts,
        form=[*facts.form, *stale],
        before=metrics.get("before") or {},
        after=metrics.get("after") or {},
        collateral=metrics.get("collateral") or {},
    )


def _of_more(held: Any, of_run: Any) -> str:
    """Why a checkpoint from the middle of a run has none of its figures."""
    return f"Holds the first {held} of {of_run} edits of its run, whose figures are of all of them and not shown"


def _still_held(saved: Saved) -> list[str]:
    """What was removed from the run and is in what is exported all the same."""
    if saved.removed is None or saved.removed.stands_for_run:
        return []
    return [f"Holds what was removed from the run since: {saved.removed.updates}"]


def _is_shown(name: str, value: str) -> bool:
    of_part = any(name == part or name.startswith(f"{part}.") for part in PARTS)
    return (name in SHOWN or of_part) and value != "null"


def _metrics(folder: Path | None) -> Mapping[str, Any]:
    """The figures of a run; none where it wrote none, or an update was removed since."""
    path = None if folder is None else folder / "metrics.json"
    if path is None or not path.is_file():
        return {}
    content = read_json(path)
    try:
        METRICS(content, "")
    except WrongFormError as error:
        raise EditError(
            f"{path} does not hold the figures of a run ({error}). Put the file back as it was, or move it away to "
            "export without them."
        ) from error
    return content


def check_figures(run: Path) -> None:
    """Refuses a run whose figures could not be told on a card, before a model is loaded.

    Args:
        run: What is exported: the folder of a run, or a file.

    Raises:
        EditError: If its ``metrics.json`` is not as a run writes it; says where.
    """
    _metrics(run if run.is_dir() else run_of(run))


def _of_records(folder: Path | None) -> list[dict[str, str]]:
    """The edits of a run that writes no updates one by one, from the records it was measured on."""
    path = None if folder is None else folder / "records.jsonl"
    if path is None or not path.is_file():
        return []
    names = ("case_id", "subject", "prompt", "target_new")
    lines = (value for value, _ in json_lines(path) if isinstance(value, dict) and value.get("stage") == "after")
    return [{name: str(line.get(name) or "") for name in names} for line in lines]


def answers_left(saved: Saved, truncated: Mapping[str, Factors], most: int) -> tuple[int, int, int] | None:
    """How many edits a truncated update still has the answers of.

    Args:
        saved: The edits, not inserted.
        truncated: For the name of each module what is left of its update.
        most: How many edits to ask for, evenly chosen.

    Returns:
        How many were asked for, how many the whole update has, and how many the truncated one; None where the prompts
        of the edits are not known.
    """
    edits = saved.edits or _of_records(saved.folder)
    if not edits:
        return None
    # Rounded up, so that they are no more than asked for.
    asked = edits[:: -(-len(edits) // most)]
    layers = {place: replace(one, factors=truncated[one.module]) for place, one in saved.update.layers.items()}
    settings = {} if saved.folder is None else settings_of(saved.folder)
    tokenizer, decoder = _tokenizer(saved, settings), find_decoder(saved.base.model, settings.get("down_projection"))
    with ProgressBars() as report:
        counts = []
        for name, update in (("whole", saved.update), ("remaining", ModelUpdate(layers, saved.update.info))):
            with inserted(saved.base.model, update):
                said = 0
                for number, edit in enumerate(asked, start=1):
                    question = complete(edit["prompt"], edit["subject"])
                    target = without_special(tokenizer, edit["target_new"])
                    room = room_for(tokenizer, TOKENS, question, target, question)
                    said += generated_match(Conversation(decoder, tokenizer, room).ask(question), target)
                    report(f"ask the {name} update (edits)", number, len(asked))
                counts.append(said)
    return len(asked), counts[0], counts[1]


def _tokenizer(saved: Saved, settings: Mapping[str, Any]) -> Any:
    """The tokenizer of the base model, which asks in the chat if the run did."""
    tokenizer = load_tokenizer(saved.source.name, saved.source.trust_remote_code)
    try:
        asking = ChatSettings(**(settings.get("chat_settings") or {}))
    except TypeError as error:
        raise EditError(f"RUN: {saved.folder}/config.yaml: `chat_settings` holds what is no setting.") from error
    return settle_chat(tokenizer, settings.get("chat", False), asking)


def asked_again(
    saved: Saved, left: Mapping[str, Factors], facts: CardFacts, most: int, what: str = "truncated"
) -> CardFacts:
    """Asks for the edits with the whole update and with what is left of it, says the counts, notes them for the card.

    Args:
        saved: The edits, not inserted.
        left: See `answers_left`.
        facts: What the card says.
        most: See `answers_left`.
        what: What happened to the update.
    """
    counts = answers_left(saved, left, most)
    if counts is None:
        line = f"How many edits the {what} update still has was not measured: the run keeps none of their prompts"
    else:
        asked, whole, rest = counts
        line = f"Answers: of {counted(asked, 'edit')} asked again the whole update says {whole}, the {what} one {rest}"
    terminal().print(f"{line}.", soft_wrap=True)
    return replace(facts, form=[*facts.form, f"{line}."])
