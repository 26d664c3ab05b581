"""A web server on 127.0.0.1 that serves files, and can imitate the faults of real servers."""

import base64
import hashlib
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from loopback import Handler, Loopback

# Faults of a server, as values of `LoopbackFiles.fault`.
FORBIDDEN = "what it does not have is 403, as storage services say to those who may not list it"
A_PAGE = "what it does not have is a web page, with status 200"
SERVER_ERROR = "every answer is status 500"
CUT = "it announces all, and the connection closes at the middle of the file"
NO_RANGES = "it sends the whole file always, and tells no version of it"
HALF_MD5 = "it tells another MD5 than that of the file"
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


class _Handler(Handler):
    def do_GET(self) -> None:  # noqa: N802 - the name in the base class
        site, asked = self.site, self.headers.get("Range") or ""
        site.requests.append(" ".join(filter(None, ("GET", self.path, asked))))
        site.tokens += filter(None, [self.headers.get("Authorization")])
        content = site.files.get(unquote(urlsplit(self.path).path))
        if site.fault == SERVER_ERROR:
            self.send(500, {}, b"")
        elif content is None and site.fault == A_PAGE:
            self.send(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE)
        elif content is None:
            self.send(403 if site.fault == FORBIDDEN else 404, {}, b"no such file")
        elif isinstance(content, str):
            self.send(302, {"Location": content}, b"")
        else:
            self._send_file(content, asked)

    def _send_file(self, content: bytes, asked: str) -> None:
        digest = hashlib.md5(content + b"another" * (self.site.fault == HALF_MD5)).digest()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Content-Type": "application/octet-stream"}
        headers["x-goog-hash"] = f"crc32c=AAAAAA==,md5={base64.b64encode(digest).decode()}"
        half = content[: len(content) // 2] if self.site.fault == CUT else content
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if match is None or self.site.fault == NO_RANGES:
            self.send(200, {} if self.site.fault == NO_RANGES else headers, half, announced=len(content))
            return
        start, end = int(match[1]), min(int(match[2] or len(content)) + 1, len(content))
        if start >= end:
            self.send(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self.send(206, headers, half[start:end], announced=end - start)


class LoopbackFiles(Loopback):
    """`with LoopbackFiles({"/folder/name": bytes}) as server:` serves at `server.url`.

    A `str` in place of the bytes is an address that the server redirects to. `requests` is the log: method, path with
    its query, and the range that was asked for. `tokens` are the `Authorization` headers that came.
    """

    handler = _Handler

    def __init__(self, files: Mapping[str, bytes | str], *, fault: str | None = None) -> None:
        super().__init__()
        self.files = dict(files)
        self.fault = fault
        self.tokens: list[str] = []
