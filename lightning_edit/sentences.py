"""Where the first sentence of an answer ends: not at the dot of a title, an initial or a list, nor behind a fence."""

import re
from collections.abc import Iterator

from lightning_edit.whole_words import unspaced, words_in

# A sentence of fewer words, such as "Sure!" or "Of course!", tells nothing of what is said.
WORDS = 3
_CLOSING = "\"'”’»)\\]*_"
# Signs that end a sentence, with what closes behind them: before white space where a script has spaces, else anywhere
# but within quotes, which often go on. And the ends of lines.
_STOP = re.compile(rf"[.!?؟۔।॥]+[{_CLOSING}]*(?=\s)|[。！？]+(?![{_CLOSING}」』）。！？])|\n")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
# A letter and its dot, or several of them, as in "J." and "U.S."
_INITIALS = re.compile(r"(?:^|[^\w.])(?:[^\W\d_]\.)+$")
_LAST_WORD = re.compile(r"([^\W\d_]+)\.$")
# At the beginning of a line: "1.", "**2.**", "iv.", "a."
_LIST_NUMBER = re.compile(r"[\W_]*(?:\d{1,2}|[ivxIVX]{1,4}|[A-Za-z])[.)]\W*")
_FENCE = re.compile(r"(?:`{3,}|~{3,}) *[\w+#.-]*")
_STARTER = re.compile(r"(?:The|It|Its|He|She|They|We|You|This|That|These|Those|There|In|However|But)\b(?!\.)")

# A name or another word always follows.
BEFORE_A_WORD = {
    *("Mr", "Mrs", "Ms", "Mx", "Messrs", "Dr", "Prof", "Rev", "Hon", "Fr", "Msgr", "Mme", "Mlle", "Hr", "Sra"),
    *("Gen", "Col", "Lt", "Sgt", "Capt", "Cmdr", "Adm", "Maj", "Sen", "Rep", "Gov", "Pres"),
    *("St", "Ste", "Mt", "Ft", "vs", "cf", "ca", "approx", "viz", "bzw", "vgl", "incl"),
}
# A number follows, else it is another word, as in "No."
BEFORE_A_NUMBER = {
    *("No", "Nos", "Nr", "Vol", "vol", "Fig", "fig", "Art", "Sec", "Ch", "p", "pp"),
    *("Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec"),
}
# They end sentences too, which is told by how the next one begins.
BEFORE_ANYTHING = {"Jr", "Sr", "Inc", "Ltd", "Co", "Corp", "Bros", "al", "etc"}


def first_sentence(text: str, words: int = WORDS) -> str:
    """The first sentence or line of what a model wrote.

    A sentence ends with a line, or at ``.``, ``!`` or ``?`` before white space, or at such a sign of Chinese, Japanese
    and other scripts. No end is

    - before a small letter;
    - at the dot of an initial, a known abbreviation or the number of a list;
    - a line that is only a fence or signs, or ends with a colon: what it announces comes behind it;
    - a stop before which there are fewer than so many words, or a line of fewer that ends in ``!`` or a comma. Of
      scripts without spaces two characters count as a word.

    Where a sentence is cut too late, more of an answer is looked at; cut too early, most of it would not be.

    Args:
        text: What the model wrote.
        words: The fewest words before a stop.

    Example:
        >>> first_sentence("Dr. J. K. Smith was born in St. Louis. He"), first_sentence("Sure! Here it is. And")
        ('Dr. J. K. Smith was born in St. Louis.', 'Sure! Here it is.')
        >>> first_sentence("1. Boil water"), first_sentence("Rome. It is"), first_sentence("Rome. It is", words=1)
        ('1. Boil water', 'Rome. It is', 'Rome.')
    """
    text = text.strip()
    for stop in _STOP.finditer(text):
        head, rest = text[: stop.end()].rstrip(), text[stop.end() :].lstrip()
        ends = _line_ends(head, words) if stop.group() == "\n" else _stop_ends(head, rest, words)
        if ends:
            return head
    return text


def beginnings(text: str) -> Iterator[str]:
    """The first line of a text, and all that stands before a stop in it, but for single letters.

    One of them is the first sentence, whatever its dots mean. The dot of "the U.S. is" is none.

    Args:
        text: What the model wrote.

    Example:
        >>> list(beginnings("St. Louis. It is"))
        ['St. Louis. It is', 'St.', 'St. Louis.']
    """
    line = text.strip().split("\n", maxsplit=1)[0].strip()
    yield line
    for stop in _STOP.finditer(line):
        head, rest = line[: stop.end()], line[stop.end() :].lstrip()
        inside = rest[:1].islower() and (_INITIALS.search(head) or _last_word(head) in BEFORE_ANYTHING)
        if not inside and not _INITIALS.fullmatch(head):
            yield head


def _line_ends(head: str, words: int) -> bool:
    line = head.rsplit("\n", maxsplit=1)[-1].strip()
    if not _LETTER_OR_DIGIT.search(line) or _FENCE.fullmatch(line) or _LIST_NUMBER.fullmatch(line) or line[-1] in ":：":
        return False
    return line[-1] not in "!！,，" or _has_words(head, words)


def _stop_ends(head: str, rest: str, words: int) -> bool:
    if rest[:1].islower() or not _has_words(head, words):
        return False
    line = head.rsplit("\n", maxsplit=1)[-1].strip()
    if _LIST_NUMBER.fullmatch(line):
        return False
    bare = head.rstrip(_CLOSING.replace("\\", ""))
    word = _last_word(bare)
    if word in BEFORE_A_WORD or (word in BEFORE_A_NUMBER and rest[:1].isdecimal()):
        return False
    return bool(_STARTER.match(rest)) or not (word in BEFORE_ANYTHING or _INITIALS.search(bare))


def _last_word(head: str) -> str:
    last = _LAST_WORD.search(head)
    return "" if last is None else last[1]


def _has_words(head: str, words: int) -> bool:
    found = words_in(head)
    single = [word for word in found if unspaced(word)]
    return len(found) - len(single) + sum(map(str.isalnum, single)) / 2 >= words
