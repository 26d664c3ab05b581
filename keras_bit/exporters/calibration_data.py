"""Checks and batches the images for the calibration of 8 bits."""

from collections.abc import Iterator, Sequence

import numpy as np

from keras_bit.exporters.job import Job


def check(job: Job, size: tuple[int | None, int | None], otherwise: str) -> None:
    """Checks `representative_data` for a file that takes images of `size`.

    Args:
        size: height and width; `None` means any.
        otherwise: the end of the sentence, about how to do without.

    Raises:
        ValueError: `representative_data` is missing or empty, or some have another size.
    """
    if job.representative_data is None:
        raise ValueError(
            f"`representative_data` must be given for `quantize={job.quantize!r}`: the ranges of 8 bits are measured "
            "on some hundred images. `image_dataset(folder, processor=processor, batch_size=8).take(25)` gives 200; "
            f"{otherwise}."
        )
    height, width = size
    for batch in job.representative_data:
        if any(own is not None and own != found for own, found in zip(size, batch.shape[1:3], strict=True)):
            raise ValueError(
                f"`representative_data` must have the size of the export, {height or 'any'}x{width or 'any'} px, got "
                f"{batch.shape[1]}x{batch.shape[2]}. `image_size` sets the size."
            )


def samples(batches: Sequence[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yields the images in batches of `count`; the last one is filled up with its first images."""
    for batch in batches:
        parts = -(-len(batch) // count)
        yield from np.split(np.resize(batch, (parts * count, *batch.shape[1:])), parts)
