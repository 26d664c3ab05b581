"""A web server on 127.0.0.1, on which the servers of the tests are built."""

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self


class Loopback:
    """`with Loopback() as server:` serves at `server.url`, by `handler`, whose `site` is this object.

    `requests` is the log.
    """

    handler: ClassVar[type["Handler"]]

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (self.handler,), {"site": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Any

    def log_message(self, *_: object) -> None:
        pass  # `site.requests` is the log

    def send(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"", announced: int | None = None
    ) -> None:
        """Sends an answer. If the body is shorter than `announced`, it also ends the connection."""
        announced = len(body) if announced is None else announced
        self.send_response(status)
        for name, value in {"Content-Length": str(announced), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body)
        if len(body) < announced:
            self.close_connection = True
