"""A file on the web -> a local file.

It is kept in the cache of huggingface_hub, in a folder of its own, under its address and the version that its server
names. Another version is another file. An interrupted download continues, and the file gets its name when it is
complete. No token is ever sent.
"""

import base64
import contextlib
import dataclasses
import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_bit.files import writing
from keras_bit.hub import redaction
from keras_bit.hub.errors import is_unanswered
from keras_bit.hub.names import Address, is_safe
from keras_bit.hub.redaction import redacted

FOLDER = "keras_bit"  # in the cache
_CONFIG_NAME = "config.json"
_ABSENT = ".absent"  # what the server said of a file beside the one that was named
# How servers say that they have no such file; some, to those who may not list their folders, that it is forbidden.
_NOT_THERE = (401, 403, 404, 410)
_QUICK_ANSWER, _ANSWER = 2.0, 10.0  # seconds that a server has, if there is a file in the cache, and if not
_HTML = "text/html"


@dataclasses.dataclass(frozen=True)
class _Version:
    """What a server says of a file.

    Args:
        url: where it is, after all redirections.
        size: in bytes; `None` if it is not said.
        key: the same for the same contents.
        resumable: whether a part of it can be had.
        md5: of its contents, in base64, if the server tells it.
    """

    url: str
    size: int | None
    key: str
    resumable: bool
    md5: str | None


def find_file(address: Address, names: Sequence[str], cache_dir: str | Path | None, offline: bool) -> Path | None:
    """Local path of the first of `names` in the folder of `address`; `None` if it has none of them.

    Args:
        address: a file, which stands for its folder. Of a published checkpoint, which comes alone, `config.json` is
            what is known of it.
        names: file names.
        cache_dir: the cache; `None` is huggingface_hub's.
        offline: whether to answer from the cache and to ask nobody, as with HF_HUB_OFFLINE=1.

    Raises:
        ValueError: the server sends a web page, or other contents than it says.
        FileNotFoundError: the server has no such file; or not in the cache while nobody is to be asked.
        PermissionError: the server refuses.
        ConnectionError: the server cannot be reached and the cache does not have it.
        OSError: any other failure of the server, the download or the cache.
    """
    with redaction.kept_secret(None):
        from huggingface_hub import constants

        base = Path(constants.HF_HUB_CACHE if cache_dir is None else cache_dir).expanduser() / FOLDER
        offline = offline or constants.HF_HUB_OFFLINE
        for name in names:
            if name == address.file:
                return _named(address.url, name, base, offline)
            if address.config is None:
                found = _beside(address, name, base, offline)
            else:
                found = _known(address, base) if name == _CONFIG_NAME else None
            if found is not None:
                return found
        return None


def _named(url: str, name: str, base: Path, offline: bool) -> Path:
    """The file that was asked for by its address."""
    folder = _folder(url, base)
    cached = _newest(folder, name)
    if offline:
        if cached is None:
            raise FileNotFoundError(
                f"The cache {base} does not have {redacted(url)}, and `local_files_only=True` or HF_HUB_OFFLINE=1 "
                "forbids asking for it. Download it once without, or point `cache_dir` or HF_HUB_CACHE to a cache that "
                "has it."
            )
        return cached
    try:
        version = _asked(url, quick=cached is not None)
        return _downloaded(version, folder, name)
    except Exception as error:
        if cached is not None and (is_unanswered(error) or _status(error) is not None):
            return cached
        raise _explained(error, url, base) from error


def _beside(address: Address, name: str, base: Path, offline: bool) -> Path | None:
    """A file that may lie beside the one that was asked for; `None` if the server does not have it, now or before.

    If nobody answers, and the cache has neither, the error is about the file that was asked for.
    """
    url = address.beside(name).url
    folder = _folder(url, base)
    cached = _newest(folder, name) is not None
    known_absent = not cached and (folder / _ABSENT).exists()
    whole = cached or _newest(_folder(address.url, base), address.file) is not None
    if offline and known_absent:
        return None
    if offline and not whole:
        return _named(address.url, address.file, base, offline)
    try:
        return _named(url, name, base, offline)
    except _WebPageError:  # some servers have one for what they do not have
        pass
    except OSError as error:
        status, cause = _status(error.__cause__), error.__cause__
        if known_absent and status not in _NOT_THERE:
            return None
        if isinstance(cause, Exception) and is_unanswered(cause) and not whole:
            raise _explained(cause, address.url, base) from cause
        if status not in _NOT_THERE:
            raise
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _ABSENT).touch()
    return None


def _known(address: Address, base: Path) -> Path:
    """The `config.json` of a published checkpoint, written from the table."""
    path = _folder(address.url, base) / _CONFIG_NAME
    text = json.dumps(address.config, indent=2) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing.replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")
    return path


class _WebPageError(ValueError):
    """A server sends a page in place of a file."""


class _RefusedError(OSError):
    """A server refuses: its status is the first argument."""


def _status(error: BaseException | None) -> int | None:
    return error.args[0] if isinstance(error, _RefusedError) else None


def _asked(url: str, quick: bool) -> _Version:
    """What the server says of a file.

    It is asked for the first byte: not all servers answer HEAD, and an address with a signature is for GET.

    Raises:
        _RefusedError: it does not have it, or does not give it.
        _WebPageError: it sends a page.
    """
    from huggingface_hub.utils import get_session

    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    timeout = _QUICK_ANSWER if quick else _ANSWER
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        if not is_safe(str(response.url)):
            raise _RefusedError(0, f"it redirects to {response.url}, which is not encrypted")
        if response.status_code not in (200, 206, 416):
            raise _RefusedError(response.status_code, response.reason_phrase)
        told: Mapping[str, str] = response.headers
        if told.get("Content-Type", "").lower().startswith(_HTML):
            raise _WebPageError(f"{redacted(url)} answers with a web page (HTML), not with a file of weights")
        if response.status_code == 200:
            size = told.get("Content-Length", "")
        else:
            size = told.get("Content-Range", "").rpartition("/")[2]  # bytes 0-0/102400
        known = told.get("ETag") or told.get("Last-Modified") or ""
        hashes = dict(part.strip().partition("=")[::2] for part in told.get("x-goog-hash", "").split(","))
        return _Version(
            url=str(response.url),
            size=int(size) if size.isdecimal() else None,
            key=_digest(f"{known} {size}"),
            resumable=response.status_code == 206 and bool(known),
            md5=hashes.get("md5"),
        )


def _downloaded(version: _Version, folder: Path, name: str) -> Path:
    """The file in the cache, downloaded if it is not there."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock

    path = folder / version.key / name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{name}.incomplete")
    with WeakFileLock(path.with_name(".lock")):
        if path.is_file():
            return path  # another process has downloaded it meanwhile
        with unfinished.open("ab" if version.resumable else "wb") as file:
            if version.size is not None and file.tell() > version.size:
                file.truncate(0)
            http_get(
                version.url,
                file,
                resume_size=file.tell(),
                headers={"Accept-Encoding": "identity"},
                expected_size=version.size,
                displayed_filename=name,
            )
        if version.md5 is not None and (found := _md5(unfinished)) != version.md5:
            unfinished.unlink()
            raise ValueError(f"its MD5 is {found}, and the server says {version.md5}. Try again")
        unfinished.replace(path)
    return path


def _explained(error: Exception, url: str, base: Path) -> Exception:
    """The error that says what was asked, what came and what to do."""
    shown, told = redacted(url), redacted(error)
    status = _status(error)
    if isinstance(error, _WebPageError):
        return _WebPageError(f"{told}. Open it in a browser to see why, and pass the address of the file itself.")
    if status in (404, 410):
        return FileNotFoundError(f"There is no file {shown}: its server answers with status {status}.")
    if status in (401, 403):
        return PermissionError(
            f"The server of {shown} refuses it with status {status}. An address with a signature may have expired; no "
            "token is sent to other servers than the Hub's. Download the file, and pass its path."
        )
    if status is not None:
        return OSError(f"Could not get {shown}: {error.args[1] if not status else f'status {status}'}.")
    if is_unanswered(error):
        return ConnectionError(
            f"The connection for {shown} failed ({told}), and the cache {base} does not have it. Check the address, "
            "the network and a proxy; what was downloaded is kept, and the next try goes on from there."
        )
    if isinstance(error, ValueError):
        return ValueError(f"The download of {shown} is damaged: {told}.")
    return OSError(f"Could not get {shown} into the cache {base}: {told}")


def _folder(url: str, base: Path) -> Path:
    return base / _digest(url)


def _newest(folder: Path, name: str) -> Path | None:
    """The last version of a file that was downloaded."""
    return max(folder.glob(f"*/{glob.escape(name)}"), key=lambda path: path.stat().st_mtime, default=None)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()).decode()
