"""The program `keras-bit`: finds the command, and prints its errors.

Help, the version and the shell's completion must be fast, so this module imports only click, and a command's file
imports the library when it runs.
"""

import difflib
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import click

from keras_bit.cli import collector, imports, kernels, signals
from keras_bit.cli.command import EXIT_CODES
from keras_bit.cli.terminal import printable, sentence

NAME = "keras-bit"
# Each command is a function in a file of the same name.
COMMANDS = {
    "classify": "Print the labels of images.",
    "explain": "Draw where on an image a class is seen.",
    "info": "Print what a checkpoint holds.",
    "plot": "Draw a training batch.",
    "finetune": "Train a checkpoint on your images.",
    "evaluate": "Measure a checkpoint on images with labels.",
    "probe": "Find out in a minute how well the features separate your classes.",
    "audit": "Find wrong labels, duplicates, leaks and odd files in your images.",
    "embed": "Write pooled features of many images, as Parquet.",
    "export": "Write a checkpoint for TF Serving, TFLite, ONNX, OpenVINO, the browser or transformers.",
    "benchmark": "Run every file that export writes on this machine, and recommend one.",
}


class Commands(click.Group):
    """Imports a command on demand, and prints each of its errors as a line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            # click does the same from 8.2 on; before, it prints help with exit code 0 without a command.
            click.echo(ctx.get_help(), err=True, color=ctx.color)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"keras_bit.cli.{cmd_name}"), cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if close := difflib.get_close_matches(args[0], COMMANDS, n=1):
                raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> int:
        try:
            return super().invoke(ctx) or 0
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise  # click's own
        except (KeyboardInterrupt, click.Abort) as error:
            told, code = signals.ended_by(error)
        except Exception as error:
            command = self.get_command(ctx, str(ctx.invoked_subcommand))
            assert command is not None  # it has run
            told, code = sentence(error, command), 1
        print(f"{NAME} {ctx.invoked_subcommand}: {printable(told)}", file=sys.stderr, flush=True)
        return code


@click.group(
    NAME,
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"""The model is always --weights SOURCE: a Hub id such as google/bit-50, a directory or a file. Arguments
    are images and data. (benchmark takes the model as its first argument, too.)

    Results go to standard output; progress, notes and errors to standard error.
    Charts, sheets and reports replace older files of the same name; export does
    so with --overwrite only.

    {EXIT_CODES}

    \b
    Your shell completes commands, options and file names after this line in
    ~/.bashrc (with zsh_source in ~/.zshrc, with fish_source in config.fish):
    eval "$(_KERAS_BIT_COMPLETE=bash_source keras-bit)"
    """,
)
@click.version_option(package_name="keras_bit", message=f"{NAME} %(version)s")
def commands() -> None:
    """BiT (Big Transfer) image classification in Keras.

    `keras-bit COMMAND --help` describes a command, with examples.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: after the program's name; those of the process by default.

    Returns:
        The exit code: 0 is success, 1 an error or a file that cannot be read, 2 wrong usage, 130 interrupted, 143
        terminated (`kill`, a scheduler, a container that is stopped), 129 the terminal was closed.
    """
    kernels.turn_on()
    if arguments is None:  # this process runs only the command
        imports.leave_out()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold bytes that are not UTF-8, and a terminal may be ASCII. Such characters are escaped.
            stream.reconfigure(errors="backslashreplace")
    with signals.as_interrupts(), collector.seldom():
        try:
            return commands.main(arguments, NAME, standalone_mode=False)
        except click.ClickException as error:
            path = getattr(getattr(error, "ctx", None), "command_path", NAME)
            told = " ".join(error.format_message().split())
            told = f"{path}: {told if told.endswith(('.', '?')) else f'{told}.'} `{path} --help` describes the usage."
            click.echo(printable(told), err=True)
            return error.exit_code
        except click.Abort as error:
            return signals.ended_by(error)[1]  # before the command is found


if __name__ == "__main__":
    sys.exit(main())
