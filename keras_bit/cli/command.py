"""The form of a command: help with arguments, groups of options, examples and exit codes."""

import contextlib
import inspect
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

EXIT_CODES = (
    "Exit codes: 0 success, 1 an error or a file that cannot be read, 2 wrong usage, 129 terminal closed, "
    "130 interrupted, 143 terminated."
)
OPTIONS = "Options"  # the default heading


class Argument(click.Argument):
    """An argument with a description in the help.

    Args:
        described: its description.
        **settings: arguments of `click.Argument`; `metavar` is its name in the help.
    """

    def __init__(self, *names: Any, described: str, metavar: str, **settings: Any) -> None:
        super().__init__(*names, metavar=metavar, **settings)
        self.described, self.group = described, "Arguments"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return str(self.metavar), self.described


class Option(click.Option):
    """An option under the heading `group` in the help."""

    def __init__(self, *names: Any, group: str = OPTIONS, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group


class Command(click.Command):
    """A command of `keras-bit`.

    Args:
        examples: pairs of a purpose and the line to type.
        **settings: arguments of `click.Command`.
    """

    def __init__(self, *names: Any, examples: Sequence[tuple[str, str]], **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.examples = examples
        # `--help` shows the text before the form feed; the reference page (mkdocs-click) shows all of it.
        self.help = f"{inspect.cleandoc(self.help or '')}\n\f\n{self._as_markdown()}"

    def _as_markdown(self) -> str:
        """Returns the arguments and the examples for the reference page."""
        arguments = [
            f"* `{one.metavar}`: {one.described}" for one in self.params if isinstance(one, Argument) and one.described
        ]
        lines = ["**Arguments:**", "", *arguments, ""] if arguments else []
        examples = [line for purpose, example in self.examples for line in (f"# {purpose}", example)]
        return "\n".join([*lines, "**Examples:**", "", "```sh", *examples, "```", ""])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _temporary_files_together():
                return super().invoke(ctx)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # so that the message names the command
            raise

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
                # Not wrapped, so that they can be copied.
                formatter.write(f"  # {purpose}\n  {line}\n")
        formatter.write_paragraph()
        formatter.write_text(EXIT_CODES)


@contextlib.contextmanager
def _temporary_files_together() -> Iterator[None]:
    """Puts all temporary files into one directory: TensorFlow and converters write files as large as the model.

    If this process is killed, the next command removes the directory.
    """
    from keras_bit.files import writing

    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # there may be no place for them, but most commands need none
            folder = held.enter_context(writing.hidden(Path(tempfile.gettempdir())))
            held.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
            tempfile.tempdir = str(folder)
        yield
