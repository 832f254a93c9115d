"""Which facts belong to a prompt: the record's own, or those that are nearest to it."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_edit.asking.tokenization import encode_prompt
from lightning_edit.errors import EditError
from lightning_edit.models.batches import pad
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import by_position, capture_output, frozen, run_until
from lightning_edit.requests import PROMPT_LISTS, EditRequest
from lightning_edit.whole_words import find_whole, plainly, telling_words, words_in


class Retriever(Protocol):
    """Chooses facts for a prompt."""

    def learn(self, requests: Sequence[EditRequest], facts: Sequence[str]) -> None:
        """Takes up the facts that may be chosen.

        Args:
            requests: The edits.
            facts: Each as a sentence.
        """

    def __call__(self, prompt: str) -> list[int]:
        """The positions of the chosen facts, the one that should stand next to the prompt last.

        Args:
            prompt: A complete prompt.
        """


class Own:
    """The fact of the record that a prompt belongs to, its neighborhood prompts included.

    Nothing has to be found, so this is the most that facts in the context can do. A prompt of several records gets the
    fact of the first, another prompt that of the longest edited subject that stands in it, if any.
    """

    def __init__(self) -> None:
        self._owners: dict[str, int] = {}
        self._subjects: dict[str, int] = {}

    def learn(self, requests: Sequence[EditRequest], facts: Sequence[str]) -> None:
        """See `Retriever`."""
        self._owners = {}
        for position, request in enumerate(requests):
            for form in (request, request.original):
                for prompt in () if form is None else prompts_of(form):
                    self._owners.setdefault(prompt, position)
        subjects = {plainly(request.subject): position for position, request in reversed(list(enumerate(requests)))}
        self._subjects = dict(sorted(subjects.items(), key=lambda entry: -len(entry[0])))

    def __call__(self, prompt: str) -> list[int]:
        """See `Retriever`."""
        if prompt in self._owners:
            return [self._owners[prompt]]
        # Most subjects are not there at all, which is soon seen.
        text = plainly(prompt)
        there = ((subject, at) for subject, at in self._subjects.items() if subject in text)
        return next(([at] for subject, at in there if find_whole(text, subject)), [])


def prompts_of(request: EditRequest) -> list[str]:
    """All complete prompts of a record.

    Args:
        request: The record.
    """
    listed = [prompt for name in PROMPT_LISTS for prompt in getattr(request, name)]
    listed += [query.prompt for ripple in request.ripples for query in ripple.queries]
    return [request.rewrite_prompt, *listed, *(prompt for prompt, _ in request.locality)]


class TfIdf:
    """Turns texts into TF-IDF vectors of their words; those of two texts that share no word are orthogonal."""

    def fit(self, texts: Sequence[str]) -> Any:
        """Learns the words of the facts.

        Args:
            texts: The facts.

        Returns:
            Their vectors of length 1 ``(n, words)``, sparse.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        # Words of two letters or more; where there are none but shorter ones, these.
        words = telling_words if any(map(telling_words, texts)) else words_in
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, tokenizer=words, token_pattern=None)
        try:
            return self._vectorizer.fit_transform(texts)
        except ValueError as error:
            raise EditError("`facts: tfidf` looks for words, and no fact has any: set `facts` to states.") from error

    def __call__(self, texts: Sequence[str]) -> Any:
        """The vectors of other texts.

        Args:
            texts: Prompts.
        """
        return self._vectorizer.transform(texts)


class States:
    """Turns texts into what the model makes of them: the mean state of their tokens in the middle of its blocks.

    The first token does not count where there are others: attention goes to it when it needs nothing, and in many
    models its state is much the same in every text, and so long that the mean would say how many tokens there are, and
    little else (Xiao et al., 2023, arXiv 2309.17453). The mean over all facts is taken off, as the states of all texts
    have much in common.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer, without a chat.
    """

    def __init__(self, decoder: Decoder, tokenizer: Any) -> None:
        self._decoder, self._tokenizer = decoder, tokenizer
        self._center = torch.zeros(())

    def fit(self, texts: Sequence[str]) -> Any:
        """Learns the mean of the facts.

        Args:
            texts: The facts.

        Returns:
            Their vectors of length 1 ``(n, d_model)``.
        """
        states = self._states(texts)
        self._center = states.mean(0) if len(states) > 1 else torch.zeros_like(states[0])
        return self._unit(states)

    def __call__(self, texts: Sequence[str]) -> Any:
        """The vectors of other texts.

        Args:
            texts: Prompts.
        """
        return self._unit(self._states(texts))

    def _unit(self, states: Tensor) -> Any:
        return torch.nn.functional.normalize(states - self._center, dim=1).numpy()

    @torch.no_grad()
    def _states(self, texts: Sequence[str]) -> Tensor:
        decoder, found = self._decoder, []
        block = decoder.blocks[len(decoder.blocks) // 2]
        with frozen(decoder.model):
            for text in texts:
                batch = pad([encode_prompt(self._tokenizer, text)], decoder.device)
                (captured,) = run_until(decoder.model, batch.inputs(), capture_output(block, stop=True))
                states = by_position(captured.value, 1)[0].double()
                found.append(states[min(1, len(states) - 1) :].mean(0).cpu())
        return torch.stack(found)


class Nearest:
    """The facts whose vectors have the largest cosine with that of the prompt, the nearest last.

    Args:
        encoder: `TfIdf` or `States`.
        count: How many facts at most.
        threshold: Facts of a smaller cosine are not taken.
    """

    def __init__(self, encoder: TfIdf | States, count: int, threshold: float = 0.0) -> None:
        self._encoder, self._count, self._threshold = encoder, count, threshold
        self._vectors: Any = None

    def learn(self, requests: Sequence[EditRequest], facts: Sequence[str]) -> None:
        """See `Retriever`."""
        self._vectors = self._encoder.fit(facts)

    def __call__(self, prompt: str) -> list[int]:
        """See `Retriever`."""
        product = self._vectors @ self._encoder([prompt]).T
        cosines = np.asarray(product.todense() if hasattr(product, "todense") else product).ravel()
        # The earlier one first among equals, whatever the machine.
        nearest = np.argsort(-cosines, kind="stable")[: self._count]
        return [int(i) for i in nearest[::-1] if cosines[i] > self._threshold]
