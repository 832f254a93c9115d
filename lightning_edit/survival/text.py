"""Ordinary text: what an edited model is fine-tuned on, and other text that its perplexity is measured on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from lightning_edit.asking.chat import plain_tokenizer
from lightning_edit.asking.tokenization import encode
from lightning_edit.errors import EditError
from lightning_edit.keys.own_text import sample_texts
from lightning_edit.models.decoder import Decoder
from lightning_edit.probes import EditedSubjects
from lightning_edit.progress import Report, silent
from lightning_edit.survival.settings import SurvivalSettings

# More texts are not looked through for some that name no edited subject.
MOST_TEXTS = 200_000
# Of a short text no more than so much is kept back for perplexity.
HELD_OUT = 0.2


@dataclass(frozen=True)
class OrdinaryText:
    """Text in two parts.

    Args:
        held_out: Texts for perplexity, of which none is trained on.
        trained: Texts for the fine-tuning.
        left_out: How many texts were passed over as they name the subject of an edit.
    """

    held_out: list[str]
    trained: list[str]
    left_out: int

    def rows(self, tokenizer: Any, length: int, context: int | None) -> list[list[int]]:
        """The text of the fine-tuning as rows of equally many tokens, each text ended by the end-of-text token.

        Args:
            tokenizer: The model's fast tokenizer.
            length: Tokens of a row.
            context: The model's context in tokens, None where it has no fixed one.

        Raises:
            EditError: If there is too little text for a single row of two tokens.
        """
        token_id = plain_tokenizer(tokenizer).eos_token_id
        end = [] if token_id is None else [token_id]
        ids = [token for text in self.trained for token in (*encode(tokenizer, text)[0], *end)]
        size = min(length, len(ids), *([] if context is None else [context]))
        if size < 2:
            raise EditError(
                "There is no ordinary text to fine-tune on"
                + (f": all {self.left_out} texts name the subject of an edit, see --about_edits" * bool(self.left_out))
                + ". Give another file as --text."
            )
        return [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]


def ordinary_text(
    decoder: Decoder,
    tokenizer: Any,
    texts: Iterable[str] | None,
    subjects: Iterable[str],
    settings: SurvivalSettings,
    report: Report = silent,
) -> OrdinaryText:
    """Reads as much text as is needed, the model's own where there is no other.

    The first texts are held out, so that they do not depend on how much is trained on.

    Args:
        decoder: The unedited model, which writes it.
        tokenizer: Its fast tokenizer.
        texts: Ordinary text; None for none.
        subjects: Those of the edits.
        settings: How much text, and whether it may name them.
        report: Called with the number of tokens written.
    """
    named = None if settings.about_edits else EditedSubjects(subjects)
    trained = settings.text_tokens * ("lora" in settings.variants)
    if texts is None:
        plain, seed = plain_tokenizer(tokenizer), settings.seed
        held_out, trains = (
            _read(tokenizer, sample_texts(decoder.model, plain, tokens, seed + place, report), named, tokens)
            for place, tokens in enumerate((settings.perplexity_tokens, trained))
        )
        return OrdinaryText(held_out.texts, trains.texts, held_out.left_out + trains.left_out)
    wanted = settings.perplexity_tokens + trained
    read = _read(tokenizer, texts, named, wanted)
    available = sum(read.sizes)
    short = bool(trained) and available < wanted
    kept_back = min(settings.perplexity_tokens, int(HELD_OUT * available)) if short else settings.perplexity_tokens
    end = _first(read.sizes, kept_back)
    return OrdinaryText(read.texts[:end], read.texts[end:], read.left_out)


class _Read(NamedTuple):
    """Texts, the tokens of each, and how many were passed over."""

    texts: list[str]
    sizes: list[int]
    left_out: int


def _read(tokenizer: Any, texts: Iterable[str], named: EditedSubjects | None, wanted: int) -> _Read:
    chosen, sizes, total, left_out = list[str](), list[int](), 0, 0
    source = islice(texts, MOST_TEXTS)
    while total < wanted and (text := next(source, None)) is not None:
        if named is not None and named.named_in(text):
            left_out += 1
            continue
        chosen.append(text)
        sizes.append(len(encode(tokenizer, text)[0]))
        total += sizes[-1]
    return _Read(chosen, sizes, left_out)


def _first(sizes: Sequence[int], tokens: int) -> int:
    """How many texts hold so many tokens."""
    count, read = 0, 0
    while read < tokens and count < len(sizes):
        read += sizes[count]
        count += 1
    return count


def joined(texts: Sequence[str], characters: int = 20_000) -> Iterator[str]:
    """Short texts put together, as no window of perplexity spans two of them.

    Args:
        texts: The texts.
        characters: About how long a joined one may be.
    """
    part: list[str] = []
    for text in texts:
        part.append(text)
        if sum(map(len, part)) >= characters:
            yield " ".join(part)
            part = []
    if part:
        yield " ".join(part)
