"""Where the first sentence of an answer ends: not at the dot of a title, an initial or a list, nor behind a fence."""

import re
import unicodedata
from collections.abc import Iterator

from lightning_edit.whole_words import unspaced, words_in

# An exclamation of fewer words, such as "Sure!" or "Of course!", tells nothing of what is said.
WORDS = 3
# Nor do these, with a stop.
_FILLER = (
    "sure|of course|certainly|absolutely|yes|no|okay|ok|well|right|alright"
    "|ja|nein|natürlich|gerne|klar|oui|non|bien sûr|d['’]accord|sí|sì|claro|por supuesto|certo|sim|não|да|нет|конечно"
    "|好的|好|当然|當然|是的|不是|はい|いいえ|もちろん|네|예|아니요|물론이죠|물론입니다"
)
_FILLERS = re.compile(rf"[\W_]*(?:(?:{_FILLER})[\W_]+)+", re.IGNORECASE)
_CLOSING = "\"'”’»)\\]*_"
_CLOSING_SIGNS = _CLOSING.replace("\\", "")
# Signs that end a sentence, with what closes behind them: before white space where a script has spaces, else anywhere
# but within quotes, which often go on. And the ends of lines.
_STOP = re.compile(
    rf"(?<![.!?؟۔।॥])[.!?؟۔।॥]++[{_CLOSING}]*+(?=\s)|(?<![。！？])[。！？]++(?![{_CLOSING}」』）])|\n\s*+"
)
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
# A letter and its dot, or several of them, as in "J." and "U.S."
_INITIALS = re.compile(r"(?:^|[^\w.])(?:[^\W\d_]\.)+$")
_LAST_WORD = re.compile(r"([^\W\d_]+)\.$")
# At the beginning of a line: "1.", "**2.**", "iv.", "a."
_LIST_NUMBER = re.compile(r"[\W_]*(?:\d{1,2}|[ivxIVX]{1,4}|[A-Za-z])[.)]\W*")
_FENCE = re.compile(r"`{3,}[^`]*|~{3,}.*")
_TAGS = re.compile(r"(?:<[^<>]+>\s*)+")
# An emoji may have a variant of a sign in it, and several be joined to one.
_EMOJI_PARTS = "\u200d\ufe0f"
# No abbreviation, number of a list or filler is longer, so a text of many stops is not read again and again.
_NEAR = 64
# Nor are so few words.
_FEW = 256
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
    - a line that is only a fence, tags or signs, or ends with a colon: what it announces comes behind it;
    - an ``!``, or a line that ends in one or a comma, before which there are fewer than so many words. Of scripts
      without spaces two characters count as a word;
    - a stop behind nothing but words such as "Sure", "Of course", "Yes" and "No".

    Asterisks and underscores of Markdown, and emoji, at the end of a line do not matter. Where a sentence is cut too
    late, more of an answer is looked at; cut too early, most of it would not be.

    Args:
        text: What the model wrote.
        words: The fewest words before an ``!``. With one nothing is too short, "Sure" neither.

    Example:
        >>> first_sentence("Dr. J. K. Smith was born in St. Louis. He"), first_sentence("Sure! Here it is. And")
        ('Dr. J. K. Smith was born in St. Louis.', 'Sure! Here it is.')
        >>> first_sentence("1. Boil water"), first_sentence("Rome. It is"), first_sentence("Sure! It is", words=1)
        ('1. Boil water', 'Rome.', 'Sure!')
    """
    text = text.strip()
    if (first := _LETTER_OR_DIGIT.search(text)) is None:
        return text
    for stop in _STOP.finditer(text, first.start()):
        of_line = stop.group()[0] == "\n"
        end = stop.start() if of_line else stop.end()
        line, said = text[text.rfind("\n", 0, end) + 1 : end].strip(), text[first.start() : end]
        if (_line_ends if of_line else _stop_ends)(line, said, _next(text, stop), words):
            return text[:end].rstrip()
    return text


def beginnings(text: str, longest: int | None = None) -> Iterator[str]:
    """The first line of a text, and all that stands before a stop in it.

    One of them is the first sentence, whatever its dots mean. The dots of "the U.S. is", "Apple Inc. Store" and an
    option's "B. Paris" are none: behind initials, and what may stand before anything, a sentence has to begin.

    Args:
        text: What the model wrote.
        longest: How many characters those before a stop have at most; None for any number.

    Example:
        >>> list(beginnings("St. Louis. It is"))
        ['St. Louis. It is', 'St.', 'St. Louis.']
    """
    line = text.strip().split("\n", maxsplit=1)[0].strip()
    yield line
    for stop in _STOP.finditer(line):
        if longest is not None and stop.end() > longest:
            return
        if not _goes_on(_bare_end(line[: stop.end()]), _next(line, stop)):
            yield line[: stop.end()]


def _line_ends(line: str, said: str, _: str, words: int) -> bool:
    if not _LETTER_OR_DIGIT.search(line) or _FENCE.fullmatch(line) or _TAGS.fullmatch(line) or _is_list_number(line):
        return False
    end = next((c for c in reversed(line) if not _is_ornament(c)), "")
    return end not in ":：" and not _is_too_short(said, end, words)


def _stop_ends(line: str, said: str, rest: str, words: int) -> bool:
    bare = _bare_end(said)
    if rest[:1].islower() or _is_list_number(line) or _is_too_short(said, bare[-1], words):
        return False
    word = _last_word(bare)
    if word in BEFORE_A_WORD or (word in BEFORE_A_NUMBER and rest[:1].isdecimal()):
        return False
    return not _goes_on(bare, rest)


def _next(text: str, stop: re.Match[str]) -> str:
    """The beginning of what stands behind a stop."""
    return text[stop.end() : stop.end() + _NEAR].lstrip()


def _bare_end(head: str) -> str:
    """The end of what stands before a stop, with the stop, but without what closes behind it."""
    return head[-_NEAR:].rstrip(_CLOSING_SIGNS)


def _goes_on(bare: str, rest: str) -> bool:
    """Whether a dot is inside of a sentence: of initials, or of what may end one, where none begins behind it."""
    inside = _last_word(bare) in BEFORE_ANYTHING or _INITIALS.search(bare)
    return bool(rest and inside and not _STARTER.match(rest))


def _last_word(bare: str) -> str:
    last = _LAST_WORD.search(bare)
    return "" if last is None else last[1]


def _is_list_number(line: str) -> bool:
    return len(line) <= _NEAR and bool(_LIST_NUMBER.fullmatch(line))


def _is_ornament(character: str) -> bool:
    """Whether it is white space, an emoji or a sign of Markdown, behind which a line has its real end."""
    return character in f"*_ {_EMOJI_PARTS}" or unicodedata.category(character) in ("So", "Sk")


def _is_too_short(said: str, end: str, words: int) -> bool:
    """Whether what was said, from its first letter to such a sign, tells nothing yet."""
    if end in "!！,，" and not _has_words(said, words):
        return True
    return words > 1 and len(said) <= _NEAR and bool(_FILLERS.fullmatch(said))


def _has_words(said: str, words: int) -> bool:
    found = words_in(said[:_FEW])
    single = [word for word in found if unspaced(word)]
    return len(found) - len(single) + sum(map(str.isalnum, single)) / 2 >= words
