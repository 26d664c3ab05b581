"""Signals that end a command, with their messages and exit codes."""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import click

SOON = 0.05  # seconds


class _Terminated(KeyboardInterrupt):
    """A signal that ends a process after a cleanup, like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def as_interrupts() -> Iterator[None]:
    """Raises SIGTERM and SIGHUP as exceptions, unless they are already handled, for example by `nohup`."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated(number)

    if threading.current_thread() is not threading.main_thread():  # no other thread may
        yield
        return
    found = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handled = [number for number in found if signal.getsignal(number) == signal.SIG_DFL]
    for number in handled:
        signal.signal(number, terminate)
    try:
        with _raised_again():
            yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _raised_again() -> Iterator[None]:
    """Raises it again if needed, because Python drops an exception during the deletion of an object."""
    report = sys.unraisablehook

    def raise_again(dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            number = signal.Signals(getattr(dropped.exc_value, "number", signal.SIGINT))
            threading.Timer(SOON, _send, [number]).start()  # at once would still be inside this function
        else:
            report(dropped)

    sys.unraisablehook = raise_again
    try:
        yield
    finally:
        sys.unraisablehook = report


def _send(number: signal.Signals) -> None:
    """Sends the main thread a signal, which also ends its waiting if the system supports that."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(number)


def ended_by(error: BaseException) -> tuple[str, int]:
    """Returns the message and the shell's exit code for a process that a signal has ended."""
    found = error.__cause__ if isinstance(error, click.Abort) else error
    if isinstance(found, _Terminated):
        return "terminated" if found.number == signal.SIGTERM else "the terminal was closed", 128 + found.number
    return "interrupted", 130
