"""A Hub id or a local path -> local files.

The Hub is huggingface_hub's: its cache, tokens, environment variables, progress bar, retries of a download and size
checks. Ours are the order of the questions, one quick question first if nothing is cached, and the sentences when
there is no answer. It is imported where it is used: it takes 0.3 s, and most sources are local.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_bit import json_text, redaction
from keras_bit.redaction import redacted

# Each could be part of a valid Hub id, but `bit.safetensors` that does not exist is a misspelt path, not a repository.
_FILE_SUFFIXES = (".safetensors", ".npz", ".h5", ".keras", ".bin", ".json")

# Seconds that a Hub has to answer whether a cached file is still the newest, before the cached one is taken: a firewall
# that swallows connections would otherwise cost HF_HUB_ETAG_TIMEOUT, ten seconds, for every file.
_QUICK_ANSWER = 2.0

_DEFAULT_REVISION = "main"


@dataclasses.dataclass(frozen=True)
class HubOptions:
    """How a Hub id is fetched; the fields are the arguments of `huggingface_hub.hf_hub_download`.

    Args:
        revision: branch, tag or full commit hash; `None` is `main`. A local source has no revisions: only `None` and
            `main` are accepted with one.
        cache_dir: the cache; `None` is huggingface_hub's default. Like the two below it is for a Hub id alone.
        token: `None` or True is the one that `hf auth login` stored, False sends none.
        local_files_only: whether to answer from the cache and not to ask the Hub.
    """

    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = dataclasses.field(default=None, repr=False)  # a secret
    local_files_only: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `from_pretrained`, and of all that reads a checkpoint."""
        return dataclasses.asdict(self)


def find_file(source: str | Path, names: Sequence[str], options: HubOptions = HubOptions()) -> Path | None:
    """Local path of the first of `names` that `source` has, downloaded if need be; None when it has none of them.

    A name that is in the cache is asked for before one that is not: huggingface_hub answers it from the cache where
    there is no network, and brings it up to date where there is. Otherwise the order of `names` decides. A Hub that
    cannot be reached is asked once, not for as long as a download is retried.

    Args:
        source: a directory; a file, which stands for its directory; or else a Hub id, `name` or `owner/name`. A
            `Path`, or what only a path can look like, is never looked for on the Hub. `~` is the home directory.
        names: file names, the preferred one first.
        options: of a Hub id.

    Raises:
        TypeError: `source`, `revision` or the token is of a wrong type.
        ValueError: `source` is empty or no Hub id; `revision` is empty or was given with a local `source`; the token
            of a Hub id is empty, or holds what no token can.
        FileNotFoundError: no such path, repository or revision; or not in the cache while the Hub is not to be asked.
        PermissionError: the repository is gated, or the Hub refuses the token.
        ConnectionError: the Hub cannot be reached and the cache has none of `names`.
        OSError: any other failure of the Hub, of the download or of the cache.
    """
    folder = _local_folder(source)
    _check_revision(options.revision, source, local=folder is not None)
    if folder is not None:
        return next((folder / name for name in names if (folder / name).is_file()), None)
    repo_id = str(source)
    with redaction.kept_secret(options.token):
        _check_id(repo_id)
        return _from_hub(repo_id, names, options)


def _from_hub(repo_id: str, names: Sequence[str], options: HubOptions) -> Path | None:
    from huggingface_hub import (
        _CACHED_NO_EXIST,  # documented with `try_to_load_from_cache`: "known not to exist at this commit"
        constants,
        hf_hub_url,
        try_to_load_from_cache,
    )

    # Expanded here because try_to_load_from_cache, unlike hf_hub_download, leaves a `~` alone.
    cache = Path(constants.HF_HUB_CACHE if options.cache_dir is None else options.cache_dir).expanduser()

    def in_cache(name: str) -> Any:
        return try_to_load_from_cache(repo_id, name, cache_dir=cache, revision=options.revision)

    entries = {name: in_cache(name) for name in names}
    cached = [name for name in names if isinstance(entries[name], str)]
    try:
        if not cached and not options.local_files_only:
            _ask_once(hf_hub_url(repo_id, names[0], revision=options.revision), options.token)
        for name in (*cached, *(name for name in names if name not in cached)):
            patience = _QUICK_ANSWER if name in cached else constants.HF_HUB_ETAG_TIMEOUT
            if (path := _download(repo_id, name, options, cache, patience)) is not None:
                return path
        return None
    except Exception as error:  # hf_xet's RuntimeError, an address that cannot be read, a stored token that is no ASCII
        cause = _cause(error)
        if _is_unanswered(cause):
            # huggingface_hub falls back to its cache where no connection is made, but not where one breaks. Looked up
            # again: a download that broke off has moved the branch to a commit of which the cache has no file.
            if cached and isinstance(again := in_cache(cached[0]), str):
                return Path(again)
            if all(entry is _CACHED_NO_EXIST for entry in entries.values()):
                return None
        raise _explained(cause, repo_id, names, options, cache) from error


def _download(repo_id: str, name: str, options: HubOptions, cache: Path, patience: float) -> Path | None:
    """The local path of a file, brought up to date; `None` if the Hub says that the repository lacks it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    try:
        path = hf_hub_download(
            repo_id,
            name,
            revision=options.revision,
            cache_dir=cache,
            token=options.token,
            local_files_only=options.local_files_only,
            etag_timeout=patience,
        )
    except (RemoteEntryNotFoundError, LocalEntryNotFoundError) as error:
        if not _is_absent(_cause(error)):
            raise
        return None
    return Path(path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`.

    Raises:
        ValueError: the file is not UTF-8, not JSON, or not an object; the message names it.
    """
    try:
        content = json_text.parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text, which JSON must be: {error}") from error
    except ValueError as error:  # also a number of more digits than Python converts
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, {{...}}, but holds a {type(content).__name__}")
    return content


def _local_folder(source: str | Path) -> Path | None:
    """The directory that `source` means, or None if it may be a Hub id."""
    if not isinstance(source, str | Path):
        raise TypeError(
            f"`source` must be a path or a Hub id such as 'google/bit-50', but is a {type(source).__name__}: {source!r}"
        )
    text = str(source)
    if not text.strip():
        raise ValueError("`source` is empty: pass a path or a Hub id such as 'google/bit-50'")
    path = os.path.expanduser(text)
    # os.path and not Path: it answers False to a name that is too long or holds a null character.
    if os.path.isdir(path):
        return Path(path)
    if os.path.exists(path):
        return Path(path).parent
    if isinstance(source, Path) or _is_plainly_local(text):
        raise FileNotFoundError(
            f"No such file or directory: {redacted(text)!r}. It was not looked for on the Hub, because it looks like a "
            "local path; a Hub id is `name` or `owner/name`, such as 'google/bit-50'."
        )
    return None


def _is_plainly_local(text: str) -> bool:
    return (
        text.startswith(("/", ".", "~"))
        or text.endswith("/")
        or text.count("/") > 1
        or "\\" in text
        or re.match("[A-Za-z]:", text) is not None  # a Windows drive
        or text.lower().endswith(_FILE_SUFFIXES)
    )


def _check_revision(revision: str | None, source: str | Path, local: bool) -> None:
    if revision is None:
        return
    if not isinstance(revision, str):
        raise TypeError(f"`revision` must be a string or None, but is a {type(revision).__name__}: {revision!r}")
    if not revision.strip():
        raise ValueError("`revision` is empty: pass a branch, a tag, a full commit hash, or None for 'main'")
    # `main` passes: scripts written for transformers give it as their default.
    if local and revision != _DEFAULT_REVISION:
        raise ValueError(
            f"`revision` {revision!r} was given, but `source` {str(source)!r} is on this disk and has no revisions: "
            "leave `revision` out"
        )


def _check_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"`source` {repo_id!r} is not a local file or directory, and it cannot be a Hub id (`name` or "
            f"`owner/name`, such as 'google/bit-50'): {error}"
        ) from error


def _ask_once(url: str, token: str | bool | None) -> None:
    """Raise at once what hf_hub_download would raise after 23 s of retries: no connection, or status 500.

    Any other answer is hf_hub_download's to interpret. So are 429, 502, 503 and 504: they pass, and it waits and asks
    again, as long as the Hub's headers tell it to. A host that swallows the question costs HF_HUB_ETAG_TIMEOUT, 10 s.
    """
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(url, token=token)
    except HfHubHTTPError as error:
        if error.response.status_code == 500:
            raise


def _cause(error: Exception) -> Exception:
    """What happened: huggingface_hub raises LocalEntryNotFoundError from it when the cache has no answer either."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return error.__cause__
    return error


def _is_absent(cause: Exception) -> bool:
    """Whether the Hub said that the repository does not have the file."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(cause, RepositoryNotFoundError | RevisionNotFoundError):
        return False
    # A mirror may send a plain 404, without the Hub's X-Error-Code.
    return isinstance(cause, HfHubHTTPError) and cause.response.status_code == 404


def _is_unanswered(cause: Exception) -> bool:
    """Whether the Hub said nothing: not to be asked, not reached, or the connection broke."""
    # HTTPError is that of the HTTP library below huggingface_hub, whichever that is; also the base of HfHubHTTPError.
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(cause, HTTPError):
        return not isinstance(cause, HfHubHTTPError)
    return isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled)


def _explained(cause: Exception, repo_id: str, names: Sequence[str], options: HubOptions, cache: Path) -> OSError:
    """The error that says what was asked, what came and what to do."""
    from huggingface_hub import constants, errors

    hub, revision = redacted(constants.ENDPOINT), options.revision
    told = redacted(cause, options.token)
    wanted = f"{' or '.join(names)} of {repo_id!r}" + (f" at revision {revision!r}" if revision else "")
    log_in = "log in with `hf auth login` or pass `token=`"
    if options.local_files_only or isinstance(cause, errors.OfflineModeIsEnabled):
        forbidden = "`local_files_only=True`" if options.local_files_only else "HF_HUB_OFFLINE=1"
        return FileNotFoundError(
            f"The cache {cache} does not have {wanted}, and {forbidden} forbids asking the Hub; nor is there a local "
            f"file or directory {repo_id!r}. Download it once without {forbidden}, or point `cache_dir` or "
            "HF_HUB_CACHE to a cache that has it."
        )
    if isinstance(cause, errors.GatedRepoError):
        return PermissionError(
            f"{repo_id!r} is a gated repository and {hub} refuses {wanted}. Ask for access at {hub}/{repo_id}, then "
            f"{log_in}."
        )
    if isinstance(cause, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"{repo_id!r} is not a local file or directory, and {hub} shows no repository of that name: it may be "
            f"misspelt or private. If it is private, {log_in}."
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return FileNotFoundError(
            f"{repo_id!r} has no revision {revision or _DEFAULT_REVISION!r} on {hub}. Pass an existing branch, "
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
        return PermissionError(f"The token that is stored, or HF_TOKEN, is not ASCII (it is not shown here): {log_in}.")
    if _is_unanswered(cause):
        return ConnectionError(
            f"The connection to {hub} for {wanted} failed ({told}), and the cache {cache} does not have it; nor is "
            f"there a local file or directory {repo_id!r}. Check the network, a proxy and HF_ENDPOINT. To work "
            "offline, point `cache_dir` or HF_HUB_CACHE to a cache that has it; HF_HUB_OFFLINE=1 or "
            "`local_files_only=True` then saves asking the Hub."
        )
    return OSError(f"Could not get {wanted} from {hub} into the cache {cache}: {told}")
