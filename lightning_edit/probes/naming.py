"""Whether texts name subjects of edits, of which there may be very many."""

import re
from collections.abc import Iterable, Iterator, Sequence

from lightning_edit.probes.split import folded
from lightning_edit.whole_words import HANGUL, find_whole, plainly, words_in

# So many letters of a case or a plural may follow a subject that has so many letters.
LONGEST_ENDING = 3
LONG = 5
# "and", "in", "to" and the like, which Hebrew and Arabic write right before a word; a subject needs so many letters.
PREFIXES = frozenset("בהוכלמש" + "وفبكلس")
NOT_SHORT = 3
# Marks of emphasis are no part of the word that they stand around.
_AROUND_WORDS = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")


class EditedSubjects:
    """Subjects, found in texts as whole words; neither case nor a leading "the" counts, see `folded`.

    A subject of five letters or more may have up to three more behind it, such as an ending of a case: to leave out one
    text too many costs less than to take one that is about an edit.

    Args:
        subjects: Those of the edits; blank ones are none.

    Example:
        >>> edited = EditedSubjects(["The Beatles", "Iran", "Berlin"])
        >>> edited.named_in("When did the beatles part?"), edited.named_in("Where is Tirana?")
        (True, False)
        >>> edited.named_in("Was ist Berlins Fluss?")
        True
    """

    def __init__(self, subjects: Iterable[str]) -> None:
        self.folded = frozenset(map(folded, subjects)) - {""}
        # A text of few words needs to be searched for few of them.
        self._by_key: dict[str, list[str]] = {}
        for subject in sorted({_sought(subject) for subject in self.folded}):
            self._by_key.setdefault(_key_of(subject), []).append(subject)

    def named_in(self, text: str) -> bool:
        """Whether a text names one of them.

        Args:
            text: A prompt, a subject, or a longer text.
        """
        # A "the" at the beginning is left out, so that one of the text's own stays.
        plain = plainly(folded(f"the {text}"))
        bare = _AROUND_WORDS.sub(" ", plain) if "_" in plain else plain
        return self._among(plain) or (bare != plain and self._among(bare))

    def _among(self, plain: str) -> bool:
        words = words_in(plain)
        keys = {"", *(key for word in set(words) for key in _keys_for(word))}
        # Looking for a part of a text is fast, and tells most of them.
        near = (one for key in keys & self._by_key.keys() for one in self._by_key[key] if one in plain)
        return any(find_whole(plain, one) or _inflected(words, one) for one in near)


def _sought(subject: str) -> str:
    """A folded subject as texts write it; of "The The" the article alone would be in nearly all of them."""
    return "the the" if subject == "the" else plainly(subject)


def _key_of(subject: str) -> str:
    """A word of every text that names a subject; "" where none is sure to be."""
    words = words_in(subject)
    if not words:
        return ""
    # In the text a Korean word may go on with a particle, but begins the same.
    return words[0][0] if len(words) == 1 and HANGUL[0] <= words[0][-1] <= HANGUL[1] else words[0]


def _keys_for(word: str) -> Iterator[str]:
    """The keys of all subjects that a word of a text may begin."""
    for one in (word, word[1:]) if word[0] in PREFIXES else (word,):
        yield one
        yield from (one[:end] for end in range(max(LONG, len(one) - LONGEST_ENDING), len(one)))
    if max(word) >= HANGUL[0]:
        yield word[0]


def _inflected(words: Sequence[str], subject: str) -> bool:
    """Whether a text of these words has a subject with a prefix or an ending."""
    own, letters = words_in(subject), sum(map(str.isalpha, subject))
    if not own or letters < NOT_SHORT:
        return False
    longest = LONGEST_ENDING if letters >= LONG else 0
    for start in range(len(words) - len(own) + 1):
        first, *others = words[start : start + len(own)]
        if first[0] in PREFIXES and first[1:].startswith(own[0]):
            first = first[1:]
        *before, last = first, *others
        ending = last[len(own[-1]) :]
        goes_on = len(ending) <= longest and not any(letter.isdecimal() or letter == "_" for letter in ending)
        if before == own[:-1] and last.startswith(own[-1]) and goes_on:
            return True
    return False
