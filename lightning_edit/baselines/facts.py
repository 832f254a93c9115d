"""Facts that are put before prompts, instead of being written into weights."""

from collections.abc import Callable, Sequence

from lightning_edit.asking.tokenization import join_target
from lightning_edit.baselines.retrieval import Retriever
from lightning_edit.requests import EditRequest

ENDS = (".", "!", "?", "。")


def sentence(request: EditRequest) -> str:
    """An edit as a sentence: its prompt in plain text with the new answer.

    Args:
        request: The edit.
    """
    plain = request.original or request
    text = join_target(plain.rewrite_prompt, plain.target_new, plain.separator)
    return text if text.endswith(ENDS) else f"{text}."


class Facts:
    """Turns a prompt into one that has facts before it.

    Args:
        retriever: Chooses the facts.
        preface: How a fact is introduced, with one ``{}`` for it.
        demonstrations: How many examples of other facts stand before it, as IKE has them (arXiv 2305.12740): in turn of
            the fact asked as it stands, in other words, and of a prompt that it does not change.
        fits: Whether a prompt with its facts is short enough; otherwise the farthest fact is left out, and so on until
            one is left.

    Attributes:
        shortened: The prompts that got fewer facts than were chosen.
        bare: The prompts for which none was chosen.
        known: The edits that may be chosen; while there are none, prompts stay as they are.
    """

    def __init__(
        self,
        retriever: Retriever,
        preface: str,
        demonstrations: int = 0,
        fits: Callable[[str], bool] = lambda text: True,
    ) -> None:
        self._retriever, self._preface, self._demonstrations = retriever, preface, demonstrations
        self._fits = fits
        self.shortened: set[str] = set()
        self.bare: set[str] = set()
        self.known: Sequence[EditRequest] = ()
        self._learned: Sequence[EditRequest] = ()
        self._sentences: list[str] = []
        self._before: dict[str, str] = {}

    def __call__(self, prompt: str) -> str:
        """The prompt with facts before it.

        Args:
            prompt: A complete prompt.
        """
        if not self.known:
            return prompt
        if self._learned is not self.known:
            self._sentences = [sentence(request) for request in self.known]
            self._retriever.learn(self.known, self._sentences)
            self._learned, self._before, self.shortened, self.bare = self.known, {}, set(), set()
        if prompt not in self._before:
            self._before[prompt] = self._context(prompt)
        return self._before[prompt] + prompt

    def _context(self, prompt: str) -> str:
        chosen = self._retriever(prompt)
        if not chosen:
            self.bare.add(prompt)
            return ""
        shown = "".join(self._demonstration(chosen[-1], turn, set(chosen)) for turn in range(self._demonstrations))
        facts = [self._preface.replace("{}", self._sentences[position]) for position in chosen]
        while len(facts) > 1 and not self._fits(f"{shown}{''.join(facts)}{prompt}"):
            facts = facts[1:]
            self.shortened.add(prompt)
        return shown + "".join(facts)

    def _demonstration(self, position: int, turn: int, chosen: set[int]) -> str:
        """Another fact with a question and its answer; the next in the order of the edits that is not asked about."""
        count = len(self.known)
        others = [i % count for i in range(position + 1, position + count) if i % count not in chosen]
        if not others:
            return ""
        number = others[turn % len(others)]
        plain = self.known[number].original or self.known[number]
        prompt, answer = plain.rewrite_prompt, plain.target_new
        if turn % 3 == 1 and plain.paraphrase_prompts:
            prompt = plain.paraphrase_prompts[0]
        elif turn % 3 == 2 and plain.neighborhood_prompts and plain.target_true is not None:
            prompt, answer = plain.neighborhood_prompts[0], plain.target_true
        shown = join_target(prompt, answer, plain.separator)
        return f"{self._preface.replace('{}', self._sentences[number])}{shown}\n\n"
