"""A file on the web -> a local file.

It is kept in its own folder of huggingface_hub's cache, under its address and the server's version. Another version is
another file. An interrupted download continues, and the file gets its name when it is complete. No token is ever sent.
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
_ABSENT = ".absent"  # the server's answer about a file next to the named one
# Answers of servers that do not have a file; some answer "forbidden" to those who may not list their folders.
_NOT_THERE = (401, 403, 404, 410)
_QUICK_ANSWER, _ANSWER = 2.0, 10.0  # seconds to wait for a server: with a file in the cache, and without
_HTML = "text/html"


@dataclasses.dataclass(frozen=True)
class _Version:
    """A server's description of a file.

    Args:
        url: its address after all redirections.
        size: the size of the file in bytes; `None` if unknown.
        key: a text that changes if the contents change.
        resumable: whether the server sends parts of it.
        md5: the MD5 of its contents, in base64, if the server sends it.
    """

    url: str
    size: int | None
    key: str
    resumable: bool
    md5: str | None


def find_file(address: Address, names: Sequence[str], cache_dir: str | Path | None, offline: bool) -> Path | None:
    """Returns the local path of the first of `names` in the folder of `address`; `None` if it has none of them.

    Args:
        address: a file, which stands for its folder. A published checkpoint has no other files; its `config.json` is
            made from the table.
        names: file names.
        cache_dir: the cache; `None` is huggingface_hub's.
        offline: whether to use only the cache, as with HF_HUB_OFFLINE=1.

    Raises:
        ValueError: the server sends a web page, or contents that do not match its description.
        FileNotFoundError: the server has no such file; or, offline, it is not in the cache.
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
    """Finds the file at the address itself."""
    folder = _folder(url, base)
    cached = _newest(folder, name)
    if offline:
        if cached is None:
            raise FileNotFoundError(
                f"The cache {base} does not have {redacted(url)}, and `local_files_only=True` or HF_HUB_OFFLINE=1 "
                "forbids asking for it. Download it once without this setting, or point `cache_dir` or HF_HUB_CACHE "
                "to a cache that has it."
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
    """Finds a file in the same folder as the one at the address; `None` if the server does not have it, now or before.

    If the server does not answer and the cache has neither, the error is about the file at the address.
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
    except _WebPageError:  # some servers send a page for a missing file
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
    """Writes the `config.json` of a published checkpoint from the table."""
    path = _folder(address.url, base) / _CONFIG_NAME
    text = json.dumps(address.config, indent=2) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing.replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")
    return path


class _WebPageError(ValueError):
    """A server sends a web page instead of a file."""


class _RefusedError(OSError):
    """A server refuses: its status is the first argument."""


def _status(error: BaseException | None) -> int | None:
    return error.args[0] if isinstance(error, _RefusedError) else None


def _asked(url: str, quick: bool) -> _Version:
    """Asks the server about a file.

    It requests the first byte, because not all servers answer HEAD, and a signed address is for GET.

    Raises:
        _RefusedError: it does not have the file, or refuses it.
        _WebPageError: it sends a web page.
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
            raise _WebPageError(f"{redacted(url)} answered with a web page (HTML), not with a file of weights")
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
    """Returns the file in the cache, and downloads it if needed."""
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
            raise ValueError(f"its MD5 is {found}, but the server says {version.md5}. Try again")
        unfinished.replace(path)
    return path


def _explained(error: Exception, url: str, base: Path) -> Exception:
    """Returns an error that says what was requested, what came and what to do."""
    shown, told = redacted(url), redacted(error)
    status = _status(error)
    if isinstance(error, _WebPageError):
        return _WebPageError(f"{told}. Open it in a browser to see why, and pass the address of the file itself.")
    if status in (404, 410):
        return FileNotFoundError(
            f"The file {shown} does not exist: its server answers with status {status}. Check the address."
        )
    if status in (401, 403):
        return PermissionError(
            f"The server of {shown} refuses it with status {status}. A signed address may have expired. Tokens are "
            "sent to the Hub only. Download the file, and pass its path."
        )
    if status is not None:
        return OSError(
            f"Could not get {shown}: {error.args[1] if not status else f'status {status}'}. "
            "Check the address, or try again later."
        )
    if is_unanswered(error):
        return ConnectionError(
            f"The connection for {shown} failed ({told}), and the cache {base} does not have it. Check the address, "
            "the network and the proxy. The next try continues the download."
        )
    if isinstance(error, ValueError):
        return ValueError(f"The download of {shown} is damaged: {told}.")
    return OSError(f"Could not get {shown} into the cache {base}: {told}")


def _folder(url: str, base: Path) -> Path:
    return base / _digest(url)


def _newest(folder: Path, name: str) -> Path | None:
    """Returns the latest downloaded version of a file."""
    return max(folder.glob(f"*/{glob.escape(name)}"), key=lambda path: path.stat().st_mtime, default=None)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()).decode()
