"""Very many requests: side by side in a temporary file, each an object only while somebody looks at it."""

import marshal
import os
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from itertools import chain, islice
from operator import attrgetter
from typing import IO, Any, overload

from lightning_edit.errors import EditError
from lightning_edit.request_texts import answered_length, described, longest_text
from lightning_edit.requests import EditRequest, fact_code
from lightning_edit.ripples import Query, Ripple
from lightning_edit.storage.fingerprint import Digest

# More are not held as objects: a record of CounterFact takes some four kilobytes as one.
IN_MEMORY = 20_000
AT_ONCE = 256
NAMES = tuple(field.name for field in fields(EditRequest))
RIPPLES, ORIGINAL, LEAD_INS = map(NAMES.index, ("ripples", "original", "lead_ins"))
# No references between the values of a record: what is written depends on them alone.
FORM = 2
_values_of = attrgetter(*NAMES)


class StoredRequests(Sequence[EditRequest]):
    """Requests in a temporary file without a name, which vanishes with the last sequence that reads it.

    Whoever asks for one gets a new object, equal to the one that was stored. Parts of the sequence read the same file.

    Args:
        requests: Checked requests; each may be forgotten once it is stored.

    Raises:
        EditError: If there is no room for the file.

    Attributes:
        filled: For each field of a request how many of those that were stored have something in it.
    """

    def __init__(self, requests: Iterable[EditRequest]) -> None:
        self._file: IO[bytes] = _temporary_file()
        self._offsets, self._facts, self._longest = array("Q", [0]), array("q"), array("I")
        self._answered = array("I")
        self._changed: Mapping[int, EditRequest] = {}
        counts, digest = [0] * len(NAMES), Digest()
        try:
            for request in requests:
                values = _plain(request)
                size = self._file.write(marshal.dumps(values, FORM))
                self._offsets.append(self._offsets[-1] + size)
                self._facts.append(fact_code(request))
                self._longest.append(longest_text(request))
                self._answered.append(answered_length(request))
                digest.add(described(request))
                for place, value in enumerate(values):
                    if value:
                        counts[place] += 1
            self._file.flush()
        except OSError as error:
            raise EditError(
                f"So many edits are kept in a temporary file, and it cannot be written: {error.strerror or error}. Set "
                "the environment variable TMPDIR to a folder with room, or choose fewer (`data.limit`)."
            ) from error
        self.filled = dict(zip(NAMES, counts, strict=True))
        self._fingerprint: str | None = str(digest)
        self._positions: Sequence[int] = range(len(self._facts))

    def take(self, positions: Sequence[int], changed: Mapping[int, EditRequest] | None = None) -> "StoredRequests":
        """Some of the requests, in the order asked for.

        Args:
            positions: Which, counted from 0.
            changed: What takes the place of some of them, by position.
        """
        part = object.__new__(StoredRequests)
        part.__dict__.update(self.__dict__)
        own = self._positions
        if isinstance(positions, range) and isinstance(own, range):
            first, step = own[positions[0]] if positions else 0, positions.step * own.step
            part._positions = range(first, first + step * len(positions), step)
        else:
            part._positions = array("Q", (own[position] for position in positions))
        part._fingerprint = None
        part._changed = {**self._changed, **{own[position]: request for position, request in (changed or {}).items()}}
        return part

    def fact_codes(self) -> Iterator[int]:
        """The code of what each request is about, see `fact_code`."""
        return (self._facts[position] for position in self._positions)

    def longer_than(self, size: int, answered: bool = False) -> Iterator[EditRequest]:
        """The requests of which a text may have more bytes than so many; see the function `longer_than`.

        Args:
            size: So many.
            answered: Which texts count.
        """
        bytes_of = self._answered if answered else self._longest
        for position in self._positions:
            if bytes_of[position] > size or position in self._changed:
                yield self._read(position)

    @property
    def stored(self) -> int:
        """How many were stored, of which these may be a part."""
        return len(self._facts)

    @property
    def fingerprint(self) -> str:
        """See `fingerprint_of`."""
        if self._fingerprint is None:
            self._fingerprint = _fingerprint(self)
        return self._fingerprint

    def __len__(self) -> int:
        """How many there are."""
        return len(self._positions)

    @overload
    def __getitem__(self, place: int) -> EditRequest: ...

    @overload
    def __getitem__(self, place: slice) -> "StoredRequests": ...

    def __getitem__(self, place: int | slice) -> "EditRequest | StoredRequests":
        """One request, or a part that reads the same file."""
        if isinstance(place, slice):
            return self.take(range(*place.indices(len(self))))
        return self._read(self._positions[place])

    def __iter__(self) -> Iterator[EditRequest]:
        """All requests, one after the other."""
        for start in range(0, len(self), AT_ONCE):
            part = self._positions[start : start + AT_ONCE]
            if not isinstance(part, range) or part.step != 1:
                yield from map(self._read, part)
                continue
            first = self._offsets[part[0]]
            block = memoryview(os.pread(self._file.fileno(), self._offsets[part[-1] + 1] - first, first))
            for position in part:
                if position in self._changed:
                    yield self._changed[position]
                    continue
                begin, end = self._offsets[position] - first, self._offsets[position + 1] - first
                yield _request(marshal.loads(block[begin:end]))

    def _read(self, position: int) -> EditRequest:
        if position in self._changed:
            return self._changed[position]
        begin, end = self._offsets[position], self._offsets[position + 1]
        # Processes that share the file do not share how far it was read.
        return _request(marshal.loads(os.pread(self._file.fileno(), end - begin, begin)))

    def __deepcopy__(self, memo: Any) -> "StoredRequests":
        """Itself: nothing in it ever changes."""
        return self


def kept(requests: Iterable[EditRequest]) -> Sequence[EditRequest]:
    """Requests to be looked at again and again: as a list if they are few, else in a file.

    Args:
        requests: These requests, which may be made one by one.

    Raises:
        EditError: See `StoredRequests`.
    """
    source = iter(requests)
    first = list(islice(source, IN_MEMORY + 1))
    return first if len(first) <= IN_MEMORY else StoredRequests(chain(first, source))


def some_of(requests: Sequence[EditRequest], positions: Sequence[int]) -> Sequence[EditRequest]:
    """Some of the requests, in the order asked for; see `kept`.

    Args:
        requests: All of them.
        positions: Which.
    """
    if isinstance(requests, StoredRequests) and len(positions) > IN_MEMORY:
        return requests.take(positions)
    return [requests[position] for position in positions]


def without(
    requests: Sequence[EditRequest], gone: Collection[int], changed: Mapping[int, EditRequest] | None = None
) -> Sequence[EditRequest]:
    """The requests but some, in their order.

    Args:
        requests: All of them.
        gone: The positions of those to leave out.
        changed: What takes the place of some of the others, by position.
    """
    changed = changed or {}
    if isinstance(requests, StoredRequests):
        if not gone and not changed:
            return requests
        return requests.take([place for place in range(len(requests)) if place not in gone], changed)
    return [changed.get(place, request) for place, request in enumerate(requests) if place not in gone]


def filled(requests: Sequence[EditRequest], name: str) -> bool:
    """Whether some request has something in a field.

    Args:
        requests: The requests.
        name: The field.
    """
    if isinstance(requests, StoredRequests):
        return bool(requests.filled[name])
    return any(getattr(request, name) for request in requests)


def filled_in_all(requests: Sequence[EditRequest], name: str) -> bool:
    """Whether all requests have something in a field.

    Args:
        requests: The requests.
        name: The field.
    """
    if isinstance(requests, StoredRequests):
        # Of a part all that were stored are looked at first.
        return requests.filled[name] == requests.stored or all(getattr(request, name) for request in requests)
    return all(getattr(request, name) for request in requests)


def fingerprint_of(requests: Sequence[EditRequest]) -> str:
    """The hash of requests, in their order.

    Args:
        requests: These requests.
    """
    return requests.fingerprint if isinstance(requests, StoredRequests) else _fingerprint(requests)


def longer_than(requests: Sequence[EditRequest], size: int, answered: bool = False) -> Iterable[EditRequest]:
    """The requests whose texts are worth counting in tokens, of which there are no more than bytes.

    Args:
        requests: The requests; few are all worth it.
        size: So many bytes are no matter.
        answered: Whether only prompts with their answers count (`answered_length`), or all texts (`longest_text`).
    """
    return requests.longer_than(size, answered) if isinstance(requests, StoredRequests) else requests


def _fingerprint(requests: Iterable[EditRequest]) -> str:
    digest = Digest()
    for request in requests:
        digest.add(described(request))
    return str(digest)


def _temporary_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(buffering=2**20)
    except OSError as error:
        raise EditError(
            f"So many edits are kept in a temporary file, and there is no folder for it ({error.strerror or error}). "
            "Set the environment variable TMPDIR to a folder with room."
        ) from error


def _plain(request: EditRequest) -> list[Any]:
    """The values of a request's fields, of texts, tuples and dictionaries only."""
    values: list[Any] = list(_values_of(request))
    if request.ripples:
        values[RIPPLES] = tuple(map(astuple, request.ripples))
    if request.original is not None:
        values[ORIGINAL] = _plain(request.original)
    values[LEAD_INS] = dict(request.lead_ins)
    return values


def _request(values: list[Any]) -> EditRequest:
    """The request, which was checked before it was stored."""
    if values[RIPPLES]:
        values[RIPPLES] = tuple(map(_ripple, values[RIPPLES]))
    if values[ORIGINAL] is not None:
        values[ORIGINAL] = _request(values[ORIGINAL])
    request = object.__new__(EditRequest)
    request.__dict__.update(zip(NAMES, values, strict=True))
    return request


def _ripple(values: tuple[Any, ...]) -> Ripple:
    axis, queries, passes, conditions, unknown, stays, edits = values
    asked = [tuple(Query(*query) for query in part) for part in (queries, conditions, unknown)]
    return Ripple(axis, asked[0], passes, asked[1], asked[2], stays, edits)
