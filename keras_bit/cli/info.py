"""`keras-bit info`: what a checkpoint holds."""

import argparse
from typing import Any

from rich.table import Table

from keras_bit.cli.arguments import add_hub_arguments, hub_arguments
from keras_bit.cli.terminal import console, input_size, printable

_CONFIG_NAMES = ("config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json")


def add(commands: Any) -> None:
    command = commands.add_parser(
        "info",
        help="what a checkpoint holds",
        description="Prints architecture, parameters, classes, input size and files of a checkpoint. Reads the names "
        "and shapes of its tensors, not the numbers.",
    )
    command.add_argument("source", metavar="SOURCE", help="Hub id, directory or file")
    add_hub_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from keras_bit import hub
    from keras_bit.checkpoints.loading import find
    from keras_bit.images.processor import BitImageProcessor

    checkpoint = find(options.source, hub.HubOptions(**hub_arguments(options))).open()
    config = checkpoint.known_config()
    try:
        size = input_size(BitImageProcessor.from_pretrained(options.source, **hub_arguments(options)))
    except FileNotFoundError:
        size = "not stated: no preprocessor_config.json"

    classes = checkpoint.head_classes
    names = ""
    if config.has_named_labels and classes:
        names = f" ({', '.join(map(printable, list(config.id2label.values())[:2]))}{', ...' * (classes > 2)})"
    table = Table(title=printable(options.source), title_justify="left", show_header=False)
    table.add_row("architecture", f"{config.layer_type}, depths {config.depths}, width x{config.width_factor}")
    table.add_row("widths", f"stem {config.stem_width}, stages {config.stage_widths}, {config.num_groups} groups")
    table.add_row("parameters", f"{checkpoint.parameters:,} in {len(checkpoint.tensors)} tensors")
    table.add_row("classes", f"{classes}{names}" if classes else "none: no head")
    table.add_row("input size", size)
    others = [
        hub.find_file(options.source, (name,), hub.HubOptions(**hub_arguments(options))) for name in _CONFIG_NAMES
    ]
    for file in dict.fromkeys([*checkpoint.files, *filter(None, others)]):
        table.add_row("file", f"{file.name}, {_size(file.stat().st_size)}")
    console().print(table)
    return 0


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"
