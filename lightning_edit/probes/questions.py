"""Questions about public subjects: the shipped wordings, each filled with a subject of its kind."""

import random
from collections.abc import Collection
from itertools import chain, zip_longest

from lightning_edit.errors import EditError
from lightning_edit.probes.split import folded, judges
from lightning_edit.probes.subjects import subjects, wordings


def filled(wording: str, subject: str) -> str:
    """A wording with a subject in its place.

    Args:
        wording: With one ``{}``.
        subject: The subject; at the beginning of the wording it gets a capital letter.
    """
    return wording.replace("{}", as_it_stands(wording, subject))


def as_it_stands(wording: str, subject: str) -> str:
    """A subject as it is written in a wording, at its beginning with a capital letter.

    Args:
        wording: With one ``{}``.
        subject: The subject.
    """
    return subject[:1].upper() + subject[1:] if wording.startswith("{}") else subject


def asked_about(number: int, seed: int, left_out: Collection[str] = ()) -> list[tuple[str, str]]:
    """Different questions about public subjects, of all kinds in turn, as wordings and subjects.

    Subjects and wordings are those that do not judge a model, see `split`.

    Args:
        number: How many.
        seed: Which ones: the same seed gives the same questions, and more of them begin with those of fewer.
        left_out: Subjects that are not asked about, such as those that are edited.

    Returns:
        Wordings with one ``{}``, and what takes its place.

    Raises:
        EditError: If there are not so many.
    """
    chosen = random.Random(seed)
    skipped = {folded(subject) for subject in left_out}
    asked, pools = wordings(), []
    for kind, listed in subjects().items():
        usable = [subject for subject in listed if not judges(subject) and folded(subject) not in skipped]
        ways = [wording for wording in asked[kind] if not judges(wording)]
        pool = [(wording, as_it_stands(wording, subject)) for subject in usable for wording in ways]
        chosen.shuffle(pool)
        pools.append(pool)
    # Kinds with many subjects would otherwise be most of a sample.
    in_turn = chain.from_iterable(zip_longest(*pools))
    found = list(dict.fromkeys(pair for pair in in_turn if pair is not None))
    if number > len(found):
        raise EditError(f"{number:,} questions about public subjects were asked for, but there are {len(found):,}.")
    return found[:number]
