"""Checks of the arguments that a model is called with."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PIXEL_VALUES = "pixel_values"  # name of the input, and its key in the processor's output


def images_in(inputs: Any) -> Any:
    """Takes the images out of the dictionary that an image processor returns; returns anything else unchanged."""
    return inputs[PIXEL_VALUES] if isinstance(inputs, Mapping) and list(inputs) == [PIXEL_VALUES] else inputs


def refuse_unknown(title: str, given: Iterable[str], allowed: Sequence[str]) -> None:
    """Refuses a keyword that is not `allowed` in a call of `title`.

    Raises:
        TypeError: a keyword is not allowed; the message names the closest allowed one.
    """
    for name in given:
        if name not in allowed:
            closest = difflib.get_close_matches(name, allowed, n=1, cutoff=0)[0]
            raise TypeError(
                f"A call of {title} has no argument {name!r}. The closest is {closest!r}; all are {', '.join(allowed)}."
            )


def refuse_lists(inputs: Any) -> None:
    """Refuses images in a list, as `processor.preprocess(images)` returns them: a model takes one array.

    Keras would treat each image of the list as an input of its own.

    Raises:
        ValueError: it is a list of images.
    """
    if not isinstance(inputs, list | tuple) or not inputs:
        return
    if isinstance(inputs[0], list | tuple):
        raise ValueError(
            f"`{PIXEL_VALUES}` must be one array or tensor (batch, height, width, channels), got lists of lists. Make "
            'an array of them: `numpy.asarray(images, dtype="float32")`.'
        )
    shapes = [tuple(getattr(one, "shape", ())) for one in inputs]
    if any(len(shape) != 3 for shape in shapes):
        return  # Keras raises its own error for other lists
    if len(set(shapes)) == 1:
        advice = 'Pass `return_tensors="np"` to the processor, or stack them by `numpy.stack`.'
    else:
        sizes = sorted({f"{shape[0]}x{shape[1]}" for shape in shapes})
        advice = (
            f"They have several sizes ({', '.join(sizes[:3])}{' ...' * (len(sizes) > 3)}), which cannot form one "
            "batch. Give the processor a `size` and a `crop_size` that make them equal, or call the model with one "
            "image at a time, `image[None]`."
        )
    raise ValueError(
        f"`{PIXEL_VALUES}` must be one array or tensor (batch, height, width, channels), got a {type(inputs).__name__} "
        f"of {len(inputs)} images. {advice}"
    )
