"""`keras-bit explain`: where on an image a class is seen."""

import argparse
from pathlib import Path
from typing import Any

from keras_bit.cli.arguments import DEFAULT_WEIGHTS, add_hub_arguments, hub_arguments, upright_picture
from keras_bit.cli.terminal import printable


def add(commands: Any) -> None:
    command = commands.add_parser(
        "explain",
        help="where on an image a class is seen",
        description="Draws a class activation map over an image: how much each place adds to the logit of a class, "
        "or takes from it. The map is exact, no approximation: its mean over the places, plus the head's bias, is the "
        "logit. It is as fine as the network's last feature map, and drawn on the part of the image that the model "
        "sees, in the image's own pixels.",
        epilog="Examples: keras-bit explain dog.jpg --out heat.png; of another class than the most probable: "
        "keras-bit explain dog.jpg --out cat.png --class 'tabby, tabby cat'",
    )
    command.add_argument("image", metavar="IMAGE", help="image file; turned upright by its EXIF tag")
    command.add_argument("--out", required=True, metavar="FILE.png", help="where the map is written")
    command.add_argument(
        "--class",
        dest="class_name",
        metavar="NAME_OR_INDEX",
        help="a label, one of its several names, a wordnet id or a number from 0 (default: the most probable class)",
    )
    command.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        metavar="SOURCE",
        help="Hub id, directory or file of a checkpoint with its preprocessor_config.json (default: %(default)s)",
    )
    add_hub_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import keras_bit
    from keras_bit import files
    from keras_bit.drawing import heat_map
    from keras_bit.evaluation import activation_map, class_map
    from keras_bit.network.model import check_input_shape

    out = Path(options.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"`--out` must be a file name that ends in .png, got {options.out!r}.")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"`--out`: there is no directory {str(out.absolute().parent)!r}.")
    picture = upright_picture(options.image)
    if out.exists() and out.samefile(options.image):
        raise ValueError(f"`--out` must be another file than IMAGE, got {options.out!r} for both.")
    model = keras_bit.from_pretrained(options.weights, **hub_arguments(options))
    activation_map.check_model(model)
    processor = keras_bit.BitImageProcessor.from_pretrained(options.weights, **hub_arguments(options))
    chosen = None if options.class_name is None else [class_map.find_class(options.class_name, model.config)]

    pixels = processor(picture)
    check_input_shape(pixels.shape[1:], model.config.num_channels, "pixel_values")
    found = activation_map.activation_maps(model, pixels, chosen)
    labels = class_map.labels_of(model.config)
    number, best = int(found.classes[0, 0]), int(found.scores[0].argmax())
    answer = _answer(model, labels[number], found.scores[0, number])
    logit, bias = float(found.logits[0, 0]), float(found.biases[0, 0])
    instead = [] if number == best else [f"the model says {_answer(model, labels[best], found.scores[0, best])}"]

    seen = heat_map.seen(picture, processor)
    height, width = found.maps.shape[1:3]
    sheet = heat_map.draw(
        seen.picture,
        activation_map.interpolated(found.maps[0, :, :, 0], seen.rows, seen.columns, model.config),
        [answer, *instead, f"{Path(options.image).name}, {seen.part}"],
        labels[number],
        [
            f"logit {logit:.2f} = mean of the map {logit - bias:.2f} + bias {bias:.2f}",
            f"class activation map of {height}x{width} positions, linear in between; {options.weights}",
        ],
    )
    with files.replacing(out) as beside:
        sheet.save(beside, "PNG")
    print(f"{printable(str(out))}: {printable('; '.join([answer, *instead]))}")
    return 0


def _answer(model: Any, label: str, score: float) -> str:
    """What the model says of a class, in words."""
    activation = getattr(model.get_layer("predictions").activation, "__name__", "")
    if activation in ("softmax", "sigmoid"):
        return f"{label}: {score:.1%}"
    return f"{label}: {score:.4g}"
