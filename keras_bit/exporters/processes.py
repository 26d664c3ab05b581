"""Work in processes of their own, taken in turn: what ends one is an error here, not the end."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

START = "KERAS_BIT_PROCESS_START"  # environment variable: seconds on the monotonic clock
CHARACTERS = 2000  # of what a crashed process said last


class ProcessError(RuntimeError):
    """A process failed; the message says how.

    Args:
        kind: the name of the error that it answered with; `None` if it crashed, of which the message has the end of
            what it wrote on standard error.
    """

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Case:
    """What a process runs.

    Args:
        arguments: of the interpreter, such as `("-m", "module", "argument")`. The last line that it prints on standard
            output is a JSON object; of an error `{"error": [kind, message]}`.
        python: the interpreter.
        environment: variables that it gets beside those of this process.
        patience: seconds after which it is ended; `None` for no limit.
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
    """Runs every case `rounds` times, one after the other and each case once before any comes again.

    What else the machine does then falls on all cases alike, and no case finds what another left in its process.

    Args:
        cases: name to what is run.
        rounds: how often.
        begin: is called with the name before each process.
        failures: gets the error of each case that failed, which has no further turns; `None` raises it.

    Returns:
        Name to what each of its processes printed on its last line.

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
    """What a process printed on its last line.

    Raises:
        ProcessError: it ended otherwise than with the exit code 0, took too long, printed no JSON object, or one of an
            error. But for the last, the message has no subject: "was ended by SIGKILL".
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
            raise ProcessError(f"{ended(process.returncode)}: {_end_of(stderr)}".rstrip(": "))
        try:
            answer = json.loads(_end_of(stdout, None).splitlines()[-1])
        except (IndexError, ValueError):
            raise ProcessError(f"ended without an answer: {_end_of(stderr)}".rstrip(": ")) from None
    if "error" in answer:
        kind, message = answer["error"]
        raise ProcessError(message, kind)
    return answer


def ended(code: int) -> str:
    """How a process ended that did not end well, by its return code."""
    if code >= 0:
        return f"ended with the exit code {code}"
    by = f"was ended by {signal.Signals(-code).name}"
    return f"{by}, as the system does where memory runs out" if -code == signal.SIGKILL else by


def since_start() -> float:
    """Seconds since this process was started by `run`; the monotonic clock is the same for all processes."""
    return time.monotonic() - float(os.environ[START])


def end_with_the_caller() -> None:
    """In the other process: ends it when the caller, which holds its standard input, is gone, as after `kill -9`."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _end_of(file: IO[bytes], characters: int | None = CHARACTERS) -> str:
    file.seek(0)
    text = file.read().decode("utf-8", "replace").strip()
    return text if characters is None else text[-characters:]
