"""Ordinary text as rows of tokens: each text for itself, or one after the other in long rows."""

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

CHUNK = 256


def text_rows(tokenizer: Any, texts: Iterable[str], wanted: int, length: int) -> list[Sequence[int]]:
    """A row for each text.

    Args:
        tokenizer: A fast transformers tokenizer.
        texts: Read until there are enough tokens.
        wanted: How many tokens.
        length: Tokens after which a text is cut.
    """
    # Four bytes a token: 50 million tokens take 200 MB, which spares reading, or keeping, the text twice.
    rows: list[Sequence[int]] = []
    count = 0
    for chunk in _chunks(texts):
        for ids in tokenizer(chunk, verbose=False)["input_ids"]:
            row = array("i", ids[: min(length, wanted - count)])
            if row:
                rows.append(row)
                count += len(row)
            if count >= wanted:
                return rows
    return rows


def joined_rows(tokenizer: Any, texts: Iterable[str], wanted: int, length: int) -> list[Sequence[int]]:
    """Rows of ``length`` tokens in which texts follow each other, a space between them; a text may go on in the next.

    What the tokenizer puts before every text, such as a token for its beginning, stands before every row.

    Args:
        tokenizer: See `text_rows`.
        texts: The same.
        wanted: How many tokens.
        length: Tokens of a row; the last one may have fewer.
    """
    begin = list(tokenizer(["a"], verbose=False)["input_ids"][0])
    bare = list(tokenizer(["a"], verbose=False, add_special_tokens=False)["input_ids"][0])
    begin = begin[: begin.index(bare[0])] if bare and bare[0] in begin else []
    rows: list[Sequence[int]] = []
    row, count = array("i", begin), 0
    for ids in _ids(tokenizer, texts):
        for token in ids:
            row.append(token)
            if len(row) >= length or count + len(row) >= wanted:
                rows.append(row)
                count += len(row)
                row = array("i", begin)
            if count >= wanted:
                return rows
    return [*rows, row] if len(row) > len(begin) else rows


def _ids(tokenizer: Any, texts: Iterable[str]) -> Iterator[Sequence[int]]:
    for chunk in _chunks(texts):
        spaced = [f" {text.strip()}" for text in chunk if text.strip()]
        if spaced:
            yield from tokenizer(spaced, verbose=False, add_special_tokens=False)["input_ids"]


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        yield chunk
