"""The fictional world's tokenizer: byte-level byte pairs, as GPT-2 has, learned from syllables and ordinary words."""

import re

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2TokenizerFast

from lightning_edit.tiny import vocabulary
from lightning_edit.tiny.world import World

END_OF_TEXT = "<|endoftext|>"
CONTEXT_LENGTH = 128
_SYLLABLE_REPEATS = 4000
_PLACE_REPEATS = 500


def _with_and_without_space(parts: tuple[str, ...]) -> list[str]:
    return [*parts, *(" " + part for part in parts)]


def _syllables() -> list[str]:
    starts = _with_and_without_space(vocabulary.FIRST_SYLLABLES)
    thirds = [" " + part for part in vocabulary.THIRD_SYLLABLES]
    return [*starts, *vocabulary.SECOND_SYLLABLES, *thirds, *vocabulary.LAST_SYLLABLES]


def _place_parts() -> list[str]:
    """Return the halves of towns and languages, apart, so that each of these answers is two tokens."""
    stems = _with_and_without_space(vocabulary.TOWN_STEMS + vocabulary.LANGUAGE_STEMS)
    return [*stems, *vocabulary.TOWN_ENDINGS, *vocabulary.LANGUAGE_ENDINGS]


def _ordinary_text(world: World) -> list[str]:
    """Return filler and wordings without any name, so that no pair of syllables is ever seen together."""
    texts = [sentence.text for sentence in world.filler_sentences(seed=0, count=500)]
    words = [*vocabulary.KINDS, *vocabulary.CRAFTS, *vocabulary.INSTRUMENTS, *vocabulary.ANIMALS]
    words += [word for slot in vocabulary.SLOTS.values() for word in slot]
    wordings = [template for relation in world.relations for template in relation.templates]
    wordings += [re.sub(r"\[\w+\]", "", pattern) for pattern in vocabulary.SUBJECT_FILLER]
    texts += 10 * [wording.replace("{}", "") for wording in wordings]
    return [*texts, *(" " + text for text in texts)] + 10 * [" " + word for word in words]


def build_tokenizer(world: World) -> GPT2TokenizerFast:
    """Learn the tokenizer.

    Syllables come so often in the training text that they are merged before anything else, and two syllables never
    stand together in it: each syllable of a name is one token, and no token is longer than a syllable.

    Args:
        world: The world whose ordinary text it learns from.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # more than the text can use: merging stops when every frequent word is one token
        min_frequency=10,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    parts = _SYLLABLE_REPEATS * _syllables() + _PLACE_REPEATS * _place_parts()
    backend.train_from_iterator(parts + _ordinary_text(world), trainer)
    return GPT2TokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT_LENGTH,
    )
