"""Starts the processes that read the inputs, and starts a new one if an input has ended the last one."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.judging import FORBIDDEN, SECONDS

TESTS = Path(__file__).resolve().parent.parent


class Result(NamedTuple):
    """The outcome of an input; for a forbidden one also its bytes."""

    kind: str
    number: int
    verdict: str
    why: str
    content: bytes = b""


def results(group: str, kinds: list[str], count: int, seed: int, seconds: float = SECONDS) -> Iterator[Result]:
    """Tries `count` inputs of each kind in a process, which is started again if an input ends it."""
    waiting = [(kind, 0) for kind in kinds]
    while waiting:
        last: dict[str, Any] = {}
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            answers = Path(folder, "answers")
            job = {"group": group, "kinds": waiting, "count": count, "seed": seed, "seconds": seconds, "folder": folder}
            ended, said = _run(job)
            for line in answers.read_text(encoding="utf-8").splitlines() if answers.exists() else ():
                last = json.loads(line)
                if "verdict" in last:
                    yield _result(last)
            if not ended:
                return
            if not last or "verdict" in last:
                raise RuntimeError(f"The process ended between two inputs ({last}):\n{said}")
            yield _result(last | {"verdict": FORBIDDEN, "why": f"ended the process ({ended}):\n{said}"})
        waiting = waiting[[kind for kind, _ in waiting].index(last["kind"]) :]
        waiting[0] = (last["kind"], last["number"] + 1)


def _result(answer: dict[str, Any]) -> Result:
    content = Path(answer.pop("file")).read_bytes() if answer["verdict"] == FORBIDDEN else b""
    answer.pop("file", None)
    return Result(**answer, content=content)


def _run(job: dict[str, Any]) -> tuple[int, str]:
    """Runs a process; returns its exit code and the end of its output."""
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONFAULTHANDLER": "1"}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "fuzz.child", json.dumps(job)]
    with tempfile.TemporaryFile() as said:
        ended = subprocess.run(command, env=os.environ | variables | quiet, stdout=said, stderr=said).returncode
        said.seek(0)
        return ended, said.read()[-4000:].decode("utf-8", "replace")
