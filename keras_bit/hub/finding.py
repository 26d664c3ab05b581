"""A name of a checkpoint -> local files.

`names` decides what a name means; `addresses` downloads files from the web. For the Hub, huggingface_hub has the cache,
tokens, environment variables, progress bar, retries and size checks. This module adds the order of the requests, a
quick first request if nothing is cached, and the messages (`errors`). huggingface_hub is imported only when it is
needed, because it takes long and most sources are local.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_bit.files import json_text
from keras_bit.hub import addresses, published, redaction, stand_ins
from keras_bit.hub.errors import DEFAULT_REVISION, cause_of, explained, is_absent, is_unanswered
from keras_bit.hub.names import HUB, Address, Repository, resolve
from keras_bit.hub.redaction import redacted

# Each could be part of a valid Hub id, but a missing `bit.safetensors` is a misspelled path, not a repository.
FILE_SUFFIXES = (
    ".safetensors",
    ".npz",
    ".h5",
    ".hdf5",
    ".keras",
    ".bin",
    ".json",
    ".pth",
    ".pt",
    ".pth.tar",
    ".ckpt",
)

# Seconds to wait for the Hub's answer on whether a cached file is still the newest, before the cached one is used. A
# firewall that drops connections would otherwise cost HF_HUB_ETAG_TIMEOUT, ten seconds, for every file.
_QUICK_ANSWER = 2.0

# A file that a directory of `keras-bit finetune` has from its first step on.
_RUN = Path("training", "run.json")


@dataclasses.dataclass(frozen=True)
class HubOptions:
    """How to download from the Hub; the fields are the arguments of `huggingface_hub.hf_hub_download`.

    Args:
        revision: branch, tag or full commit hash; `None` is `main`. Local sources and files on the web have no
            revisions, so only `None` and `main` are accepted for them.
        cache_dir: the cache; `None` is huggingface_hub's default. Files from the web are kept there too.
        token: `None` or True is the one stored by `hf auth login`, False sends none. White space around it is removed;
            an empty token is `None`. It is sent to the Hub only.
        local_files_only: whether to use only the cache.
    """

    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = dataclasses.field(default=None, repr=False)  # a secret
    local_files_only: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", redaction.plain_token(self.token))

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `from_pretrained` and of every function that reads a checkpoint."""
        return dataclasses.asdict(self)


def find_file(source: str | Path, names: Sequence[str], options: HubOptions = HubOptions()) -> Path | None:
    """Returns the local path of the first of `names` that `source` has, downloaded if needed; `None` if it has none.

    Cached names are requested first: huggingface_hub uses the cache without a network, and updates it with one.
    Otherwise the order of `names` counts. If the Hub cannot be reached, it is asked only once, without retries.

    Args:
        source: a directory; a file, which stands for its directory; a Hub id, `name` or `owner/name`; a name of
            `list_checkpoints`; or an address that `names.resolve` understands. A `Path`, or a text that can only be a
            path, is never searched on the Hub. `~` is the home directory.
        names: file names, the preferred one first.
        options: the options of the download.

    Raises:
        TypeError: `source`, `revision` or the token is of a wrong type.
        ValueError: `source` is empty, or not a valid name, address or Hub id; `revision` is empty, or does not go with
            `source`; the token is malformed; the file is a Git LFS pointer or a web page.
        FileNotFoundError: no such path, repository or revision; or, offline, it is not in the cache.
        PermissionError: the repository is gated, or the Hub refuses the token.
        ConnectionError: the Hub cannot be reached and the cache has none of `names`.
        OSError: any other failure of the Hub, of the download or of the cache.
    """
    place = place_of(source)
    _check_revision(options.revision, source, place)
    if isinstance(place, Path):
        folder = place if place.is_dir() else place.parent
        found = next((folder / name for name in names if (folder / name).is_file()), None)
    elif isinstance(place, Address):
        found = addresses.find_file(place, names, options.cache_dir, options.local_files_only)
    else:
        with redaction.kept_secret(options.token):
            _check_id(place.id)
            found = _from_hub(place, names, options)
    if found is not None:
        stand_ins.refuse(found)
    return found


def place_of(source: str | Path) -> Path | Repository | Address:
    """Returns what `source` means: an existing path, a repository of the Hub, or a file on the web. Uses no network.

    Raises:
        TypeError, ValueError, FileNotFoundError: as `find_file`.
    """
    if not isinstance(source, str | Path):
        raise TypeError(
            f"`source` must be a path or a Hub id such as 'google/bit-50', got {type(source).__name__}: {source!r}."
        )
    text = str(source)
    if not text.strip():
        raise ValueError("`source` must not be empty. Pass a path or a Hub id such as 'google/bit-50'.")
    path = os.path.expanduser(text)
    # os.path instead of Path, because it returns False for a name that is too long or holds a null character.
    exists = os.path.exists(path)
    place = Path(text) if isinstance(source, Path) else resolve(text, exists, os.environ.get("HF_ENDPOINT") or HUB)
    if isinstance(place, Address) and not place.file.lower().endswith(FILE_SUFFIXES):
        raise ValueError(
            f"`source` {shown(text)!r} is not the address of a file of weights, which would end in "
            f"{', '.join(FILE_SUFFIXES)}, nor of a page of the Hub such as '{HUB}/google/bit-50'."
        )
    if isinstance(place, Repository | Address):
        return place
    if exists:
        return Path(path)
    if isinstance(source, Path) or _is_plainly_local(text):
        raise FileNotFoundError(
            f"No such file or directory: {redacted(text)!r}. It was not searched on the Hub, because it looks like a "
            "local path; a Hub id is `name` or `owner/name`, such as 'google/bit-50'."
        )
    return Repository(text, explicit=False)


def named_file(source: str | Path) -> str | None:
    """Returns the name of the file, if `source` names a file and not a directory or a whole repository."""
    place = place_of(source)
    if isinstance(place, Path):
        return None if place.is_dir() else place.name
    return place.file


def shown(source: str | Path) -> str:
    """Returns `source` for messages, without secrets in an address."""
    return redacted(source)


def remark(source: str | Path) -> str:
    """Returns a remark about a source that lacks something, as a sentence after a space; or an empty text.

    A local directory may hide another source, or hold a run that has not ended.
    """
    try:
        place = place_of(source)
    except (OSError, ValueError):
        return ""
    if not isinstance(place, Path):
        return ""
    if of_a_run := run_of(place):
        return of_a_run
    if not place.is_dir():
        return ""
    folder = place.absolute()
    text = str(source)
    row = published.by_name().get(text) or published.by_source().get(text)
    if isinstance(source, str) and (row is not None or re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text)):
        there = row.source if row is not None and row.source != text else f"hf://{text}"
        known = ", which hides the published checkpoint of that name. For that, pass"
        unknown = ". For a repository of the Hub, pass"
        return f" {text!r} is the local directory {folder}{unknown if row is None else known} {there!r}."
    return ""


def run_of(place: Path) -> str:
    """Returns a remark about a path in a run that has not ended, as a sentence after a space; or an empty text."""
    folder = (place if place.is_dir() else place.parent).absolute()
    if (folder.parent / _RUN).is_file() and folder.name == _RUN.parent.name:
        return f" {folder} is the training state of a `keras-bit finetune` run, whose result is {folder.parent}."
    if place.is_dir() and (folder / _RUN).is_file():
        return (
            f" {folder} is the directory of a `keras-bit finetune` run that has not written its result yet. Start the "
            "same command again to continue it."
        )
    return ""


def _from_hub(repository: Repository, names: Sequence[str], options: HubOptions) -> Path | None:
    from huggingface_hub import (
        _CACHED_NO_EXIST,  # documented with `try_to_load_from_cache`: "known not to exist at this commit"
        constants,
        hf_hub_url,
        try_to_load_from_cache,
    )

    repo_id = repository.id
    options = dataclasses.replace(options, revision=options.revision or repository.revision)
    # Expanded here, because try_to_load_from_cache, unlike hf_hub_download, does not expand `~`.
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
    except Exception as error:  # hf_xet's RuntimeError, an unreadable address, a stored token that is not ASCII
        cause = cause_of(error)
        if is_unanswered(cause):
            # huggingface_hub falls back to its cache if it cannot connect, but not if a connection breaks. The cache is
            # read again, because a broken download has moved the branch to a commit without files in the cache.
            if cached and isinstance(again := in_cache(cached[0]), str):
                return Path(again)
            if all(entry is _CACHED_NO_EXIST for entry in entries.values()):
                return None
        asked = {name: value for name, value in options.arguments.items() if name != "cache_dir"}
        if repository.file is not None and not isinstance(in_cache(repository.file), str):
            names = (repository.file,)  # the named file itself, not one next to it
        raise explained(cause, repository, names, cache, **asked) from error


def _download(repo_id: str, name: str, options: HubOptions, cache: Path, patience: float) -> Path | None:
    """Returns the local path of an updated file; `None` if the Hub answers that the repository lacks it."""
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
        if not is_absent(cause_of(error)):
            raise
        return None
    return Path(path)


def read_json(path: Path) -> dict[str, Any]:
    """Reads the JSON object in the file at `path`.

    Raises:
        ValueError: the file is not UTF-8, not JSON, or not an object.
    """
    try:
        content = json_text.parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text, which JSON must be: {error}. Save it as UTF-8, or fetch it again."
        ) from error
    except ValueError as error:  # or a number with more digits than Python converts
        raise ValueError(f"{path} is not JSON: {error}. Correct it, or fetch it again.") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a JSON object, {{...}}, but holds a {type(content).__name__}. "
            "Correct it, or fetch it again."
        )
    return content


def _is_plainly_local(text: str) -> bool:
    return (
        text.startswith(("/", ".", "~"))
        or text.endswith("/")
        or text.count("/") > 1
        or "\\" in text
        or re.match("[A-Za-z]:", text) is not None  # a Windows drive
        or text.lower().endswith(FILE_SUFFIXES)
    )


def _check_revision(revision: str | None, source: str | Path, place: Path | Repository | Address) -> None:
    if revision is None:
        return
    if not isinstance(revision, str):
        raise TypeError(f"`revision` must be a string or None, got {type(revision).__name__}: {revision!r}.")
    if not revision.strip():
        raise ValueError("`revision` must not be empty. Pass a branch, a tag, a full commit hash, or None for 'main'.")
    if isinstance(place, Repository):
        if place.revision not in (None, revision):
            raise ValueError(
                f"`revision` {revision!r} was given, but `source` {shown(source)!r} names the revision "
                f"{place.revision!r}. Leave one of them out."
            )
    # `main` is accepted, because scripts for transformers pass it as their default.
    elif revision != DEFAULT_REVISION:
        where = "on this disk" if isinstance(place, Path) else "a file on the web"
        raise ValueError(
            f"`revision` {revision!r} was given, but `source` {shown(source)!r} is {where} and has no revisions. "
            "Leave `revision` out."
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
    """Raises at once what hf_hub_download would raise after 23 s of retries: no connection, or status 500.

    hf_hub_download handles any other answer. For 429, 502, 503 and 504, which are temporary, it waits and retries as
    the Hub's headers say. A host that drops the request costs HF_HUB_ETAG_TIMEOUT, 10 s.
    """
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(url, token=token)
    except HfHubHTTPError as error:
        if error.response.status_code == 500:
            raise
