"""`keras-bit explain`: draws where on an image a class is seen."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keras_bit.cli import options
from keras_bit.cli.command import Argument, Command
from keras_bit.cli.images import encoded
from keras_bit.cli.terminal import printable, shown, working

if TYPE_CHECKING:
    from keras_bit.hub.finding import HubOptions
    from keras_bit.network.model import BiTModel


@click.command(
    cls=Command,
    examples=[
        ("of the most probable class", "keras-bit explain dog.jpg --out heat.png"),
        ("of another one", "keras-bit explain dog.jpg --out cat.png --class 'tabby, tabby cat'"),
    ],
)
@click.argument(
    "image",
    cls=Argument,
    type=options.PATH,
    metavar="IMAGE",
    described="Image file or http(s) address; turned upright by its orientation tag.",
)
@options.out("PNG file to write.", "FILE.png", options.PngFile())
@click.option(
    "--class",
    "class_name",
    metavar="NAME_OR_INDEX",
    show_default="the most probable class",
    help="A label, one of its names, a wordnet id or a number from 0.",
)
@options.weights()
@options.hub
def explain(image: str, out: str, class_name: str | None, weights: str, hub: "HubOptions") -> None:
    """Draws a class activation map over an image.

    It shows how much each place adds to the logit of a class, or subtracts from it. The map is exact: its mean plus the
    head's bias is the logit. It has the resolution of the network's last feature map, and covers the part of the image
    that the model sees. It writes one PNG file.
    """
    if os.path.exists(out) and os.path.exists(image) and os.path.samefile(out, image):
        raise click.UsageError(f"--out must be another file than IMAGE, got {out!r} for both.")
    options.check_out(out)
    contents = encoded(image)
    with working(f"loading {weights}"):
        answers = _draw(contents, image, Path(out), class_name, weights, hub)
    print(f"{printable(out)}: {printable('; '.join(answers))}")


def _draw(contents: bytes, name: str, out: Path, class_name: str | None, weights: str, hub: "HubOptions") -> list[str]:
    """Writes the map. Returns the model's answers for the class and, if it differs, for the most probable one."""
    import keras_bit
    from keras_bit.drawing import heat_map
    from keras_bit.evaluation import activation_map, class_map
    from keras_bit.files import writing
    from keras_bit.images import inputs
    from keras_bit.network.model import check_input_shape

    model = keras_bit.from_pretrained(weights, **hub.arguments)
    activation_map.check_model(model)
    processor = keras_bit.BitImageProcessor.from_pretrained(weights, **hub.arguments)
    try:
        chosen = None if class_name is None else [class_map.find_class(class_name, model.config)]
    except ValueError as error:
        raise ValueError(str(error).replace("`name`", "--class", 1)) from None

    image = inputs.read(name, contents, processor.orientation)
    pixels = processor(image)
    check_input_shape(pixels.shape[1:], model.config.num_channels, "pixel_values")
    found = activation_map.activation_maps(model, pixels, chosen)
    labels = class_map.labels_of(model.config)
    number, best = int(found.classes[0, 0]), int(found.scores[0].argmax())
    answers = [_answer(model, labels[number], found.scores[0, number])]
    if number != best:
        answers.append(f"the model says {_answer(model, labels[best], found.scores[0, best])}")
    logit, bias = float(found.logits[0, 0]), float(found.biases[0, 0])

    seen = heat_map.seen(image, processor)
    height, width = found.maps.shape[1:3]
    sheet = heat_map.draw(
        seen.image,
        activation_map.interpolated(found.maps[0, :, :, 0], seen.rows, seen.columns, model.config),
        [*answers, f"{Path(name).name}, {seen.part}"],
        labels[number],
        [
            f"logit {logit:.2f} = mean of the map {logit - bias:.2f} + bias {bias:.2f}",
            f"class activation map of {height}x{width} positions, linear in between; {shown(weights)}",
        ],
    )
    with writing.replacing(out) as beside:
        sheet.save(beside, "PNG")
    return answers


def _answer(model: "BiTModel", label: str, score: float) -> str:
    """Describes the model's answer for a class."""
    activation = getattr(model.get_layer("predictions").activation, "__name__", "")
    if activation in ("softmax", "sigmoid"):
        return f"{label}: {score:.1%}"
    return f"{label}: {score:.4g}"
