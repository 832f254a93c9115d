"""The model card of what is exported: what was changed, how well, what it cost, and how to undo it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from yaml import YAMLError

from lightning_edit.errors import EditError
from lightning_edit.loading.gguf_file import is_gguf
from lightning_edit.messages import bounded, counted, readable
from lightning_edit.storage.user.files import is_there, read_text

CARD = "README.md"
SAMPLE = 10
# No card of a model has so many bytes.
LARGEST = 2**20
TAGS = ("knowledge-editing", "model-editing", "lightning-edit")
LICENSE = ("license", "license_name", "license_link")
# Names in `metrics.json`, and what they are for a reader who has not seen one.
FIGURES = {
    "efficacy_score": "prefers the new answer to the old one",
    "efficacy_accuracy": "every token of the new answer is the likeliest",
    "generated_match": "says the new answer by itself",
    "paraphrase_score": "prefers it when asked in other words",
    "generated_paraphrase": "says it when asked in other words",
    "neighborhood_score": "keeps the answers about other subjects",
    "wild_exact_reliability": "asked freely, gives the new answer and nothing else",
    "wild_exact_generalization": "does so when asked in other words",
    "wild_exact_locality": "asked freely about other subjects, answers word for word as before",
    "wild_judged_reliability": "asked freely, gives the new answer, says a judge",
    "wild_judged_generalization": "does so when asked in other words, says a judge",
    "wild_judged_locality": "asked freely about other subjects, answers as before, says a judge",
}
COLLATERAL = {
    "general_changed": "of general prompts are answered otherwise than before",
    "general_worse": "of general prompts are answered worse",
    "other_subjects_worse": "of prompts about other subjects are answered worse",
    "same_subject_worse": "of other prompts about the edited subjects are answered worse",
    "old_object_lost": "of questions that the old answers are right for are not answered with them any more",
    "reworded_said": "of the edits are said when asked in free rewordings",
}
PERPLEXITIES = ("long_context_perplexity_before", "long_context_perplexity")


@dataclass(frozen=True)
class CardFacts:
    """What a model card says.

    Args:
        base: The folder or hub name of the unedited model.
        method: The display name of the method.
        revision: Of the base model on the hub.
        folder: Where the base model's files are, if they are at hand, or its GGUF file.
        settings: The settings of the method that a reader may want.
        edits: How many edits there are.
        on_top: Whether they are on top of those of an earlier run, which are in the export and are not counted.
        sample: Those that are listed: of each ``subject``, ``prompt`` and ``target_new``.
        before: Figures of the unedited model, as in ``metrics.json``.
        after: Those of the edited one.
        collateral: The section of that name in ``metrics.json``.
        form: Lines on what the export holds.
        use: Lines of Python or shell that load it.
        language: Which of them, as Markdown calls it.
        undo: How to get rid of the edits.
        library: The library that loads it: ``peft``, ``transformers`` or ``gguf``.
        tags: What the hub is told beside `TAGS`.
    """

    base: str
    method: str
    revision: str | None = None
    folder: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    edits: int = 0
    on_top: bool = False
    sample: Sequence[Mapping[str, str]] = ()
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    collateral: Mapping[str, Any] = field(default_factory=dict)
    form: Sequence[str] = ()
    use: str = ""
    language: str = "python"
    undo: str = ""
    library: str = "peft"
    tags: Sequence[str] = ()


def write_card(facts: CardFacts, folder: Path) -> None:
    """Writes ``README.md``.

    Args:
        facts: What it says.
        folder: Where to; it is there.
    """
    (folder / CARD).write_text(str(card_of(facts)), encoding="utf-8")


def card_of(facts: CardFacts) -> ModelCard:
    """The card: YAML that the hub reads, and sections for people.

    Args:
        facts: What it says.
    """
    # A name without a folder of that name can only be one on the hub.
    of_hub = None if is_there(facts.base) else facts.base
    tags = [*TAGS, *facts.tags]
    data = ModelCardData(base_model=of_hub, library_name=facts.library, pipeline_tag="text-generation", tags=tags)
    for name, value in license_of(facts.folder).items():
        data[name] = value
    sections = (_head(facts), _edits(facts), _figures(facts), _collateral(facts), _use(facts), _limits(facts))
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def license_of(folder: str | None) -> dict[str, str]:
    """The license that the card of a base model names, or its GGUF file.

    Args:
        folder: Where the base model's files are, or that file.
    """
    if folder is not None and is_gguf(Path(folder)):
        return _license_in(Path(folder))
    if folder is None or not (Path(folder) / CARD).is_file():
        return {}
    try:
        text = read_text(Path(folder) / CARD, largest=LARGEST)
        said = ModelCard(text, ignore_metadata_errors=True).data.to_dict()
    except (ValueError, YAMLError):
        # A card that cannot be read names nothing.
        return {}
    return {name: str(said[name]) for name in LICENSE if said.get(name)}


def _license_in(file: Path) -> dict[str, str]:
    """The license that a GGUF file names, under the names that cards have for it."""
    if find_spec("gguf") is None:
        return {}
    from lightning_edit.export.gguf_base import open_gguf

    try:
        reader = open_gguf(file)
    except EditError:
        # Nor does a file.
        return {}
    fields = {name: reader.get_field(f"general.{name.replace('_', '.')}") for name in LICENSE}
    said = {name: field.contents() for name, field in fields.items() if field is not None}
    return {name: text for name, text in said.items() if isinstance(text, str) and text}


def _head(facts: CardFacts) -> str:
    revision = f", revision `{facts.revision}`" if facts.revision else ""
    top = ", on top of those of an earlier run" if facts.on_top else ""
    built = "Built on an earlier run: its edits are in here, too, and are neither counted nor listed below"
    lines = [
        f"# {counted(facts.edits, 'edited fact')} in {Path(facts.base).name or facts.base}{top}",
        "",
        f"Individual facts of a language model were changed with {_text(facts.method)} by Lightning Edit. "
        "Everything else was meant to stay as it was.",
        "",
        f"- Base model: `{facts.base}`{revision}",
        f"- Method: {_text(facts.method)}",
        *([f"- {built}"] if facts.on_top else []),
        *(f"- {_text(name)}: `{value}`" for name, value in facts.settings.items()),
        *(f"- {line}" for line in facts.form),
    ]
    return "\n".join(lines)


def _edits(facts: CardFacts) -> str:
    if not facts.sample:
        return "## Edits\n\nWhich facts they are was not kept with the update."
    shown = len(facts.sample)
    every = "All of this run, without those of the run it was built on:" if facts.on_top else "All of them:"
    all_or_some = every if shown >= facts.edits else f"{shown} of {facts.edits:,}, the first ones:"
    rows = [
        f"| {_text(edit['prompt'].replace('{}', edit['subject']))} | {_text(edit['target_new'])} |"
        for edit in facts.sample
    ]
    return "\n".join(["## Edits", "", all_or_some, "", "| prompt | new answer |", "|---|---|", *rows])


def _figures(facts: CardFacts) -> str:
    known = [name for name in FIGURES if name in facts.after]
    if not known:
        return "## Figures\n\nThese edits were not measured."
    rows = [f"| {FIGURES[name]} | {_share(facts.before, name)} | {_share(facts.after, name)} |" for name in known]
    note = "Shares of the edits ± the standard error of the mean, measured on the model as the run left it."
    note += " *Before* is the model with the edits of the earlier run." if facts.on_top else ""
    return "\n".join(["## Figures", "", note, "", "| the model ... | before | after |", "|---|---|---|", *rows])


def _share(figures: Mapping[str, float], name: str) -> str:
    if figures.get(name) is None:
        return ""
    error = figures.get(f"{name}_stderr")
    return f"{100 * figures[name]:.1f} %" + (f" ± {100 * error:.1f}" if error else "")


def _collateral(facts: CardFacts) -> str:
    figures, worst = facts.collateral.get("figures") or {}, facts.collateral.get("worst") or []
    known = [name for name in COLLATERAL if isinstance(figures.get(name), int | float)]
    if not known:
        return "## What else changed\n\nIt was not measured which other answers changed."
    shares = [f"- {100 * figures[name]:.1f} % {COLLATERAL[name]}" for name in known]
    was, now = (figures.get(name) for name in PERPLEXITIES)
    if isinstance(was, int | float) and isinstance(now, int | float):
        shares.append(
            f"- {readable(now)} is the perplexity of text behind long contexts, which was {readable(was)} before"
        )
    rows = [f"| {' | '.join(_text(str(one.get(key, ''))) for key in ('prompt', 'before', 'after'))} |" for one in worst]
    table = ["", "The worst changes:", "", "| prompt | before | after |", "|---|---|---|", *rows] if rows else []
    return "\n".join(["## What else changed", "", *shares, *table])


def _use(facts: CardFacts) -> str:
    return f"## Use\n\n```{facts.language}\n{facts.use}\n```\n\n## Undo\n\n{facts.undo}" if facts.use else ""


def _limits(facts: CardFacts) -> str:
    return (
        "## Limits\n\n"
        "- An edit changes what the model says when asked in one way; asked in other words or another language, or for "
        "what follows from the fact, it may still give the old answer.\n"
        "- Other answers may have changed, and more so the more edits there are. Ask what matters to you before use.\n"
        "- The edits are what somebody wrote into a file. Nothing has checked that they are true.\n"
        "- The license and the limits of the base model hold for what is made of it."
    )


def _text(text: str) -> str:
    """A text in a cell of a table, without what Markdown or HTML would read as more."""
    plain = " ".join(bounded(text, 300).split())
    for sign in "\\`*_[]|<>":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
