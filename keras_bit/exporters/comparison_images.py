"""The images for comparing a model with its export: the caller's own, or patterns like photographs."""

import dataclasses
import io
import warnings
from typing import Any

import numpy as np
from PIL import Image

from keras_bit.exporters.job import Job, Shape
from keras_bit.images.processor import BitImageProcessor

CHECKED = 4  # images at most
CHECKED_SIZES = ((224, 224), (160, 192))  # px; the second is for exports of any size
ROUNDING = 1e-3  # of the range
FILE_SIZES = (("PNG", (160, 192)), ("JPEG", (224, 140)))  # of encoded images, alternating


def batches(job: Job, shape: Shape) -> list[np.ndarray]:
    """Returns up to `CHECKED` images, in batches of the shape and type that the export takes.

    Raises:
        ValueError: the representative data have another size.
    """
    count, height, width = shape
    if job.representative_data is None:
        sizes = CHECKED_SIZES if height is None and width is None else CHECKED_SIZES[:1]
        channels = job.model.input_shape[-1]
        groups = [
            patterns(
                CHECKED // 2, (height or default[0], width or default[1]), channels, job.processor, seed, job.dtype
            )
            for seed, default in enumerate(sizes)
        ]
    else:
        first = job.representative_data[0]
        groups = [first[:CHECKED]]
        if any(own is not None and own != found for own, found in zip((height, width), first.shape[1:3], strict=True)):
            raise ValueError(
                f"`representative_data` must have the size of the export, {height}x{width} px, got "
                f"{first.shape[1]}x{first.shape[2]}. `image_size` sets the size."
            )
    if count is None:
        return groups
    whole = [np.resize(group, (max(len(group) // count, 1) * count, *group.shape[1:])) for group in groups]
    return [part for group in whole for part in np.split(group, len(group) // count)]


def patterns(
    count: int,
    size: tuple[int, int],
    channels: int,
    processor: BitImageProcessor | None,
    seed: int,
    dtype: np.dtype[Any] | type[np.generic] = np.float32,
) -> np.ndarray:
    """Returns random images for a model, `(count, *size, channels)`.

    As float32 they are the processor's output, or in [-1, 1] without one; as whole numbers they are pixels.
    """
    images = _patterns(count, size, channels, seed)
    if dtype != np.float32:
        return np.minimum(images, np.iinfo(dtype).max).astype(dtype)
    return images / np.float32(127.5) - 1 if processor is None else _normalized(images, processor)


def warn_of_data(job: Job) -> None:
    """Warns about representative data that cannot be the processor's output, or that are constant."""
    if job.representative_data is None:
        return
    least = min(float(batch.min()) for batch in job.representative_data)
    most = max(float(batch.max()) for batch in job.representative_data)
    if least == most:
        warnings.warn(f"`representative_data` have the value {least:g} everywhere. Pass real images.", stacklevel=3)
    elif job.processor is not None and job.model.input_shape[-1] == 3:
        ends = np.stack([np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)])
        low, high = (float(end) for end in np.quantile(_normalized(ends, job.processor), (0, 1)))
        if least < low - ROUNDING * (high - low) or most > high + ROUNDING * (high - low):
            warnings.warn(
                f"`representative_data` go from {least:.4g} to {most:.4g}, but the output of `processor` from "
                f"{low:.4g} to {high:.4g}. Pass them through it first.",
                stacklevel=3,
            )


def encoded(count: int) -> list[bytes]:
    """Returns files of `count` patterns in RGB."""
    files = []
    for number in range(count):
        kind, size = FILE_SIZES[number % len(FILE_SIZES)]
        file = io.BytesIO()
        Image.fromarray(_patterns(1, size, 3, number)[0].astype(np.uint8)).save(file, kind)
        files.append(file.getvalue())
    return files


def _patterns(count: int, size: tuple[int, int], channels: int, seed: int) -> np.ndarray:
    """Returns random images in [0, 255] whose contrast falls with the frequency as in photographs."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None, :])
    amplitude = 1 / np.maximum(frequency, 1 / max(size))
    phases = np.exp(2j * np.pi * rng.random((count, channels, *amplitude.shape)))
    waves = np.fft.irfft2(amplitude * phases, s=size)
    waves = 127.5 + 60 * (waves - waves.mean(axis=(2, 3), keepdims=True)) / waves.std(axis=(2, 3), keepdims=True)
    return np.clip(np.rint(waves), 0, 255).astype(np.float32).transpose(0, 2, 3, 1)


def _normalized(images: np.ndarray, processor: BitImageProcessor) -> np.ndarray:
    channels = images.shape[-1]
    as_they_are = dataclasses.replace(processor, do_resize=False, do_center_crop=False, do_convert_rgb=channels == 3)
    return as_they_are(list(images.astype(np.uint8)), input_data_format="channels_last")
