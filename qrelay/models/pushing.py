"""Pushing a folder to a Hugging Face hub, as a dataset or a model.

Private unless it is asked for in words, never into a repository that is public already by surprise. Resumable: the
hub keeps files by their hash, so a push of the same bytes that is run again sends only what is not there. The token
is what `hf auth login` or HF_TOKEN gave to huggingface_hub; it is never read, shown or kept here. `HF_ENDPOINT` and
the proxy variables mean what they mean to huggingface_hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from qrelay.errors import BackendUnavailable, ConfigError, InputError, QrelayError
from qrelay.models.home import hash_file

_DENIED: Final = (401, 403)
_NOT_FOUND: Final = 404
_OVERTAKEN: Final = (409, 412)
RepoType = Literal["dataset", "model"]


@dataclass(frozen=True, slots=True)
class LeavingFile:
    """A file that a push sends: its path in the repository, its size in bytes, its sha256."""

    path: str
    size: int
    sha256: str


def leaving(folder: Path) -> list[LeavingFile]:
    """Every file below `folder`, by path: what would leave the machine. Contacts nobody."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [LeavingFile(path.relative_to(folder).as_posix(), path.stat().st_size, hash_file(path)) for path in files]


def quietly() -> None:
    """No progress bars from now on in this process: a service's standard error is its log."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()


def check_repo(repo: str) -> None:
    """Refuses what cannot name a repository.

    Raises:
        InputError: not owner/name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"--repo {repo!r}: {error}") from error
    if "/" not in repo:
        raise InputError(f"--repo {repo!r} names no owner: write owner/name")


@dataclass(frozen=True, slots=True)
class Repository:
    """What a repository holds. head: its last commit; files: their paths."""

    head: str
    files: tuple[str, ...]


def open_repository(repo: str, *, public: bool, repo_type: RepoType = "dataset") -> Repository:
    """What the repository holds now; it is made where there is none. Raises as `push_folder`."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ConfigError("no token for the hub: run `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    with _hub_errors(repo):
        api.create_repo(repo, repo_type=repo_type, private=not public, exist_ok=True)
        found = api.repo_info(repo, repo_type=repo_type)
        if not public and not found.private:
            raise InputError(
                f"{repo} exists and is public: push with --public (sink.publish.public) if the data may be public, or"
                " make it private; nothing was sent"
            )
        files = getattr(found, "siblings", None) or ()
        return Repository(found.sha or "", tuple(each.rfilename for each in files))


def read_file(repo: str, path: str, head: str, repo_type: RepoType = "dataset") -> bytes:
    """A file of a repository as of this commit. Raises as `push_folder`."""
    from huggingface_hub import HfApi

    with _hub_errors(repo), TemporaryDirectory(prefix="qrelay-hub-") as folder:
        found = HfApi().hf_hub_download(repo, path, repo_type=repo_type, revision=head or None, local_dir=folder)
        return Path(found).read_bytes()


def push_folder(
    folder: Path,
    repo: str,
    *,
    public: bool,
    message: str,
    replaces: str = "",
    repo_type: RepoType = "dataset",
    onto: str = "",
) -> str:
    """Sends every file below `folder`, creating the repository where there is none; the commit's address.
    `replaces`: files of the repository with such a path (`data/*`) that the folder lacks are deleted. `onto`: the
    commit that must be the repository's last one.

    Raises:
        ConfigError: no token, or one that may not write there.
        InputError: the repository is public and `public` is not asked for, or the hub refuses the files.
        BackendUnavailable: the hub does not answer or failed, or the last commit is another one; run it again.
    """
    from huggingface_hub import HfApi

    open_repository(repo, public=public, repo_type=repo_type)
    api = HfApi()
    with _hub_errors(repo):
        commit = api.upload_folder(
            repo_id=repo,
            repo_type=repo_type,
            folder_path=folder,
            commit_message=message,
            delete_patterns=replaces or None,
            parent_commit=onto or None,
        )
    return str(commit.commit_url)


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """The library's failures, as ours."""
    try:
        yield
    except QrelayError:
        raise
    except Exception as error:  # the library raises its own, httpx's, and RuntimeError around either
        status = _status(error)
        why = str(error).strip().split("\n")[0]
        if status in _DENIED:
            raise ConfigError(
                f"the hub refuses this token for {repo} ({status}): log in as somebody who may write there, with"
                " `hf auth login` or HF_TOKEN"
            ) from error
        if status in _OVERTAKEN:
            raise BackendUnavailable(f"{repo} was changed by somebody else meanwhile; run it again") from error
        if status is not None and status < 500 and status != 429:
            hint = "; does the owner exist?" if status == _NOT_FOUND else ""
            raise InputError(f"the hub refuses the push to {repo} ({status}): {why}{hint}") from error
        raise BackendUnavailable(
            f"the push to {repo} did not finish: {why}; run it again: files that arrived are not sent again"
        ) from error


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, through what wraps it; None where the hub did not answer."""
    while error is not None:
        response: Any = getattr(error, "response", None)
        if response is not None and hasattr(response, "status_code"):
            return int(response.status_code)
        error = error.__cause__ or error.__context__
    return None
