"""What a command looks like: help that teaches, with arguments, options in groups, examples and exit codes."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

EXIT_CODES = (
    "Exit codes: 0 success, 1 an error or a file that cannot be read, 2 wrong usage, 130 interrupted, 143 terminated."
)
OPTIONS = "Options"  # the heading of all that have no other


class Argument(click.Argument):
    """An argument that the help describes.

    Args:
        described: what it is.
        **settings: of `click.Argument`; `metavar` is its name in the help.
    """

    def __init__(self, *names: Any, described: str, metavar: str, **settings: Any) -> None:
        super().__init__(*names, metavar=metavar, **settings)
        self.described, self.group = described, "Arguments"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return str(self.metavar), self.described


class Option(click.Option):
    """An option that stands in the help under the heading `group`."""

    def __init__(self, *names: Any, group: str = OPTIONS, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group


class Command(click.Command):
    """A command of `keras-bit`.

    Args:
        examples: what it does, and the line that a person types for it.
        **settings: of `click.Command`.
    """

    def __init__(self, *names: Any, examples: Sequence[tuple[str, str]], **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.examples = examples

    def invoke(self, ctx: click.Context) -> Any:
        with _temporary_files_together():
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                groups.setdefault(getattr(parameter, "group", OPTIONS), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for purpose, line in self.examples:
                # As they are: what is wrapped cannot be copied.
                formatter.write(f"  # {purpose}\n  {line}\n")
        formatter.write_paragraph()
        formatter.write_text(EXIT_CODES)


@contextlib.contextmanager
def _temporary_files_together() -> Iterator[None]:
    """TensorFlow and converters write to temporary directories, some a file as large as the model.

    If this process is killed, the next command finds what they left, and removes it.
    """
    from keras_bit.files import writing

    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # there is no place for them: most commands need none
            folder = held.enter_context(writing.hidden(Path(tempfile.gettempdir())))
            held.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
            tempfile.tempdir = str(folder)
        yield
