"""Runs work in other processes, in turn. A crash there is an error here."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

START = "KERAS_BIT_PROCESS_START"  # environment variable: seconds on the monotonic clock
CHARACTERS = 2000  # of the last output of a crashed process
# Infos and warnings of absl, in both of its forms, errors about a missing GPU, and lines without a level.
START_UP = re.compile(
    r"WARNING: All log messages before absl::InitializeLog|To enable the following instructions: |INFO: Created Tensor"
    r"|[IW]\d{4} \d\d:|E\d{4} \d\d:.*cu(da|dnn|blas|fft|Init)"
    r"|\d{4}-\d\d-\d\d [\d:.]+: ([IW] |E .*cu(da|dnn|blas|fft|Init))"
)


class ProcessError(RuntimeError):
    """A process failed; the message says how.

    Args:
        kind: the name of the error in its answer; `None` if it crashed, and then the message has the end of its
            standard error.
    """

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Case:
    """The work of a process.

    Args:
        arguments: arguments of the interpreter, such as `("-m", "module", "argument")`. The last line on its output is
            a JSON object; an error is `{"error": [kind, message]}`.
        python: the interpreter.
        environment: further environment variables.
        patience: seconds after which it is killed; `None` for no limit.
    """

    arguments: Sequence[str]
    python: str = sys.executable
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patience: float | None = None


def in_turn(
    cases: Mapping[str, Case],
    rounds: int,
    begin: Callable[[str], None] = lambda name: None,
    failures: dict[str, ProcessError] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Runs every case `rounds` times, one at a time, and each case once per round.

    So other load on the machine affects all cases equally, and every case has a fresh process.

    Args:
        cases: name to case.
        rounds: number of rounds.
        begin: a function that is called with the name before each process.
        failures: receives the error of each failed case, which is not run again; `None` raises it.

    Returns:
        Name to the last lines of its processes.

    Raises:
        ProcessError: a process failed, and `failures` is None.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            if failures is not None and name in failures:
                continue
            begin(name)
            try:
                found[name].append(run(case))
            except ProcessError as error:
                if failures is None:
                    raise ProcessError(f"{name} {error}", error.kind) from None
                failures[name] = error
    return found


def run(case: Case) -> dict[str, Any]:
    """Returns the last line of a process.

    Raises:
        ProcessError: its exit code was not 0, it took too long, or it printed no JSON object or an error. Except for
            the last, the message has no subject: "was ended by SIGKILL".
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [case.python, *case.arguments],
            env={**os.environ, **case.environment, START: repr(time.monotonic())},
            stdin=subprocess.PIPE,  # which `end_with_the_caller` watches
            stdout=stdout,
            stderr=stderr,
        )
        try:
            process.wait(case.patience)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"gave no answer within {case.patience:g} seconds") from None
        finally:
            process.kill()
            process.communicate()  # which closes its standard input, too
        if process.returncode:
            raise ProcessError(f"{ended(process.returncode)}: {_end_of_log(stderr)}".rstrip(": "))
        try:
            answer = json.loads(_text(stdout).splitlines()[-1])
        except (IndexError, ValueError):
            raise ProcessError(f"ended without an answer: {_end_of_log(stderr)}".rstrip(": ")) from None
    if "error" in answer:
        kind, message = answer["error"]
        raise ProcessError(message, kind)
    return answer


def ended(code: int) -> str:
    """Describes how a failed process ended, by its return code."""
    if code >= 0:
        return f"ended with the exit code {code}"
    by = f"was ended by {signal.Signals(-code).name}"
    return f"{by}, probably because memory ran out" if -code == signal.SIGKILL else by


def without_start_up(text: str) -> str:
    """Returns standard error without what TensorFlow logs whenever it starts, which hides the cause of a crash."""
    return "\n".join(line for line in text.splitlines() if line.strip() and not START_UP.match(line))


def since_start() -> float:
    """Returns the seconds since `run` started this process; all processes share the monotonic clock."""
    return time.monotonic() - float(os.environ[START])


def end_with_the_caller() -> None:
    """Ends the other process, which calls it, when the caller that holds its standard input is gone (`kill -9`)."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _end_of_log(file: IO[bytes]) -> str:
    return without_start_up(_text(file))[-CHARACTERS:].strip()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace").strip()
