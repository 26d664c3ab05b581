"""Starts a headless Chromium, and a server of static files for it, for the tests of the page that `export` writes."""

import contextlib
import functools
import http.server
import importlib.util
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conftest import ROOT, absent

# Chromium may only ask for what the tests serve; names of other hosts lead nowhere.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
NODE_MODULES = Path(os.environ.get("KERAS_BIT_NPM", ROOT / ".venv" / "npm")) / "node_modules"


def needs_node() -> str:
    node = shutil.which("node")
    if node is None:
        absent("node is not installed")
    return str(node)


def needs_browser() -> None:
    if importlib.util.find_spec("selenium") is None:
        absent("selenium is not installed: pip install -e '.[browser]'")
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        absent("chromium or chromedriver is not installed: apt-get install chromium chromium-driver")


def npm_package() -> Path:
    """Returns the directory of onnxruntime-web, in the version that pages are made for."""
    from keras_bit.exporters.web import runtime

    package = NODE_MODULES / runtime.PACKAGE
    if not package.is_dir():
        absent(
            f"{package} is not there: npm install --prefix {NODE_MODULES.parent} {runtime.PACKAGE}@{runtime.VERSION}"
        )
    return package


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Answers as `python -m http.server` does, without a log on the console; keeps the requested paths."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        super().do_GET()

    def end_headers(self) -> None:
        # The tests change files within a second, which a browser's cache does not notice.
        self.send_header("Cache-Control", "no-store")
        for name, value in self.server.headers.items():  # type: ignore[attr-defined]
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path, **headers: str) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serves `folder` on a free port; the server has its `address`, and in `asked` the requested paths."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=folder))
    server.asked, server.headers = [], {name.replace("_", "-"): value for name, value in headers.items()}
    server.address = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def chromium(folder: Path, *options: str) -> Iterator[Any]:
    """Starts a new Chromium with profile and request log in `folder`; yields Selenium's driver."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chosen = webdriver.ChromeOptions()
    chosen.binary_location = str(shutil.which("chromium"))
    log = folder / "requests.json"
    more = (
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    )
    for option in (*OPTIONS, *more, *options):
        chosen.add_argument(option)
    chosen.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(chosen, Service(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()


def requested(folder: Path) -> list[tuple[str, str]]:
    """Returns the addresses that an ended Chromium and its workers requested, and the initiator of each."""
    log = json.loads((folder / "requests.json").read_text(encoding="utf-8", errors="replace"))
    kind = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    started = [event.get("params", {}) for event in log["events"] if event["type"] == kind]
    return sorted({(found["url"], found.get("initiator", "")) for found in started if "url" in found})
