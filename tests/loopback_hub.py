"""A Hub on 127.0.0.1, a process that asks it, and a hand-made cache.

The Hub only serves `/{repo}/resolve/{revision}/{file}`, with the headers and the errors of the real Hub. A commit hash
is computed from repository and revision, and can itself be used as a revision.

huggingface_hub reads HF_ENDPOINT and HF_HUB_OFFLINE when it is imported. So code that asks this Hub runs in a process
of its own: `run_against_hub`.
"""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from loopback import Handler, Loopback

ROOT = Path(__file__).resolve().parent.parent

# Faults of a Hub, as values of `LoopbackHub.fault`.
SERVER_ERROR = "every answer is status 500"
BUSY = "the first two answers are status 503"
PLAIN_404 = "a missing file is 404 without the Hub's X-Error-Code, as some mirrors do"
BAD_TOKEN = "every answer is 401 for a token that the Hub does not know"
HANG_UP = "the connection closes without an answer"
SHORT = "GET announces and sends half of the bytes that HEAD announced"
CUT = "GET announces all bytes; the connection closes after half of them"
NOT_A_HUB = "files without X-Repo-Commit and ETag"


def commit_of(repo_id: str, revision: str = "main") -> str:
    """Returns the commit hash that LoopbackHub and `make_cache` give to a revision."""
    return hashlib.sha1(f"{repo_id}@{revision}".encode()).hexdigest()


class _Handler(Handler):
    def do_GET(self) -> None:  # noqa: N802 - the name in the base class
        hub = self.site
        hub.requests.append(f"{self.command} {unquote(self.path)}")
        if hub.fault == HANG_UP:
            self.close_connection = True
            return
        if hub.fault == SERVER_ERROR:
            self.send(500)
            return
        if hub.fault == BUSY and len(hub.requests) <= 2:
            self.send(503)
            return
        address = re.fullmatch("/((?:[^/]+/)?[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if address is None:
            self.send(404)
            return
        repo_id, revision, filename = (unquote(part) for part in address.groups())
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if (refusal := hub.refusal(repo_id, token)) is not None:
            self._refuse(*refusal)
        elif (found := hub.files(repo_id, revision)) is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif filename not in found[1]:
            if hub.fault == PLAIN_404:
                self.send(404)
            else:
                self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": found[0]})
        else:
            self._send_file(found[0], found[1][filename])

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        errors = {"X-Error-Code": code, "X-Error-Message": message}
        self.send(status, {name: value for name, value in errors.items() if value} | dict(headers or {}))

    def _send_file(self, commit: str, content: bytes) -> None:
        fault = self.site.fault
        half = content[: len(content) // 2]
        if fault == SHORT and self.command == "GET":
            content = half
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        if fault == NOT_A_HUB:
            headers = {}
        start, status = 0, 200
        if self.command == "GET" and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            start, status = int(asked[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        sent = half[start:] if fault == CUT else content[start:]
        self.send(status, headers, sent, announced=len(content) - start)

    do_HEAD = do_GET  # noqa: N815 - the method's name in the base class


class LoopbackHub(Loopback):
    """`with LoopbackHub({repo_id: {revision: {filename: bytes}}}) as server:` serves at `server.url`.

    `private` maps a repository to the token that may read it, `gated` names repositories that no token may read.
    `fault` can be set at any time. `requests` is the log, one "HEAD /owner/name/resolve/main/config.json" per request.
    """

    handler = _Handler

    def __init__(
        self,
        repositories: Mapping[str, Mapping[str, Mapping[str, bytes]]],
        *,
        private: Mapping[str, str] | None = None,
        gated: Collection[str] = (),
        fault: str | None = None,
    ) -> None:
        super().__init__()
        self.repositories = repositories
        self.private = private or {}
        self.gated = gated
        self.fault = fault

    def refusal(self, repo_id: str, token: str | None) -> tuple[int, str, str] | None:
        """Returns status, X-Error-Code and X-Error-Message if `token` may not read `repo_id`."""
        if self.fault == BAD_TOKEN:
            return 401, "", "Invalid credentials in Authorization header"
        if repo_id in self.gated:
            return 403 if token else 401, "GatedRepo", f"Access to model {repo_id} is restricted"
        if repo_id not in self.repositories or self.private.get(repo_id, token) != token:
            # The Hub does not tell a stranger whether a repository is private or missing.
            return (404, "RepoNotFound", "Repository not found") if token else (401, "RepoNotFound", "Invalid username")
        return None

    def files(self, repo_id: str, revision: str) -> tuple[str, Mapping[str, bytes]] | None:
        """Returns the commit hash and the files of a revision."""
        for name, files in self.repositories[repo_id].items():
            commit = commit_of(repo_id, name)
            if revision in (name, commit):
                return commit, files
        return None


def run_against_hub(
    code: str, server: LoopbackHub | str, tmp_path: Path, **env: str
) -> "subprocess.CompletedProcess[str]":
    """Runs Python `code` in a process whose Hub is `server` (or the one at a URL), with a new home and cache.

    The default cache is `tmp_path / "hub"`. `env` is added to the environment last. It can import keras_bit.
    """
    url = server if isinstance(server, str) else server.url
    # The user's own token, cache and proxy must not affect the tests.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    environment = inherited | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_TELEMETRY": "1",  # it would ask this Hub for more than files
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,  # a limit for a hanging process, not for speed
        check=False,
    )


def closed_url() -> str:
    """Returns the URL of a Hub that has just closed: connections to it are refused."""
    with LoopbackHub({}) as server:
        return server.url


def make_cache(
    cache_dir: Path,
    repo_id: str,
    files: Mapping[str, bytes],
    *,
    revision: str = "main",
    commit: str | None = None,
    absent: Sequence[str] = (),
) -> Path:
    """Writes what huggingface_hub's cache holds after a download of `files`; returns the snapshot's directory.

    The default `commit` is that of LoopbackHub. `absent` lists requested names that the repository does not have.
    """
    commit = commit or commit_of(repo_id, revision)
    repository = cache_dir / f"models--{repo_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    for name in absent:
        marker = repository / ".no_exist" / commit / name
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    reference = repository / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    return snapshot
