"""Many questions to one endpoint at once, until it is clear that it answers no more."""

import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from lightning_edit.metrics.judging.endpoint import Endpoint, NoReplyError
from lightning_edit.metrics.judging.settings import JudgeSettings

# So many questions in a row without an answer, each asked several times, and no further one is asked.
MOST_FAILURES = 3
# Questions that are asked or answered and not read yet, for each that is asked at once: no thread waits for the reader,
# and an interrupt loses few answers that were paid for.
AHEAD = 2


class Questions:
    """Asks questions.

    Args:
        settings: The endpoint.

    Attributes:
        hopeless: Whether it is clear that the endpoint answers no more.

    Raises:
        EditError: See `Endpoint`.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self.hopeless, self._at_once = False, settings.at_once
        self._given_up, self._lock, self._failures = threading.Event(), threading.Lock(), 0
        self._endpoint = Endpoint(settings, self._given_up, settings.tries)

    def answers(self, texts: Sequence[str]) -> Generator[tuple[int, str | NoReplyError | None]]:
        """The answers as they come, with the positions of their questions.

        A failure is an answer too. What is not asked any more has none.

        Args:
            texts: The questions.
        """
        pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="judge")
        try:
            waiting = iter(enumerate(texts))
            places: dict[Future[list[str | NoReplyError | None]], int] = {}
            while True:
                free = AHEAD * self._at_once - len(places)
                places |= {pool.submit(self._ask, text): place for place, text in islice(waiting, free)}
                if not places:
                    break
                for future in wait(places, return_when=FIRST_COMPLETED).done:
                    place = places.pop(future)
                    for answer in future.result():
                        yield place, answer
            pool.shutdown()
        finally:
            # An interrupt is not to wait for tries that nobody will read.
            self._given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            self._endpoint.close()

    def _ask(self, text: str) -> list[str | NoReplyError | None]:
        """The answer; nothing if there is no use in asking."""
        if self._given_up.is_set():
            return []
        try:
            answer = self._endpoint(text)
        except NoReplyError as error:
            with self._lock:
                if self._given_up.is_set():
                    # What others meet once all have given up is no news.
                    return []
                self._failures += 1
                if error.final or self._failures >= MOST_FAILURES:
                    self.hopeless = True
                    self._given_up.set()
            return [error]
        with self._lock:
            self._failures = 0
        return [answer]
