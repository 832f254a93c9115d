"""The second moments of the edited layers of a run: from which text, from the cache or computed, and checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor

from lightning_edit.asking.chat import chat_of
from lightning_edit.asking.tokenization import Encoded
from lightning_edit.distributed.process_group import gathered
from lightning_edit.errors import EditError
from lightning_edit.keys.own_text import kept_texts
from lightning_edit.keys.question_moment import mixed_with_questions, with_questions
from lightning_edit.keys.stored_moments import StoredMoments, moment_without_text, unneeded_moment
from lightning_edit.keys.text_moments import Moments, check_outputs, text_moments
from lightning_edit.keys.text_rows import joined_rows, text_rows
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.settings import NO_EFFECT, Count, NotNegative, Settings, Share
from lightning_edit.solvers.base import Solver
from lightning_edit.solvers.checks import check_second_moments
from lightning_edit.storage.cache import Cache
from lightning_edit.without_effect import refuse_changed

Source = Literal["text", "identity", "none"]
TOKENS_PER_DIMENSION = 10
CHAT_SHARE = 0.7
OF_QUESTIONS = ("questions", "subject_share", "subjects")
# Presets of models name `tokens`, whatever a run then does without text.
OF_TEXT = ("length", "join_texts", "question_share", *OF_QUESTIONS)
# Of a run that counts no second moment.
NOT_COUNTED = (*OF_TEXT, "preserve")


@dataclass(frozen=True)
class SecondMomentSettings(Settings):
    """From what and how much text second moments are computed, and where the result is kept.

    Raises:
        EditError: If a number is out of its range, or a setting has no effect beside another one.
    """

    section: ClassVar[str] = "second_moment"

    tokens: Count | None = None
    """How many tokens of ordinary text to use; null for 10 x d_in, which suffices (arXiv 2506.04226).

    Of E experts, of which a token visits k, E / k times as many.
    """

    length: Count = 512
    """Texts are cut to this many tokens (at most the model's context)."""

    cache_dir: Annotated[str | None, NO_EFFECT] = "~/.cache/lightning_edit"
    """Folder of cached second moments; null disables the cache."""

    source: Source = "text"
    """Where C comes from: ``text``, ``identity`` (C = I) or ``none`` (C = 0, the ridge alone preserves).

    ``text`` is E[k k^T] over ordinary text, and over questions where `question_share` says so. With ``identity`` all
    directions count alike (EasyEdit's ``mom2_adjustment: false``). The last two read no text.
    """

    question_share: Share | None = None
    """How much of C is from questions, in the wordings of the edits and in others, about subjects that are not edited.

    The rest is from ordinary text; null for 0.7 where the run is in a chat, else 0. See `run_questions`.
    """

    questions: Count = 1500
    """How many questions, for each of `chat_settings.contexts`."""

    subject_share: Share = 0.5
    """How much of what is from questions is from the last tokens of their subjects alone, where edits are made."""

    subjects: str | None = None
    """A text file of subjects that the wordings of the edits are asked about, one a line; null for the shipped list."""

    preserve: list[str] = field(default_factory=list)
    """Prompts whose keys are preserved beside C: ``neighbors``, ``old_objects``, files of yours with a question a line.

    ``neighbors`` are the records' neighborhood prompts, and their figures are then not held out any more.
    ``old_objects`` are shipped prompts that ask for the old object of an edit, or about it.
    """

    preserve_weight: NotNegative = 1.0
    """What the mean of these keys' moments counts, where C counts 1; 0 switches it off."""

    join_texts: bool = False
    """Whether texts are put together to rows of ``length`` tokens, so that what follows long contexts is preserved too.

    If each text is a sentence, C knows nothing of keys far from the beginning of a text, where edits may do harm.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source != "text":
            beside = f"`second_moment.source: {self.source}`, which reads no text"
            refuse_changed(self, OF_TEXT, beside, "Set `second_moment.source` to text")
        if self.question_share == 0:
            remedy = "Raise `second_moment.question_share`, or set it to null"
            refuse_changed(self, OF_QUESTIONS, "`second_moment.question_share: 0`", remedy)
        if not self.preserve:
            refuse_changed(self, ("preserve_weight",), "an empty `second_moment.preserve`", "Name prompts to preserve")

    def share_of_questions(self, chat: bool) -> float:
        """How much of C is from questions.

        Args:
            chat: Whether the run is in a chat.
        """
        usual = CHAT_SHARE if chat else 0.0
        return 0.0 if self.source != "text" else usual if self.question_share is None else self.question_share


def check_counted(settings: SecondMomentSettings, beside: str, remedy: str) -> None:
    """Refuses settings of second moments where none are counted; how many tokens they take may stay.

    Args:
        settings: See `SecondMomentSettings`.
        beside: Why none are counted, for the message.
        remedy: What would have them counted.

    Raises:
        EditError: Names the settings.
    """
    refuse_changed(settings, NOT_COUNTED, beside, remedy)


def tokens_wanted(decoder: Decoder, layers: Sequence[int], settings: SecondMomentSettings) -> int:
    """How many tokens of ordinary text the settings ask for.

    Args:
        decoder: The model.
        layers: The edited layers.
        settings: See `SecondMomentSettings`.
    """
    return settings.tokens or max(_tokens_for(decoder, layer) for layer in layers)


def _tokens_for(decoder: Decoder, layer: int) -> int:
    """Ten for each dimension, of experts as many visits: a token visits k of E."""
    tokens, experts = TOKENS_PER_DIMENSION * decoder.moment_shape(layer)[-1], decoder.experts(layer)
    visited = getattr(decoder.model.config.get_text_config(), "num_experts_per_tok", None) or 1
    return tokens * max(1, experts // visited)


def second_moments(
    decoder: Decoder,
    tokenizer: Any,
    texts: Iterable[str],
    layers: Sequence[int],
    settings: SecondMomentSettings,
    report: Report = silent,
) -> dict[int, Tensor]:
    """The second moments of the edited layers, from the cache where they are there already.

    A cached file is named after the weights, the token ids and the layer, so a change of any of them is another file.
    A pass of more than some minutes keeps its sums there from time to time, and goes on from them if it was killed.
    With the source ``identity`` or ``none`` no text is read.

    Args:
        decoder: The model.
        tokenizer: Its tokenizer.
        texts: Ordinary text; read until there are enough tokens.
        layers: The edited layers.
        settings: See `SecondMomentSettings`.
        report: Called with the number of tokens done.

    Returns:
        For each layer ``(d_in, d_in)`` in float64, of E experts ``(E, d_in, d_in)``.

    Raises:
        EditError: If there is no text, or another process failed.
    """
    rows = _text_rows(decoder, tokenizer, texts, layers, settings)
    return dict(_of_rows(decoder, rows, layers, settings, report))


def _text_rows(
    decoder: Decoder, tokenizer: Any, texts: Iterable[str], layers: Sequence[int], settings: SecondMomentSettings
) -> list[Sequence[int]]:
    """Token ids of the ordinary text, none where none is read."""
    if settings.source != "text":
        return []
    length = min(settings.length, decoder.context or settings.length)
    read = joined_rows if settings.join_texts else text_rows
    rows = read(tokenizer, texts, tokens_wanted(decoder, layers, settings), length)
    if not rows:
        raise EditError(
            "There is no ordinary text for the second moments; give some as `data.preservation` (`texts` in Python)."
        )
    return rows


def _of_rows(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    settings: SecondMomentSettings,
    report: Report,
    outputs: bool = False,
) -> Moments:
    if settings.source != "text":
        return Moments({layer: moment_without_text(decoder, layer, settings.source == "identity") for layer in layers})
    return text_moments(decoder, rows, layers, settings.cache_dir, report, outputs)


def prepare_second_moments(
    decoder: Decoder,
    tokenizer: Any,
    texts: Iterable[str] | None,
    layers: Sequence[int],
    settings: SecondMomentSettings,
    solver: Solver,
    seed: int,
    report: Report = silent,
    questions: Sequence[Sequence[Encoded]] = (),
    preserved: Sequence[Sequence[Encoded]] = (),
) -> Moments:
    """The second moments of a run, checked, from the model's own text where there is no other.

    Args:
        decoder: The model.
        tokenizer: Its tokenizer.
        texts: Ordinary text, or None.
        layers: The edited layers.
        settings: See `SecondMomentSettings`.
        solver: Must be able to use them.
        seed: Of the model's own text.
        report: Called with the number of tokens generated, then read.
        questions: Groups of questions that C is mixed with, see `mixed_with_questions`; empty for text alone.
        preserved: Groups of prompts whose keys are added with `preserve_weight`, see `encode_named`.

    Returns:
        Those of keys, and of output gradients for a solver that needs them, which are of ordinary text alone. Where
        little memory is to be used and the model itself is on the CPU, those of keys are in files, and each is made in
        a pass of its own. For a solver that needs none they are 0, and nothing is read.

    Raises:
        EditError: If there is no text, or too little for the solver; if neither C nor the solver's ridge preserves.
    """
    if not solver.needs_second_moment:
        return Moments({layer: unneeded_moment(decoder, layer) for layer in layers})
    if settings.source == "none" and not solver.ridge:
        raise EditError(
            "`second_moment.source: none` takes C = 0 and the solver's `ridge` is 0, so nothing would be preserved and "
            "the update is not defined. Raise the solver's `ridge`, or set `second_moment.source` to text or identity."
        )
    check_outputs(settings.source, solver)
    rows = ordinary_rows(decoder, tokenizer, texts, layers, settings, seed, report)
    cache = None if settings.cache_dir is None else Cache(settings.cache_dir)
    share = settings.share_of_questions(chat_of(tokenizer) is not None)

    def of(some: Sequence[int]) -> Moments:
        found = _of_rows(decoder, rows, some, settings, report, solver.needs_output_moment)
        moments = dict(found)
        if questions:
            moments = mixed_with_questions(decoder, moments, questions, share, settings.subject_share, cache, report)
        if settings.preserve_weight:
            moments = with_questions(decoder, moments, preserved, settings.preserve_weight, 0.0, cache, report)
        for layer, moment in moments.items():
            check_second_moments({decoder.shown(layer): moment.to(decoder.device)}, solver)
        return Moments(moments, found.outputs)

    if decoder.memory == "normal" or decoder.device.type != "cpu":
        return of(layers)
    stored, outputs = StoredMoments(), dict[int, Tensor]()
    for layer in layers:
        outputs |= stored.moved(of([layer]))
    return Moments(stored, outputs)


def ordinary_rows(
    decoder: Decoder,
    tokenizer: Any,
    texts: Iterable[str] | None,
    layers: Sequence[int],
    settings: SecondMomentSettings,
    seed: int,
    report: Report = silent,
) -> list[Sequence[int]]:
    """Token ids of the ordinary text of a run, the model's own where there is no other.

    Args:
        decoder: The model.
        tokenizer: Its tokenizer.
        texts: Ordinary text, or None.
        layers: The edited layers.
        settings: See `SecondMomentSettings`.
        seed: Of the model's own text.
        report: Called with the number of tokens generated.

    Raises:
        EditError: If there is no text.
    """
    if texts is None and settings.source == "text":
        wanted = tokens_wanted(decoder, layers, settings)
        texts = gathered(kept_texts(decoder.model, tokenizer, wanted, seed, settings.cache_dir, report))[0]
    return _text_rows(decoder, tokenizer, texts or (), layers, settings)
