"""Exported folders on the Hugging Face hub; huggingface_hub does the talking."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

from lightning_edit.errors import EditError
from lightning_edit.export.exported import OWN, files_of
from lightning_edit.messages import listed, one_line, quoted
from lightning_edit.version import own_version

TOKEN = "HF_TOKEN"
# What a new repository has before anybody has uploaded something.
FIRST = frozenset({".gitattributes"})


@dataclass(frozen=True)
class Target:
    """Where an export is uploaded to.

    Args:
        repo: The repository, ``user/name``.
        private: Whether nobody else may see it.
        branch: The branch; None for the main one.
        token: Of the user; never shown, and written nowhere.
    """

    repo: str
    private: bool = False
    branch: str | None = None
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        try:
            validate_repo_id(self.repo)
        except HFValidationError as error:
            raise EditError(f"`--hub`: {quoted(self.repo)} is no name of a repository: {one_line(error)}") from error
        if "/" not in self.repo:
            raise EditError(f"`--hub`: give the owner as well: USER/{self.repo}.")

    @property
    def api(self) -> HfApi:
        """huggingface_hub's client, with this token and no other."""
        return HfApi(token=self.token, library_name="lightning-edit", library_version=own_version())


def token_of_environment() -> str:
    """The user's token.

    Raises:
        EditError: If the environment has none, or it cannot be one. It is not shown.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise EditError(
            f"`--hub` needs a token that may write, in the environment variable {TOKEN}. Make one at "
            "https://huggingface.co/settings/tokens; or look at what would be uploaded by --dry_run."
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise EditError(f"{TOKEN} holds characters that no token has. Copy it again.")
    return token


def check_remote(target: Target, names: Collection[str] | None = None) -> str | None:
    """Sees whether a repository can take an export: it is new, empty, or holds an earlier export of the same files.

    Args:
        target: The repository.
        names: The files of the export; None while they are not known.

    Returns:
        The newest commit of the branch, or of the one that it is made from; None of a repository that is not there.

    Raises:
        EditError: If the hub cannot be reached, does not know the token, or the repository holds something else.
    """
    api = target.api
    with _answered(target):
        api.whoami()
        try:
            info = api.model_info(target.repo, revision=target.branch)
        except RevisionNotFoundError:
            info = api.model_info(target.repo)
        except RepositoryNotFoundError:
            return None
    there = {file.rfilename for file in info.siblings or ()} - FIRST
    if there and OWN not in (info.tags or ()):
        raise EditError(
            f"{target.repo} on the hub holds {listed(sorted(there), 3)}, and nothing that lightning-edit wrote. It is "
            "left alone: give the name of a new repository to --hub."
        )
    if names is not None and there - set(names):
        raise EditError(
            f"{target.repo} on the hub holds {listed(sorted(there - set(names)), 3)} of another export, which would be "
            "mixed with this one. Give a new repository to --hub, or delete those files on the hub."
        )
    if target.private and info.private is False:
        raise EditError(
            f"`--private`: {target.repo} is there and public. Make it private in its settings on the hub, give another "
            "name, or leave --private out."
        )
    return info.sha


def upload_folder(folder: Path, target: Target) -> str:
    """Uploads an exported folder in one commit; nothing is shown on the hub before all of it has arrived.

    Args:
        folder: The folder.
        target: Where to.

    Returns:
        The address of the commit.

    Raises:
        EditError: See `check_remote`; or if it could not be uploaded.
    """
    names = files_of(folder)
    parent, api = check_remote(target, names), target.api
    with _answered(target):
        # None leaves it to what is usual for the owner.
        api.create_repo(target.repo, private=target.private or None, exist_ok=True)
        if target.branch is not None:
            api.create_branch(target.repo, branch=target.branch, exist_ok=True)
        done = api.create_commit(
            target.repo,
            [CommitOperationAdd(name, folder / name) for name in names],
            commit_message="Edits written by lightning-edit",
            revision=target.branch,
            # Refused by the hub if somebody else has written in between.
            parent_commit=parent,
        )
    return str(done.commit_url)


@contextmanager
def _answered(target: Target) -> Iterator[None]:
    """Says what to change where the hub does not do what is asked.

    Its client raises errors of several libraries: its own, those of HTTP, of the storage of large files.
    """
    try:
        yield
    except (EditError, MemoryError):
        raise
    except Exception as error:
        raise EditError(_reason(error, target)) from error


def _reason(error: BaseException, target: Target) -> str:
    status, what = _status(error), one_line(error, 300)
    if target.token:
        what = what.replace(target.token, "***")
    if status == 401:
        return f"The hub does not know the token in {TOKEN}: it is mistyped, revoked or has expired. Make another one."
    if status == 403:
        owner = target.repo.split("/")[0]
        return (
            f"The token in {TOKEN} may not write to {target.repo}. Give it write access for {owner} at "
            "https://huggingface.co/settings/tokens, or give a repository of your own to --hub."
        )
    if status in (409, 412):
        return f"{target.repo} was changed on the hub meanwhile. Look at it there, then upload again. ({what})"
    if status is not None:
        return f"The hub answered {status} for {target.repo}: {what} Try again later if that is a fault of the hub's."
    return (
        f"The hub could not be reached at {target.api.endpoint} ({type(error).__name__}: {what}). Look at the network, "
        "HF_ENDPOINT, HF_HUB_OFFLINE and proxies."
    )


def _status(error: BaseException | None) -> int | None:
    """The status that the hub answered with, found in an error or what caused it."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None
