"""Keeps tokens and passwords out of messages and logs. Every request to a Hub is made inside `kept_secret`."""

import contextlib
import logging
import os
import re
import traceback
import urllib.parse
from collections.abc import Iterator
from typing import Any

_MASK = "***"
_LOGGERS = re.compile(r"(huggingface_hub|httpx\d?|httpcore\d?)(\..*)?")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_ADDRESS_VARIABLES = ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
_WORD = re.compile(r"[^\s'\"]+")
_USERS = re.compile(r"(?<=:/)(/?)[^\s'\"/]+@")  # with one slash, as in a normalized path
_PAIRS = re.compile(r"(?<![^\s'\"/])[^\s'\"/:@]+:[^\s'\"/@]+@")  # of an address without its scheme
_TOKENS = re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}|(?<=Bearer )[^\s'\"]+")


def plain_token(token: Any) -> Any:
    """Returns a token without white space around it, such as a line end; `None` if it is empty.

    `os.environ.get("HF_TOKEN", "")` is empty without a token.
    """
    return token.strip() or None if isinstance(token, str) else token


def check_token(token: str | bool | None) -> None:
    """Checks a token's form; the messages do not show it.

    Raises:
        TypeError: it is not a string, True, False or None.
        ValueError: it holds white space or other invalid characters.
    """
    if token is None or isinstance(token, bool):
        return
    if not isinstance(token, str):
        raise TypeError(f"`token` must be a string, True, False or None, but is a {type(token).__name__}.")
    remedy = "Pass only the token, or None for the one stored by `hf auth login`."
    if any(character.isspace() for character in token):
        raise ValueError(f"`token` holds white space between other characters (it is not shown here). {remedy}")
    if not (token.isascii() and token.isprintable()):
        raise ValueError(f"`token` holds characters that are not printable ASCII (it is not shown here). {remedy}")


@contextlib.contextmanager
def kept_secret(token: str | bool | None) -> Iterator[None]:
    """A context for requests to a Hub: errors and logged lines inside it show no secrets.

    Secrets are `token`, the tokens of the environment, the user and the password in the Hub's address (`HF_ENDPOINT`)
    or a proxy's, and the part of an address after `?`.

    Raises:
        TypeError, ValueError: as `check_token`; or `HF_ENDPOINT` is not an address.
    """
    check_token(token)
    _check_endpoint()
    _filter_logs()
    try:
        yield
    except Exception as error:
        cleaned = tuple(redacted(one, token) if isinstance(one, str) else one for one in error.args)
        if cleaned != error.args:
            error.args = cleaned
        if redacted(error, token) != str(error):  # its text does not consist of its arguments only
            raise OSError(redacted(error, token)) from None
        if _shows_a_secret(error, token):
            # In its causes too, because the traceback would print their text.
            raise error from None
        raise


def redacted(text: object, token: str | bool | None = None) -> str:
    """Returns `text` with every secret masked."""
    shown = str(text)
    for secret in sorted(_secrets(token), key=len, reverse=True):
        shown = shown.replace(secret, _MASK)
    shown = _WORD.sub(lambda match: _without_query(_without_user(match[0])), shown)
    return _TOKENS.sub(_MASK, _PAIRS.sub(f"{_MASK}@", shown))


def without_users(text: str) -> str:
    """Returns `text` with the user and the password in addresses masked."""
    return _USERS.sub(rf"\g<1>{_MASK}@", text)


def _without_user(word: str) -> str:
    before, user, after = _split_user(word)
    return f"{before}{_MASK}{after}" if user else word


def _without_query(word: str) -> str:
    """Masks the part of an address after `?`, which may be a signature."""
    scheme = word.find("://")
    query = word.find("?", scheme) + 1 if scheme > 0 else 0
    return f"{word[:query]}{_MASK}" if 0 < query < len(word) else word


def _split_user(word: str) -> tuple[str, str, str]:
    """Splits an address before and after its user and password, even if they contain `/` or `@`."""
    start, end = word.find("://") + 3, word.rfind("@")
    if word[:start].endswith("hf://") and ":" not in word[start:end]:
        return word, "", ""  # 'hf://owner/name@revision' has no user
    return (word[:start], word[start:end], word[end:]) if 3 <= start < end else (word, "", "")


def _check_endpoint() -> None:
    """Checks HF_ENDPOINT: huggingface_hub's import fails if it is invalid, and its error shows a part of it."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        parts = urllib.parse.urlsplit(endpoint)
        fits = not endpoint or (parts.scheme in ("http", "https") and parts.port != 0)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            "The environment variable HF_ENDPOINT must be the address of a Hub, such as 'https://huggingface.co', got "
            f"{redacted(endpoint)!r}. A user or password in it must be percent-encoded."
        )


def _secrets(token: str | bool | None) -> set[str]:
    secrets = {os.environ.get(name, "").strip() for name in _TOKEN_VARIABLES}
    if isinstance(token, str):
        secrets.add(token)
    for name in _ADDRESS_VARIABLES:
        if named := _split_user(os.environ.get(name, ""))[1]:
            user, *password = re.split("[:/?#@]", named)
            # Each part too, because an error about such an address may show a part of it.
            secrets.update(password or [user])
    return secrets - {""}


def _shows_a_secret(error: BaseException, token: str | bool | None) -> bool:
    printed = "\n".join(line for one in _chain(error) for line in traceback.format_exception_only(type(one), one))
    return redacted(printed, token) != printed


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the error and all errors that a traceback prints before it."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
        return True


_REDACTING = _Redacting()


def _filter_logs() -> None:
    """Adds a filter to each logger, because a filter does not see the records of loggers below."""
    from huggingface_hub import HfApi, get_session, hf_hub_download  # noqa: F401 - which make their loggers

    get_session()  # the HTTP library logs too
    for name in list(logging.root.manager.loggerDict):
        if _LOGGERS.fullmatch(name):
            logging.getLogger(name).addFilter(_REDACTING)  # once
