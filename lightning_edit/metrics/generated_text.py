"""Figures of one record from what the model wrote: whether it varies, is about the subject, says the new answer."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torchmetrics.functional.text import rouge_score

from lightning_edit.whole_words import UNSPACED, says_whole, telling_words, words_in

_CHARACTER = re.compile(f"([{UNSPACED}])")
WEIGHTS = {2: 2 / 3, 3: 4 / 3}
# Where a sentence ends, closing quotes and brackets included.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'”’)\]])\s+")


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text, by NLTK's word tokenizer sentence by sentence.

    `nltk.word_tokenize` finds sentences with a model that has to be downloaded; here a sentence ends at ``.``, ``!``
    or ``?`` before white space. In scripts without spaces each character is a word.

    Args:
        text: Any text.
    """
    # Imported here, as it takes a second that most runs need not wait for.
    from nltk.tokenize.destructive import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    spaced = _CHARACTER.sub(r" \1 ", text)
    return [word for sentence in _SENTENCE_END.split(spaced) for word in tokenizer.tokenize(sentence)]


def ngram_entropy(words: Sequence[str], n: int) -> float:
    """Entropy of a text's n-grams, ``-sum_g f(g) log2 f(g)`` with their relative frequencies f, in bits.

    Args:
        words: The text.
        n: How many words make an n-gram; a text with fewer words has entropy 0.
    """
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    total = counts.total()
    # Sorted, so that rounding does not depend on the order of words.
    return math.fsum(-count / total * math.log2(count / total) for count in sorted(counts.values()))


def generation_entropy(texts: Sequence[str]) -> float:
    """GE of one record: mean over its texts of ``(2/3 H_2 + 4/3 H_3) / 2``, H_n being `ngram_entropy`, in bits.

    Fluency in ROME (section 3.3, after Zhang et al., 2018): low for text that repeats itself. Published tables list 100
    times this figure (618.6 there is 6.186 bits here). Long texts reach more than short ones, so only texts of equally
    many tokens compare.

    Args:
        texts: Generated texts with their prompts; at least one.

    Example:
        >>> round(generation_entropy(["the cat and the dog", "the the the the the"]), 3)
        0.862
    """
    entropies = []
    for text in texts:
        words = words_of(text)
        entropies.append(sum(weight * ngram_entropy(words, n) for n, weight in WEIGHTS.items()) / len(WEIGHTS))
    return sum(entropies) / len(entropies)


def reference_score(texts: Sequence[str], references: Sequence[str]) -> float:
    """RS of one record: cosine of the TF-IDF vectors of its generated texts and its reference texts, each joined.

    Consistency in ROME (section 3.3). The published code takes document frequencies from all of its data set's
    snippets, which not every data set has. Here they come from the two documents compared, so that a record's score
    depends on nothing but the record: with scikit-learn's smoothing a word of both weighs 1, a word of one 1.405.
    Compare scores with each other, not with those of published tables.

    Args:
        texts: Generated texts with their prompts.
        references: Texts about other subjects of which the new target is true.

    Returns:
        From 0 (no word in common, or no word at all) to 1.

    Example:
        >>> round(reference_score(["Anna plays the violin."], ["Mary plays the old violin."]), 3)
        0.51
    """
    # Imported here, as it takes a second that most runs need not wait for.
    from sklearn.feature_extraction.text import TfidfVectorizer

    documents = [" ".join(texts), " ".join(references)]
    if not all(map(telling_words, documents)):
        return 0.0
    generated, reference = TfidfVectorizer(tokenizer=telling_words, token_pattern=None).fit_transform(documents)
    return min(1.0, float(generated.multiply(reference).sum()))


def generated_match(continuation: str, target: str) -> bool:
    """Whether a text says an answer: its words in their order and case, not as parts of longer words or numbers.

    Scripts without spaces, such as Chinese and Japanese, do not show where a word ends, so there the characters alone
    count. Characters that Unicode can write in two ways are the same (NFC). See `find_whole`.

    The strict test of an edit, on a greedy continuation of the rewrite prompt: no token of the answer is given, and no
    other answer is compared with.

    Args:
        continuation: What the model wrote after the prompt.
        target: The answer.

    Example:
        >>> generated_match(" Rome, the capital of Italy.", "Rome"), generated_match(" Romeo's city.", "Rome")
        (True, False)
    """
    return says_whole(continuation, target)


def rouge_l(continuation: str, answer: str) -> float:
    """ROUGE-L of a text (Lin, 2004): the share of an answer's words that stand in it in their order, others between.

    The recall, which published tables of long answers list. Case and punctuation do not count, nor in which of two
    ways Unicode writes a character; in scripts without spaces each character is a word.

    Args:
        continuation: What the model wrote after the prompt.
        answer: The answer.

    Example:
        >>> rouge_l("The tower, it is said, stands in Rome.", "The tower stands in Paris.")
        0.800000011920929
    """
    how: dict[str, Any] = {"rouge_keys": "rougeL", "normalizer": _without_case, "tokenizer": words_in}
    return float(rouge_score(continuation, answer, **how)["rougeL_recall"])


def _without_case(text: str) -> str:
    # As to punctuation, an underscore is one.
    return text.casefold().replace("_", " ")
