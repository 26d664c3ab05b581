"""The images on which 8 bits are calibrated: whether they fit, and batches of them."""

from collections.abc import Iterator, Sequence

import numpy as np

from keras_bit.exporters.job import Job


def check(job: Job, size: tuple[int | None, int | None], otherwise: str) -> None:
    """Checks `representative_data` for a file that takes images of `size`.

    Args:
        size: height and width; a `None` is any.
        otherwise: the end of the sentence that says how to do without.

    Raises:
        ValueError: there are none, or some have another size.
    """
    if job.representative_data is None:
        raise ValueError(
            f"`representative_data` must be given for `quantize={job.quantize!r}`: the ranges of 8 bits are those that "
            "some hundred images have. `image_dataset(folder, processor=processor, batch_size=8).take(25)` gives "
            f"200; {otherwise}."
        )
    height, width = size
    for batch in job.representative_data:
        if any(own is not None and own != found for own, found in zip(size, batch.shape[1:3], strict=True)):
            raise ValueError(
                f"`representative_data` must have the size of the export, {height or 'any'}x{width or 'any'} px, got "
                f"{batch.shape[1]}x{batch.shape[2]}. `image_size` sets the size."
            )


def samples(batches: Sequence[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The images in batches of `count`; what is left over is filled up with the first ones of its batch."""
    for batch in batches:
        parts = -(-len(batch) // count)
        yield from np.split(np.resize(batch, (parts * count, *batch.shape[1:])), parts)
