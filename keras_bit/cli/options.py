"""The options that several commands share, and their types. A name means the same everywhere."""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from keras_bit.cli.command import OPTIONS, Argument, Option

DEFAULT_WEIGHTS = "google/bit-50"
SOURCE = "Checkpoint: Hub id, published name, https:// address, directory or file"

Function = TypeVar("Function", bound=Callable[..., Any])
PATH = click.Path(readable=False)  # for the shell's completion; the file is checked when it is read


class ImageSize(click.ParamType):
    """Converts `224` or `224x256` (height first) to a pair; with `any_size` also `any` to a pair of `None`."""

    name = "size"

    def __init__(self, any_size: bool = False) -> None:
        self.any_size = any_size

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int] | tuple[None, None]:
        if not isinstance(value, str):
            return value  # a default
        if self.any_size and value == "any":
            return None, None
        height, times, width = value.partition("x")
        sides = [height, width] if times else [height, height]
        if not all(side.isdecimal() and int(side) for side in sides):
            expected = "224, 224x256 (height first) or any" if self.any_size else "224 or 224x256 (height first)"
            self.fail(f"expected {expected}, got {value!r}.", param, ctx)
        return int(sides[0]), int(sides[1])


class Names(click.ParamType):
    """Converts names between commas, or a file with one in each line, to a list."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        if not isinstance(value, str):
            return value
        parts = value.split(",")
        if Path(value).is_file():
            parts = Path(value).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        return [part.strip() for part in parts if part.strip()]


class Finite(click.FloatRange):
    """A finite number in a range; comparisons by themselves would accept NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class PngFile(click.Path):
    """The name of a PNG file to write."""

    name = "file"

    def __init__(self) -> None:
        super().__init__(readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if Path(value).suffix.lower() != ".png":
            self.fail(f"the name must end in .png, got {value!r}.", param, ctx)
        return super().convert(value, param, ctx)


POSITIVE = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=2**32 - 1)  # numpy's limit, because Keras seeds numpy too
ABOVE_ZERO = Finite(min=0, min_open=True)
SHARE = Finite(min=0, max=1, max_open=True)


def data(described: str) -> Callable[[Function], Function]:
    return click.argument("data", cls=Argument, type=PATH, metavar="DATA", described=described)


def weights(
    described: str = f"{SOURCE}, with its preprocessor_config.json.",
) -> Callable[[Function], Function]:
    return click.option(
        "--weights", default=DEFAULT_WEIGHTS, show_default=True, type=PATH, metavar="SOURCE", help=described
    )


def out(described: str, metavar: str, type: click.ParamType = PATH) -> Callable[[Function], Function]:
    return click.option("--out", required=True, type=type, metavar=metavar, help=described)


def batch_size(
    default: int | None, described: str = "Images per batch.", default_in_words: str = "", group: str = OPTIONS
) -> Callable[[Function], Function]:
    return click.option(
        "--batch-size",
        cls=Option,
        group=group,
        type=POSITIVE,
        default=default,
        show_default=default_in_words or True,
        metavar="N",
        help=described,
    )


def image_size(
    described: str, default_in_words: str, any_size: bool = False, group: str = OPTIONS
) -> Callable[[Function], Function]:
    return click.option(
        "--image-size",
        cls=Option,
        group=group,
        type=ImageSize(any_size),
        show_default=default_in_words,
        metavar="SIZE",
        help=f"{described}: 224, 224x256 (height first){' or any' * any_size}.",
    )


def class_names(described: str) -> Callable[[Function], Function]:
    return click.option("--class-names", type=Names(), metavar="A,B,... or FILE", help=described)


def seed(described: str, default: int | None, default_in_words: str = "") -> Callable[[Function], Function]:
    return click.option(
        "--seed", type=SEED, default=default, show_default=default_in_words or True, metavar="N", help=described
    )


def overwrite() -> Callable[[Function], Function]:
    return click.option("--overwrite", is_flag=True, help="Replace an existing file or directory.")


def json() -> Callable[[Function], Function]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def on_error(described: str) -> Callable[[Function], Function]:
    return click.option(
        "--on-error", type=click.Choice(["raise", "skip"]), default="raise", show_default=True, help=described
    )


ON_ERROR = (
    "For images that cannot be read: raise ends the command; skip leaves them out, with a line for each and exit code "
    "1."
)


TABLE = "A CSV file as DATA"


def table(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for CSV files, the arguments of `TableOptions`."""
    described = (
        (
            "--image-folder",
            PATH,
            "DIR",
            "Folder that the relative paths in the file start from; by default the folder of the file.",
        ),
        (
            "--image-column",
            str,
            "NAME",
            "Name of the column with the paths of images; by default path, file, image ...",
        ),
        (
            "--label-columns",
            Names(),
            "A,B,...",
            "Names of the columns with labels; by default label, target ..., or all other columns.",
        ),
        ("--label-separator", str, "TEXT", "Character between several labels in a cell; by default ; or |."),
    )
    for name, kind, metavar, text in reversed(described):
        function = click.option(name, cls=Option, group=TABLE, type=kind, metavar=metavar, help=text)(function)
    return function


def hub(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for downloads, which the command gets as one argument `hub`, a `HubOptions`."""

    @functools.wraps(function)
    def collected(
        *arguments: Any,
        revision: str | None,
        cache_dir: str | None,
        token: str | None,
        local_files_only: bool,
        **options: Any,
    ) -> Any:
        from keras_bit.hub.finding import HubOptions

        hub = HubOptions(revision, cache_dir, token, local_files_only)
        return function(*arguments, hub=hub, **options)

    option = functools.partial(click.option, cls=Option, group="Options for a Hub id")
    for added in (
        option("--local-files-only", is_flag=True, help="Use only the cache, without a network."),
        option(
            "--token",
            metavar="TOKEN",
            help="Token for a private or gated repository. `hf auth login` or the variable HF_TOKEN is safer, "
            "because others can list a process's arguments.",
        ),
        option("--cache-dir", type=PATH, metavar="DIR", help="Cache of huggingface_hub."),
        option("--revision", metavar="NAME", help="Branch, tag or commit."),
    ):
        collected = added(collected)
    return collected


def check_out(out: str) -> None:
    """Checks that the file `--out` can be written, before anything is computed."""
    from keras_bit.files import writing

    parent = Path(os.path.abspath(out)).parent
    if not parent.is_dir():
        raise FileNotFoundError(f"--out: the directory {str(parent)!r} does not exist. Create it first.")
    writing.check_writable(out)


def check_out_directory(out: str, report: str) -> None:
    """Checks that the file `report` can be written in the directory `--out`, before anything is computed."""
    from keras_bit.files import writing

    if Path(out).is_file():
        raise NotADirectoryError(f"--out must be a directory, got the file {out!r}.")
    writing.check_writable(Path(out) / report)
