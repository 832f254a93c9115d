"""Whether texts name subjects of edits, of which there may be very many."""

from collections.abc import Iterable

from lightning_edit.probes.split import folded
from lightning_edit.whole_words import HANGUL, find_whole, plainly, words_in


class EditedSubjects:
    """Subjects, found in texts as whole words; neither case nor a leading "the" counts, see `folded`.

    Args:
        subjects: Those of the edits; blank ones are none.

    Example:
        >>> edited = EditedSubjects(["The Beatles", "Iran"])
        >>> edited.named_in("When did the beatles part?"), edited.named_in("Where is Tirana?")
        (True, False)
    """

    def __init__(self, subjects: Iterable[str]) -> None:
        self.folded = frozenset(map(folded, subjects)) - {""}
        # A text of few words needs to be searched for few of them.
        self._by_key: dict[str, list[str]] = {}
        for subject in sorted({_plain(subject) for subject in self.folded}):
            self._by_key.setdefault(_key_of(subject), []).append(subject)

    def named_in(self, text: str) -> bool:
        """Whether a text names one of them.

        Args:
            text: A prompt, a subject, or a longer text.
        """
        plain = _plain(text)
        words = set(words_in(plain))
        keys = {"", *words, *(word[0] for word in words if max(word) >= HANGUL[0])}
        # Looking for a part of a text is fast, and tells most of them.
        near = (one for key in keys & self._by_key.keys() for one in self._by_key[key] if one in plain)
        return any(find_whole(plain, one) for one in near)


def _plain(text: str) -> str:
    return plainly(folded(text))


def _key_of(subject: str) -> str:
    """A word of every text that names a subject; "" where none is sure to be."""
    words = words_in(subject)
    if not words:
        return ""
    # In the text a Korean word may go on with a particle, but begins the same.
    return words[0][0] if len(words) == 1 and HANGUL[0] <= words[0][-1] <= HANGUL[1] else words[0]
