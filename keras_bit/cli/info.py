"""`keras-bit info`: describes a checkpoint."""

from typing import TYPE_CHECKING

import click

from keras_bit.cli import options
from keras_bit.cli.command import Command
from keras_bit.cli.terminal import console, input_size, printable, shown, working

if TYPE_CHECKING:
    from keras_bit.hub.finding import HubOptions
    from keras_bit.network.config import BitConfig

_CONFIG_NAMES = ("config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json")


@click.command(
    cls=Command,
    examples=[
        ("the default checkpoint on the Hub", "keras-bit info"),
        ("another one on the Hub, or a directory or a file", "keras-bit info --weights flowers-bit"),
    ],
)
@options.weights(f"{options.SOURCE}.")
@options.hub
def info(weights: str, hub: "HubOptions") -> None:
    """Prints architecture, parameters, classes, input size and files of a checkpoint.

    It reads the names and shapes of the tensors, not the numbers. It writes no file.
    """
    from rich.table import Table

    with working(f"opening {weights}"):
        from keras_bit.checkpoints.loading import find
        from keras_bit.hub.finding import find_file
        from keras_bit.images.processor import BitImageProcessor

        checkpoint = find(weights, hub).open()
        config = checkpoint.known_config()
        try:
            size = input_size(BitImageProcessor.from_pretrained(weights, **hub.arguments))
        except FileNotFoundError:
            size = "not stated: no preprocessor_config.json"
        others = [find_file(weights, (name,), hub) for name in _CONFIG_NAMES]

    table = Table(title=shown(weights), title_justify="left", show_header=False)
    table.add_row("architecture", f"{config.layer_type}, depths {config.depths}, width x{config.width_factor}")
    table.add_row("widths", f"stem {config.stem_width}, stages {config.stage_widths}, {config.num_groups} groups")
    table.add_row("parameters", f"{checkpoint.parameters:,} in {len(checkpoint.tensors)} tensors")
    table.add_row("classes", _classes(checkpoint.head_classes, config))
    table.add_row("input size", size)
    for file in dict.fromkeys([*checkpoint.files, *filter(None, others)]):
        table.add_row("file", f"{file.name}, {_size(file.stat().st_size)}")
    console().print(table)


def _classes(count: int | None, config: "BitConfig") -> str:
    from keras_bit import wording

    if not count:
        return "none: no head"
    if not config.has_named_labels or config.id2label is None:
        return str(count)
    return f"{count} ({wording.some(map(printable, config.id2label.values()), most=2)})"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"
