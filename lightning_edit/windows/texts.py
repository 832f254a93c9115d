"""Answers cut into windows."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_edit.asking.tokenization import Encoded


@dataclass(frozen=True)
class WindowedText:
    """A prompt with its answer, cut into windows.

    Args:
        ids: Token ids of the whole text.
        windows: For each window the index of its first token and that behind its last one, ascending.
        owner: To which of the edits the text belongs.
    """

    ids: tuple[int, ...]
    windows: tuple[tuple[int, int], ...]
    owner: int

    @property
    def places(self) -> list[int]:
        """The token before each window, where its value is found and written."""
        return [begin - 1 for begin, _ in self.windows]

    def up_to(self, window: int) -> Encoded:
        """The text to the end of a window, which is what is to be said at the token before it.

        Args:
            window: Its number.
        """
        begin, end = self.windows[window]
        return Encoded(self.ids[:end], begin - 1, begin)


def cut(ids: Sequence[int], start: int, size: int, overlap: int, owner: int) -> WindowedText:
    """Cuts an answer into windows; the last may be shorter.

    Args:
        ids: Token ids of the prompt and its answer.
        start: Index of the answer's first token.
        size: Tokens of a window.
        overlap: How many of them are those with which the window before ends, fewer than ``size``.
        owner: To which of the edits it belongs.

    Example:
        >>> cut(range(10), 3, 4, 1, 0).windows
        ((3, 7), (6, 10))
    """
    begins = range(start, max(len(ids) - overlap, start + 1), size - overlap)
    return WindowedText(tuple(ids), tuple((begin, min(begin + size, len(ids))) for begin in begins), owner)
