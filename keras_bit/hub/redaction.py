"""Tokens and passwords stay out of messages and logs. All that is asked of a Hub is asked inside `kept_secret`."""

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
_USERS = re.compile(r"(?<=:/)(/?)[^\s'\"/]+@")  # with one slash: a path that was normalized
_PAIRS = re.compile(r"(?<![^\s'\"/])[^\s'\"/:@]+:[^\s'\"/@]+@")  # of an address without its scheme
_TOKENS = re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}|(?<=Bearer )[^\s'\"]+")


def plain_token(token: Any) -> Any:
    """A token without the white space around it, as a line end that was read with it; `None` if nothing is left.

    `""` is what `os.environ.get("HF_TOKEN", "")` gives where there is none.
    """
    return token.strip() or None if isinstance(token, str) else token


def check_token(token: str | bool | None) -> None:
    """Checks what can be checked without asking; the messages do not show the token.

    Raises:
        TypeError: it is neither a string nor True, False or None.
        ValueError: it holds white space or other characters that no token has.
    """
    if token is None or isinstance(token, bool):
        return
    if not isinstance(token, str):
        raise TypeError(f"`token` must be a string, True, False or None, but is a {type(token).__name__}.")
    remedy = "Pass the token alone, or None for the one that `hf auth login` stored."
    if any(character.isspace() for character in token):
        raise ValueError(f"`token` holds white space between other characters (it is not shown here). {remedy}")
    if not (token.isascii() and token.isprintable()):
        raise ValueError(f"`token` holds characters that are not printable ASCII (it is not shown here). {remedy}")


@contextlib.contextmanager
def kept_secret(token: str | bool | None) -> Iterator[None]:
    """A context for questions to a Hub: no error that leaves it and no line that its libraries log shows a secret.

    Secret are `token`, the tokens of the environment, the user and the password in an address, of the Hub
    (`HF_ENDPOINT`) or of a proxy, and what stands behind the `?` of an address.

    Raises:
        TypeError, ValueError: as `check_token`; or `HF_ENDPOINT` is no address.
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
        if redacted(error, token) != str(error):  # whose text is made of more than its arguments
            raise OSError(redacted(error, token)) from None
        if _shows_a_secret(error, token):
            # In what it was raised from, of which the traceback would print the text.
            raise error from None
        raise


def redacted(text: object, token: str | bool | None = None) -> str:
    """`text` with a mask in place of every secret."""
    shown = str(text)
    for secret in sorted(_secrets(token), key=len, reverse=True):
        shown = shown.replace(secret, _MASK)
    shown = _WORD.sub(lambda match: _without_query(_without_user(match[0])), shown)
    return _TOKENS.sub(_MASK, _PAIRS.sub(f"{_MASK}@", shown))


def without_users(text: str) -> str:
    """`text` with a mask in place of the user and the password before the host of an address."""
    return _USERS.sub(rf"\g<1>{_MASK}@", text)


def _without_user(word: str) -> str:
    before, user, after = _split_user(word)
    return f"{before}{_MASK}{after}" if user else word


def _without_query(word: str) -> str:
    """An address without what stands behind its `?`, which may be a signature."""
    scheme = word.find("://")
    query = word.find("?", scheme) + 1 if scheme > 0 else 0
    return f"{word[:query]}{_MASK}" if 0 < query < len(word) else word


def _split_user(word: str) -> tuple[str, str, str]:
    """What stands before, in and after the user and the password of an address, also with a `/` or `@` in them."""
    start, end = word.find("://") + 3, word.rfind("@")
    if word[:start].endswith("hf://") and ":" not in word[start:end]:
        return word, "", ""  # 'hf://owner/name@revision' has no user
    return (word[:start], word[start:end], word[end:]) if 3 <= start < end else (word, "", "")


def _check_endpoint() -> None:
    """huggingface_hub cannot be imported with an address that it cannot read, and its error shows a part of it."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        parts = urllib.parse.urlsplit(endpoint)
        fits = not endpoint or (parts.scheme in ("http", "https") and parts.port != 0)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"The environment variable HF_ENDPOINT is no address of a Hub such as 'https://huggingface.co': "
            f"{redacted(endpoint)!r}. A user or password in it must be percent-encoded."
        )


def _secrets(token: str | bool | None) -> set[str]:
    secrets = {os.environ.get(name, "").strip() for name in _TOKEN_VARIABLES}
    if isinstance(token, str):
        secrets.add(token)
    for name in _ADDRESS_VARIABLES:
        if named := _split_user(os.environ.get(name, ""))[1]:
            user, *password = re.split("[:/?#@]", named)
            # In parts: an error about such an address may show a part of it.
            secrets.update(password or [user])
    return secrets - {""}


def _shows_a_secret(error: BaseException, token: str | bool | None) -> bool:
    printed = "\n".join(line for one in _chain(error) for line in traceback.format_exception_only(type(one), one))
    return redacted(printed, token) != printed


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that a traceback prints before it."""
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
    """A logger's filter sees what is logged through it and not what comes from those below it: each gets its own."""
    from huggingface_hub import HfApi, get_session, hf_hub_download  # noqa: F401 - which make their loggers

    get_session()  # and so does the HTTP library
    for name in list(logging.root.manager.loggerDict):
        if _LOGGERS.fullmatch(name):
            logging.getLogger(name).addFilter(_REDACTING)  # once
