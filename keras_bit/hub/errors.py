"""Recognizes failures of the Hub, and explains each in a sentence."""

from collections.abc import Sequence
from pathlib import Path

from keras_bit.hub.names import Repository
from keras_bit.hub.redaction import redacted

DEFAULT_REVISION = "main"


def cause_of(error: Exception) -> Exception:
    """Returns the real cause, from which huggingface_hub raises LocalEntryNotFoundError if the cache has no answer."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return error.__cause__
    return error


def is_absent(cause: Exception) -> bool:
    """Returns whether the Hub answered that the repository does not have the file."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(cause, RepositoryNotFoundError | RevisionNotFoundError):
        return False
    # A mirror may send a plain 404, without the Hub's X-Error-Code.
    return isinstance(cause, HfHubHTTPError) and cause.response.status_code == 404


def is_unanswered(cause: Exception) -> bool:
    """Returns whether the Hub did not answer: offline mode, no connection, or a broken one."""
    # HTTPError belongs to the HTTP library below huggingface_hub, and is the base of HfHubHTTPError.
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(cause, HTTPError):
        return not isinstance(cause, HfHubHTTPError)
    return isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled)


def explained(
    cause: Exception,
    repository: Repository,
    names: Sequence[str],
    cache: Path,
    *,
    revision: str | None,
    token: str | bool | None,
    local_files_only: bool,
) -> OSError:
    """Returns an error that says what was requested, what came and what to do.

    Args:
        cause: the error that happened.
        repository: the id of the repository.
        names: the names of the requested files.
        cache: the directory of the cache.
        revision, token, local_files_only: the caller's arguments.
    """
    from huggingface_hub import constants, errors

    hub, repo_id = redacted(constants.ENDPOINT), repository.id
    told = redacted(cause, token)
    nor_local = "" if repository.explicit else f"; nor is there a local file or directory {repo_id!r}"
    wanted = f"{' or '.join(names)} of {repo_id!r}" + (f" at revision {revision!r}" if revision else "")
    log_in = "log in with `hf auth login` or pass `token=`"
    if local_files_only or isinstance(cause, errors.OfflineModeIsEnabled):
        forbidden = "`local_files_only=True`" if local_files_only else "HF_HUB_OFFLINE=1"
        return FileNotFoundError(
            f"The cache {cache} does not have {wanted}, and {forbidden} forbids asking the "
            f"Hub{nor_local}. Download it once without {forbidden}, or point `cache_dir` or "
            "HF_HUB_CACHE to a cache that has it."
        )
    if isinstance(cause, errors.GatedRepoError):
        return PermissionError(
            f"{repo_id!r} is a gated repository and {hub} refuses {wanted}. Ask for access at {hub}/{repo_id}, then "
            f"{log_in}."
        )
    if isinstance(cause, errors.RepositoryNotFoundError):
        elsewhere = f"{repo_id!r}: " if repository.explicit else f"{repo_id!r} is not a local file or directory, and "
        return FileNotFoundError(
            f"{elsewhere}{hub} shows no repository of that name: it may be misspelled or private. If it is private, "
            f"{log_in}."
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return FileNotFoundError(
            f"{repo_id!r} has no revision {revision or DEFAULT_REVISION!r} on {hub}. Pass an existing branch, "
            "a tag or a full commit hash as `revision`."
        )
    if isinstance(cause, errors.HfHubHTTPError):
        status = cause.response.status_code
        if status in (401, 403):
            return PermissionError(
                f"{hub} refused {wanted} with status {status}. The token may be wrong, expired or without the right to "
                f"read it: {log_in}. The answer was: {told}"
            )
        return OSError(
            f"{hub} answered {wanted} with status {status}, and the cache {cache} does not have it. Try again later. "
            f"The answer was: {told}"
        )
    if isinstance(cause, UnicodeEncodeError):
        return PermissionError(f"The stored token, or HF_TOKEN, is not ASCII (it is not shown here): {log_in}.")
    if is_unanswered(cause):
        return ConnectionError(
            f"The connection to {hub} for {wanted} failed ({told}), and the cache {cache} does not have it{nor_local}. "
            "Check the network, a proxy and HF_ENDPOINT. To work offline, point `cache_dir` or HF_HUB_CACHE to a "
            "cache that has it; with HF_HUB_OFFLINE=1 or `local_files_only=True` the Hub is not asked."
        )
    return OSError(f"Could not get {wanted} from {hub} into the cache {cache}: {told}")
