"""A judge behind an OpenAI-compatible chat completions endpoint."""

import importlib
import json
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from lightning_edit.errors import EditError
from lightning_edit.messages import bounded, one_line, printable
from lightning_edit.metrics.judging.settings import JudgeSettings

PATH = "/chat/completions"
# Refused for now.
TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
# No other question will be answered either.
NEVER = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
LONGEST_WAIT = 60.0


class NoReplyError(Exception):
    """An endpoint did not answer a question.

    Args:
        reason: Why, in a sentence without its full stop.
        final: Whether it will not answer any other either.
    """

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Endpoint:
    """Asks questions one by one, from several threads.

    The key is in the header of each request and nowhere else. Redirections are not followed, which could lead it to
    somebody else.

    Args:
        settings: The endpoint.
        given_up: Once set, nobody waits for another try.
        tries: How often a question is asked.

    Raises:
        EditError: If a package is missing, or there is no key.
    """

    def __init__(self, settings: JudgeSettings, given_up: threading.Event, tries: int) -> None:
        self._requests = _import("requests")
        self._settings, self._url, self._key = settings, address(str(settings.url)), settings.key
        self._session, self._answered = self._requests.Session(), threading.Event()
        patience = _patience(given_up, self._answered, settings.wait, tries)
        adapter = _import("requests.adapters").HTTPAdapter(pool_maxsize=settings.at_once, max_retries=patience)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def __call__(self, text: str) -> str | None:
        """The reply to one question, the text of a user's turn.

        Returns:
            None for an answer that is not of the form that such endpoints give.

        Raises:
            NoReplyError: If there was no answer.
        """
        body = {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": self._settings.reply_tokens,
            **(self._settings.arguments or {}),
        }
        try:
            response = self._session.post(
                self._url,
                json={name: value for name, value in body.items() if value is not None},
                auth=self._sign,
                timeout=self._settings.timeout,
                allow_redirects=False,
            )
            self._answered.set()
            if response.status_code != HTTPStatus.OK:
                said = f"the endpoint answered {response.status_code}: {self._shown(response.text)}"
                raise NoReplyError(said.rstrip(": "), response.status_code in NEVER)
            return _content(response.content)
        except (self._requests.RequestException, UnicodeError) as error:
            raise NoReplyError(self._shown(self._reason(error))) from None

    def _reason(self, error: Exception) -> str:
        """Why there was no answer; libraries say so in terms of their own classes."""
        inner, url = getattr(next(iter(error.args), None), "reason", error), self._settings.url
        causes, urllib3 = list(_causes(inner)), _import("urllib3").exceptions
        if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            return f"no server answers at {url} (connection refused)"
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            return f"the host of {url} is not known here"
        if isinstance(inner, urllib3.NewConnectionError) and isinstance(causes[-1], OSError):
            return f"no connection to {url} ({causes[-1].strerror or causes[-1]})"
        if isinstance(inner, (self._requests.Timeout, urllib3.TimeoutError)):
            return f"no answer from {url} within {self._settings.timeout:g} s"
        return one_line(error)

    def _sign(self, request: Any) -> Any:
        # A function, and not a header of the session: requests would put what ~/.netrc says in its place.
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _shown(self, text: str) -> str:
        """What a server says, which may quote the key."""
        text = text if self._key is None else text.replace(self._key, "***")
        return bounded(printable(" ".join(text.split())), 300)

    def close(self) -> None:
        """Ends its connections."""
        self._session.close()


def address(url: str) -> str:
    """Where completions are asked for.

    Args:
        url: An endpoint's address, with or without the path of its chat completions.

    Example:
        >>> address("http://localhost:8000/v1/")
        'http://localhost:8000/v1/chat/completions'
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix(PATH)
    return urlunsplit(parts._replace(path=path + PATH, fragment=""))


def _content(answer: bytes) -> str | None:
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return content if isinstance(content, str) else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _patience(given_up: threading.Event, answered: threading.Event, wait: float, tries: int) -> Any:
    """urllib3's rule for further tries, with waits that end when everybody gives up."""
    urllib3 = _import("urllib3")

    class Patience(urllib3.Retry):  # type: ignore[name-defined]
        def increment(self, *args: Any, error: Exception | None = None, _pool: Any = None, **others: Any) -> Any:
            # Nobody listens there; one that has answered before may be starting anew.
            refused = any(isinstance(cause, ConnectionRefusedError) for cause in _causes(error))
            if refused and not answered.is_set():
                raise urllib3.exceptions.MaxRetryError(_pool, str(args[1:2]), error)
            return super().increment(*args, error=error, _pool=_pool, **others)

        def sleep(self, response: Any = None) -> None:
            told = None if response is None else self.get_retry_after(response)
            seconds = wait * 2 ** min(len(self.history) - 1, 16) if told is None else told
            if given_up.wait(min(seconds, LONGEST_WAIT)):
                raise urllib3.exceptions.ProtocolError("other questions were not answered either")

    return Patience(
        total=tries - 1,
        status_forcelist=TRY_AGAIN,
        # A question is asked by POST, and to ask it twice does no harm.
        allowed_methods=None,
        redirect=False,
        raise_on_status=False,
    )


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EditError(
            f"`evaluation.judge.url` needs the package requests ({error}): pip install 'lightning-edit[judge]'."
        ) from error
