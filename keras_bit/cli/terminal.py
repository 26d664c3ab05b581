"""Output for a terminal: results on standard output; notes, errors and progress on standard error."""

import contextlib
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

    from keras_bit.hub.finding import HubOptions
    from keras_bit.images.processor import BitImageProcessor

# The library's advice in errors, to the advice for a command. `sentence` also replaces names of arguments.
AS_OPTIONS = {
    "on_error='skip'": "--on-error skip",
    "`overwrite=True`": "--overwrite",
    "`path`": "--out",
    "pass `token=`": "pass --token",
    "`local_files_only=True`": "--local-files-only",
    "its config.json, or `config`,": "its config.json",
    "Its config.json, or `config`,": "Its config.json",
    ", or pass `config=BitConfig(...)`": "",
    "Correct its config.json, pass `config`, or pass `classes=` for a new head.": "Correct its config.json.",
    "For a checkpoint without a head use "
    "`include_top=False` or `classes=`.": "Train a checkpoint without a head first, with `keras-bit finetune`.",
    "`quantizations`": "--quantize",
    # Nobody can type None: an option that is left out has it.
    " must be None or one of ": " must be one of ",
    " must be one of None, ": " must be one of ",
    " must be None ": " must be left out ",
}
PATIENCE = 2.0  # seconds before a progress message appears


def console() -> "Console":
    from rich.console import Console

    # File names and labels are printed unchanged: `[cat]` is not markup, and `:dog:` is not an emoji.
    return Console(markup=False, emoji=False, highlight=False)


def printable(text: str) -> str:
    """Returns `text` as one line without control characters and passwords."""
    from keras_bit.hub.redaction import without_users

    text = without_users(text)
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def shown(weights: str) -> str:
    """Returns the source of a checkpoint for output, without secrets in an address."""
    from keras_bit.hub.redaction import redacted

    return printable(redacted(weights))


def note(text: str) -> None:
    """Writes a note to standard error."""
    print(f"{click.get_current_context().command_path}: {printable(text)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def noting(kind: type[Warning]) -> Iterator[None]:
    """Writes warnings of this kind as notes, each once."""
    noted: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", kind)
        show = warnings.showwarning

        def note_or_show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, kind):
                show(message, category, filename, lineno, file, line)
            elif str(message) not in noted:
                noted.add(str(message))
                note(str(message))

        warnings.showwarning = note_or_show
        yield


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Shows a message on a terminal after two seconds, and removes it at the end."""
    line = f"{shown(what)} ..."

    def say() -> None:
        print(f"\r{line}", end="", file=sys.stderr, flush=True)

    waiting = threading.Timer(PATIENCE, say)
    waiting.daemon = True
    if sys.stderr.isatty():
        waiting.start()
    try:
        yield
    finally:
        waiting.cancel()
        if waiting.ident is not None:  # the timer has started
            waiting.join()
            print(f"\r{' ' * len(line)}\r", end="", file=sys.stderr, flush=True)


def sentence(error: Exception, command: "click.Command") -> str:
    """Returns an error's message; for an unexpected one also its type and place.

    Names of arguments in it become the options and arguments of the command that have these names.
    """
    said = _sentence(error)
    for argument, option in AS_OPTIONS.items():
        said = said.replace(argument, option)
    for parameter in command.params:
        shown = max(parameter.opts, key=len) if parameter.param_type_name == "option" else str(parameter.metavar)
        said = said.replace(f"`{parameter.name}`", shown)
    return said


def _sentence(error: Exception) -> str:
    tensorflow = sys.modules.get("tensorflow")  # some commands do not need it
    if tensorflow is not None and isinstance(error, tensorflow.errors.OpError):
        from keras_bit.images.graph_faults import sentence_of

        return sentence_of(str(error))
    if isinstance(error, (OSError, ValueError, ImportError, ArithmeticError)) and str(error):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "keras_bit" in Path(frame.filename).parts] or frames
    where = f" ({ours[-1].filename}, line {ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {error}{where}"


def processor_or_bits(weights: str, hub: "HubOptions") -> "BitImageProcessor":
    """Returns the checkpoint's processor or, with a note, BiT's default."""
    from keras_bit.images.processor import processor_of

    processor, its_own = processor_of(weights, hub)
    if not its_own:
        note(
            "the checkpoint has no preprocessor_config.json, so images are prepared as for google/bit-50, "
            f"{input_size(processor)}, pixels scaled to [-1, 1]"
        )
    return processor


def input_size(processor: "BitImageProcessor") -> str:
    """Describes the size that the processor makes."""
    if processor.fixed_size is not None:
        height, width = processor.fixed_size
        return f"{height}x{width} px"
    if not processor.do_resize:
        return "the image's own"
    return f"short edge {processor.to_dict()['size']['shortest_edge']} px"
