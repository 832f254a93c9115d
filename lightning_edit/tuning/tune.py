"""From a model to the settings by which it is edited best."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from lightning_edit.asking.chat import ChatSettings, chat_of, plain_tokenizer
from lightning_edit.asking.questions import as_question
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates, generate_templates
from lightning_edit.keys.layer_stats import SecondMomentSettings, prepare_second_moments
from lightning_edit.keys.named_prompts import named_groups
from lightning_edit.keys.questions import preserving_questions
from lightning_edit.loading.fingerprints import fingerprint_model, fingerprint_tokenizer
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.probe import altered_on_the_way, check_projections
from lightning_edit.progress import Report, silent
from lightning_edit.request_texts import described as described_request
from lightning_edit.requests import EditRequest
from lightning_edit.settings import Count, Seed, Settings, compared_fields
from lightning_edit.solvers import MEMIT
from lightning_edit.storage.fingerprint import Digest, fingerprint
from lightning_edit.tracing.facts import Fact, known_facts
from lightning_edit.tuning.bench import Bench, Trial
from lightning_edit.tuning.judge import JUDGED, Favor
from lightning_edit.tuning.layers import editable_layers, effects, layer_sets
from lightning_edit.tuning.log import TrialLog
from lightning_edit.tuning.material import Material, answered, from_requests
from lightning_edit.tuning.points import Point, Space
from lightning_edit.tuning.public import from_public_facts, general_questions
from lightning_edit.tuning.search import best_of, search
from lightning_edit.values.settings import ValueSettings


@dataclass(frozen=True)
class TuneSettings(Settings):
    """How much is tried, and what is good.

    Raises:
        EditError: If a value is not accepted.
    """

    section: ClassVar[str] = "tune"

    edits: Count = 32
    """How many facts are edited in the last trials; the first have a quarter of them."""

    favor: Favor = "balance"
    """Whether ``efficacy`` or ``locality`` (that other answers stay) counts for more."""

    tokens: Count = 20
    """How many tokens the model may write to each prompt."""

    seed: Seed = 0
    """Of the choice of facts, the context templates and the noise of the trace."""


@dataclass(frozen=True)
class Plan:
    """All that trials are made with.

    Args:
        material: Edits and questions.
        space: The points that may be tried.
        effects: ``(layers,)`` by which layers were chosen.
        values: How values are optimized, but for what points say.
        chat: Whether the model is asked in a chat.
    """

    material: Material
    space: Space
    effects: Tensor
    values: ValueSettings
    chat: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a tuning found.

    Args:
        plan: What it was made with.
        trials: All trials.
        chosen: The best of those with all edits.
    """

    plan: Plan
    trials: list[Trial]
    chosen: Trial


def make_plan(
    decoder: Decoder,
    tokenizer: Any,
    settings: TuneSettings,
    requests: Sequence[EditRequest] | None = None,
    layers: Sequence[int] | None = None,
    report: Report = silent,
) -> Plan:
    """Chooses edits, questions and layers.

    Args:
        decoder: The unedited model.
        tokenizer: Its fast tokenizer, or a `ChatTokenizer`, by which all edits and questions are asked in a chat.
        settings: See `TuneSettings`.
        requests: The user's records in plain text; None for public facts.
        layers: The layers that may be edited; None for all.
        report: Called from long work.

    Raises:
        EditError: If no layer can be edited, or there is too little to edit.
    """
    editable = editable_layers(decoder)
    if layers is not None:
        if not layers or not set(layers) <= set(editable):
            raise EditError(f"`--layers` must be among those that can be edited, {editable}, got {list(layers)}.")
        editable = sorted(set(layers))
    check_projections(decoder, editable)
    material = _material(decoder, tokenizer, settings, requests, report)
    # Which layers recall facts does not depend on how they are asked, and a sentence to go on with has a short answer.
    tokens, plain = plain_tokenizer(tokenizer), [request.original or request for request in material.requests]
    facts = [Fact(r.subject, r.prompt, r.target_true) for r in plain if r.target_true is not None]
    facts = known_facts(decoder, tokens, facts, report)[0] if facts else []
    effect = effects(decoder, tokens, facts, settings.seed, report)
    altered = altered_on_the_way(decoder, editable)
    sets, values = layer_sets(effect, editable, not altered), ValueSettings(site="mlp" if altered else "block")
    space = Space(sets, decoder.key_size(sets[0][0]))
    return Plan(material, space, effect, values, chat_of(tokenizer) is not None)


def _material(
    decoder: Decoder,
    tokenizer: Any,
    settings: TuneSettings,
    requests: Sequence[EditRequest] | None,
    report: Report,
) -> Material:
    general = general_questions(decoder, tokenizer, settings.tokens, settings.seed, report)
    if requests is None:
        how = (settings.edits, settings.seed, settings.tokens, general, report)
        return from_public_facts(decoder, tokenizer, *how)
    asked = requests if chat_of(tokenizer) is None else [as_question(request) for request in requests]
    material = from_requests(asked, settings.edits, settings.seed)
    kept = answered(decoder, tokenizer, material.kept, settings.tokens, report)
    return replace(material, kept=(*kept, *general))


def bench_for(
    decoder: Decoder,
    tokenizer: Any,
    plan: Plan,
    settings: TuneSettings,
    texts: Iterable[str] | None = None,
    second_moment: SecondMomentSettings | None = None,
    report: Report = silent,
) -> Bench:
    """Makes what all trials share.

    Args:
        decoder: The unedited model.
        tokenizer: Its fast tokenizer.
        plan: See `make_plan`.
        settings: See `TuneSettings`.
        texts: Ordinary text to preserve; None lets the model write its own.
        second_moment: How much of it is read.
        report: Called from long work.

    Raises:
        EditError: If there is too little text.
    """
    layers = sorted({layer for chosen in plan.space.layer_sets for layer in chosen})
    templates = generate_templates(decoder.model, tokenizer, settings.seed)
    if plan.chat:
        templates = templates.in_worlds(ChatSettings())
    read = second_moment or SecondMomentSettings()
    asked = preserving_questions(plan.material.requests, tokenizer, templates, read, settings.seed)
    named = named_groups(plan.material.requests, read, tokenizer, templates.worlds, decoder.context)
    how = (read, MEMIT(), settings.seed, report, asked, named)
    moments = prepare_second_moments(decoder, tokenizer, texts, layers, *how)
    # Those of all layers that may be tried would fill the memory of a device.
    on_cpu = {layer: moment.double().cpu() for layer, moment in moments.items()}
    return Bench(decoder, tokenizer, templates, on_cpu, plan.material, plan.values, settings.tokens)


def tune(
    bench: Bench,
    plan: Plan,
    settings: TuneSettings,
    log: TrialLog,
    report: Report = silent,
) -> Outcome:
    """Tries settings by successive halving; trials in the log are not made again.

    Args:
        bench: Where trials are made.
        plan: See `make_plan`.
        settings: See `TuneSettings`.
        log: Where trials are kept.
        report: Called with the number of trials.
    """

    def run(point: Point, edits: int) -> Trial:
        trial = log.get(point, edits)
        if trial is None:
            trial = bench.run(point, edits)
            log.add(trial)
        return trial

    trials = search(plan.space, run, len(plan.material.requests), settings.favor, report)
    return Outcome(plan, trials, best_of(trials, settings.favor))


def hash_of(texts: Iterable[str] | None) -> str:
    """What says which texts second moments are from, by what they are and not where they lie.

    Args:
        texts: All of them; None for the model's own.
    """
    if texts is None:
        return "None"
    digest = Digest()
    for text in texts:
        digest.add(text)
    return str(digest)


def log_for(path: Path, bench: Bench, plan: Plan, settings: TuneSettings, preserved: str) -> TrialLog:
    """The log of a tuning, which knows the trials that were made before it was stopped.

    Args:
        path: The file.
        bench: Where trials are made.
        plan: See `make_plan`.
        settings: See `TuneSettings`.
        preserved: What says which text the second moments are from, see `hash_of`.

    Raises:
        EditError: If the file is of another tuning.
    """
    identity = {
        "weights": fingerprint_model(bench.decoder.model),
        "tokenizer": fingerprint_tokenizer(bench.tokenizer),
        "material": fingerprint(*_texts(plan.material, bench.templates)),
        "values": compared_fields(plan.values),
        "preserved": preserved,
        "tokens": settings.tokens,
        "chat": plan.chat,
        "judged": JUDGED,
    }
    return TrialLog(path, identity)


def _texts(material: Material, templates: ContextTemplates) -> list[str]:
    edits = [
        text
        for request in material.requests
        for text in (request.subject, request.prompt, request.target_new, *request.paraphrase_prompts)
    ]
    # Records that have neither keep the trials of logs from before these counted.
    edits += [
        described_request(one) for one in material.requests if one.separator is not None or one.answer is not None
    ]
    kept = [text for p in material.kept for text in (p.kind, p.prompt, *p.answers, p.unwanted, p.before)]
    return [*edits, *kept, *templates.texts]


def described(outcome: Outcome, favor: Favor) -> dict[str, Any]:
    """All that a tuning tried, as JSON holds it.

    Args:
        outcome: What it found.
        favor: What was favored.
    """
    from lightning_edit.tuning.log import as_json

    return {
        "favor": favor,
        "chosen": as_json(outcome.chosen),
        "effects": outcome.plan.effects.tolist(),
        "layers": [list(layers) for layers in outcome.plan.space.layer_sets],
        "edits": [asdict(request)["subject"] for request in outcome.plan.material.requests],
        "trials": [as_json(trial) for trial in outcome.trials],
    }
