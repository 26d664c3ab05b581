"""Converts the name that a person types for a checkpoint to its place.

Pure: no files, no network. `finding.find_file` calls `resolve` for every source, so that all functions and commands
understand the same names.
"""

import dataclasses
import difflib
import ipaddress
import re
import urllib.parse
from pathlib import Path
from typing import Any

from keras_bit.hub import published
from keras_bit.hub.published import WORDS, PublishedCheckpoint

HUB = "https://huggingface.co"
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_OTHER_PAGES = ("datasets", "spaces", "collections", "docs", "models", "papers", "blog")  # of the Hub
_PREFIXES = ("hf://", "hf-hub:")  # Keras' and timm's
# The beginnings of published names that are not ids on the Hub.
_LIKE_A_PUBLISHED_NAME = re.compile(r"(?i)(resnetv2_\d+x\d+_bit|bit-[sm]-r\d)[\w.-]{0,80}")


@dataclasses.dataclass(frozen=True)
class Repository:
    """A repository of the Hub.

    Args:
        id: `name` or `owner/name`.
        revision: the revision in its address.
        file: the file in its address.
        explicit: whether the name can mean nothing else, so that no local directory was considered.
    """

    id: str
    revision: str | None = None
    file: str | None = None
    explicit: bool = True


@dataclasses.dataclass(frozen=True)
class Address:
    """A file on the web.

    Args:
        url: where it is.
        config: its `config.json` in timm's layout, if it is a published checkpoint.
    """

    url: str
    config: dict[str, Any] | None = None

    @property
    def file(self) -> str:
        """The file's name."""
        return urllib.parse.unquote(urllib.parse.urlsplit(self.url).path).replace("\\", "/").rpartition("/")[2]

    def beside(self, name: str) -> "Address":
        """Returns the address of another file in the same folder."""
        if name == self.file:
            return self
        return Address(urllib.parse.urljoin(self.url, urllib.parse.quote(name)))


def resolve(text: str, exists: bool, endpoint: str = HUB) -> Path | Repository | Address | None:
    """Returns the place that a text means.

    Args:
        text: the typed text, not empty.
        exists: whether a file or a directory has that path.
        endpoint: address of the Hub.

    Returns:
        A path; a repository; a file on the web; or `None` for any other text, which may be an id on the Hub or a path
        that does not exist.

    Raises:
        ValueError: it is one of `WORDS`; or it begins like an address or a published name, but is not one.
    """
    if text in WORDS:
        raise ValueError(
            f"`source` {text!r} does not say which architecture to build. Call `BiT50(weights={text!r})`, or "
            "`BiT50x3`, `BiT101`, `BiT101x3`, `BiT152x2`, `BiT152x4`; or pass a checkpoint such as 'google/bit-50' "
            f"(`keras_bit.list_checkpoints()` lists them). For a folder of that name, pass './{text}'."
        )
    for prefix in _PREFIXES:
        if text.lower().startswith(prefix):
            return _from_prefixed(prefix + text[len(prefix) :], prefix)
    if text.lower().startswith(("http://", "https://")):
        return _from_address(text, endpoint)
    if exists:
        return Path(text)
    if (scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text)) is not None:  # the rest may hold a password
        raise ValueError(
            f"`source` begins with {scheme[0]}, but only hf:// and https:// are supported. Copy the checkpoint to this "
            "machine, and pass its path."
        )
    if (row := published.by_name().get(text)) is not None:
        return _place_of(row)
    if _LIKE_A_PUBLISHED_NAME.fullmatch(text):
        close = difflib.get_close_matches(text, published.by_name(), n=3, cutoff=0)
        raise ValueError(
            f"`source` {text!r} is neither a local file or directory nor a published checkpoint. The closest names "
            f"are {', '.join(map(repr, close))}; `keras_bit.list_checkpoints()` has all of them."
        )
    return None


def _place_of(row: PublishedCheckpoint) -> Repository | Address:
    if "://" in row.source:
        return Address(row.source, published.timms_config(row))
    return Repository(row.source)


def _from_prefixed(text: str, prefix: str) -> Repository:
    match = re.fullmatch(r"((?:[^/@\s]+/)?[^/@\s]+)(?:@([^@\s]+?))?/?", text.removeprefix(prefix))
    if match is None:
        raise ValueError(
            f"`source` {text!r} names no repository of the Hub: expected '{prefix}owner/name', or "
            f"'{prefix}owner/name@revision'."
        )
    return Repository(match[1], match[2])


def _from_address(text: str, endpoint: str) -> Repository | Address:
    try:
        parts = urllib.parse.urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or not text.isprintable():  # not shown, because it may hold a password
        raise ValueError(
            f"`source` is not a complete web address such as '{published.GOOGLE}BiT-M-R50x1.npz'. "
            "Complete it, or pass the path of a file."
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"`source` is a web address of {host} with a user name or a password in it, which messages and logs would "
            "show. Download the file, and pass its path."
        )
    if host in _HUB_HOSTS or _is_below(parts, endpoint):
        prefix = urllib.parse.urlsplit(endpoint).path.rstrip("/") if host not in _HUB_HOSTS else ""
        return _from_hub_page(f"{parts.scheme}://{parts.netloc}{parts.path}", parts.path.removeprefix(prefix))
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError(
            f"`source` is an http:// address of {host}. Anyone on the network could change the weights. Use the "
            "https:// address, or download the file and pass its path."
        )
    url = urllib.parse.urlunsplit(parts._replace(fragment=""))
    row = published.by_source().get(url)
    return Address(url) if row is None else _place_of(row)


def _from_hub_page(page: str, path: str) -> Repository:
    """Returns the repository of a page of the Hub: `/owner/name`, `.../tree/main`, `.../blob/main/file`."""
    segments = [urllib.parse.unquote(segment) for segment in path.split("/") if segment]
    at = next((index for index in (1, 2) if segments[index : index + 1] in (["tree"], ["blob"], ["resolve"])), None)
    owner_and_name, rest = (segments, []) if at is None else (segments[:at], segments[at + 1 :])
    # A pull request's revision has slashes in it.
    count = 3 if rest[:2] in (["refs", "pr"], ["refs", "convert"]) else 1
    revision, files = "/".join(rest[:count]) or None, rest[count:]
    most = 0 if at is None or segments[at] == "tree" else 1
    if not 1 <= len(owner_and_name) <= 2 or owner_and_name[0] in _OTHER_PAGES or len(files) > most:
        raise ValueError(
            f"`source` {page!r} is not the page of a model or of a file in it. Expected one such as "
            f"'{HUB}/google/bit-50', '.../tree/main' or '.../resolve/main/model.safetensors'; folders in a repository "
            "are not read."
        )
    return Repository("/".join(owner_and_name), revision, files[0] if files else None)


def _is_below(parts: urllib.parse.SplitResult, endpoint: str) -> bool:
    try:
        hub = urllib.parse.urlsplit(endpoint)
    except ValueError:
        return False
    # The Hub's address may have a user and a password.
    same_host = parts.netloc.lower() == hub.netloc.rpartition("@")[2].lower()
    return same_host and f"{parts.path}/".startswith(f"{hub.path.rstrip('/')}/")


def is_safe(url: str) -> bool:
    """Returns whether nobody on the network can change the file at an address: it is encrypted, or on this machine."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
