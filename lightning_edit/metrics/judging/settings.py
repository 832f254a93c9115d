"""Which model judges answers, and how it is reached."""

import os
import re
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from lightning_edit.errors import EditError
from lightning_edit.metrics.judging.prompt import PROMPT, check_prompt
from lightning_edit.settings import Count, Positive, Settings

# Names of environment variables; keys have hyphens or small letters.
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
# What a part of an address is called that should be a secret.
SECRETS = ("key", "token", "secret", "password", "sig")


@dataclass(frozen=True)
class JudgeSettings(Settings):
    """A language model that judges the answers; without one, exact match alone does.

    Raises:
        EditError: If a value is out of its range, the address is none or holds a secret, or something is lacking.
    """

    section: ClassVar[str] = "evaluation.judge"

    model: str | None = None
    """The judge: the endpoint's name for a model; without ``url``, a folder or hub name of a transformers model."""

    url: str | None = None
    """The address of an OpenAI-compatible endpoint, such as ``https://api.openai.com/v1``."""

    key_variable: str | None = None
    """The environment variable, named in capitals, that holds the endpoint's key, written nowhere; null sends none."""

    at_once: Count = 8
    """Requests on their way at the same time."""

    tries: Count = 6
    """How often a question is asked that the endpoint refuses for now, or does not answer."""

    wait: Positive = 1.0
    """Seconds before the second try, doubled before each further one, at most a minute; ``Retry-After`` counts more."""

    timeout: Positive = 60.0
    """Seconds after which a try counts as not answered."""

    reply_tokens: Count = 16
    """Tokens of a reply; a model that thinks before it replies needs more."""

    arguments: dict[str, Any] | None = None
    """What else a request holds, e.g. ``{seed: 1}``; null leaves out what is usual, as in ``{temperature: null}``."""

    prompt: str | None = None
    """What the judge is asked, with ``{question}``, ``{gold}`` and ``{prediction}``, to reply A or B; null for ours."""

    cache_dir: str | None = "~/.cache/lightning_edit"
    """Folder of cached judgements; null disables the cache."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key_variable is not None and not VARIABLE.fullmatch(self.key_variable):
            # Not shown either.
            raise EditError(
                "`evaluation.judge.key_variable` must be the name of an environment variable in capitals, such as "
                "OPENAI_API_KEY; settings are written to files. Put the key into such a variable, and give its name."
            )
        if self.prompt is not None:
            check_prompt(self.prompt)
        if self.url is not None:
            _check_url(self.url)
        if self.model is None and (self.url is not None or self.key_variable is not None):
            raise EditError("`evaluation.judge.model` must say which of the endpoint's models judges.")
        if self.url is None and self.key_variable is not None:
            raise EditError("`evaluation.judge.key_variable` is of an endpoint: give `evaluation.judge.url` too.")

    @property
    def template(self) -> str:
        """What the judge is asked, with three fields."""
        return PROMPT if self.prompt is None else self.prompt

    @property
    def key(self) -> str | None:
        """The endpoint's key; it is read when it is needed and kept nowhere.

        Raises:
            EditError: If the environment has none.
        """
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise EditError(
                "`evaluation.judge.key_variable`: the environment has no variable of this name, or an empty one. Set "
                "it to the endpoint's key (the setting takes the variable's name, never the key)."
            )
        return key


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        found = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        found = False
    if not found:
        # What was given is not shown: it may be a key in the wrong place.
        raise EditError("`evaluation.judge.url` must be an address such as https://api.openai.com/v1.")
    named = any(secret in name.lower() for name, _ in parse_qsl(parts.query) for secret in SECRETS)
    if named or parts.username is not None or parts.password is not None:
        raise EditError(
            "`evaluation.judge.url` holds a name, password or key, and settings are written to files. Leave it out, "
            "put the key into an environment variable, and give that one's name as `evaluation.judge.key_variable`."
        )
