"""The command `keras-bit`: which one is meant, and what becomes of its errors."""

import argparse
import re
import sys
from collections.abc import Sequence

from keras_bit.cli import classify, embed, evaluate, explain, export, finetune, info, plot
from keras_bit.cli.terminal import printable

# Arguments that errors tell to use, and what they are called here.
OPTIONS = {"on_error='skip'": "--on-error skip", "`overwrite=True`": "--overwrite", "`processor=None`": "--pixels-only"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 is success, 1 an error or an unreadable file, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # File names may hold bytes that are no UTF-8, and a terminal may be ASCII: they are escaped, not an error.
        stream.reconfigure(errors="backslashreplace")
    try:
        return options.run(options)
    except _told_errors() as error:
        told = _sentence(error)
        for argument, option in OPTIONS.items():
            told = told.replace(argument, option)
        print(f"keras-bit {options.command}: {printable(told)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"keras-bit {options.command}: interrupted", file=sys.stderr)
        return 130


def _told_errors() -> tuple[type[Exception], ...]:
    """Errors that get a line and no traceback; TensorFlow's where it is imported, as some commands do without."""
    tensorflow = sys.modules.get("tensorflow")
    return (OSError, ValueError, ImportError, ArithmeticError) + ((tensorflow.errors.OpError,) if tensorflow else ())


def _sentence(error: Exception) -> str:
    """What an error says; of one from a graph without the graph's nodes around it."""
    if isinstance(error, (OSError, ValueError, ImportError, ArithmeticError)):
        return str(error)
    text = re.sub(r"^(\{\{[^}]*\}\} ?)+", "", str(error))
    text = re.split(r"\n\t \[\[| \[Op:", text)[0]
    if asserted := re.search(r"assertion failed: \[(.*)\]", text, re.DOTALL):
        # It has C's escapes for quotes, among others.
        text = asserted[1].encode("ascii", "backslashreplace").decode("unicode_escape")
    return " ".join(text.split())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-bit",
        description="BiT (Big Transfer) image classification in Keras.",
        epilog="Exit codes: 0 success, 1 an error or a file that could not be read, 2 wrong usage.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    for command in (classify, explain, info, plot, finetune, evaluate, embed, export):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
