"""Reads images on the host: a batch at a time, with Pillow, in a pool of threads. Without TensorFlow.

Pillow's decoders and its resize release the interpreter's lock, so threads are as fast as processes. Every format of
Pillow is read.
"""

import errno
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from keras_bit.data import geometry, targets
from keras_bit.data.batch_memory import BatchMemory
from keras_bit.data.items import Item
from keras_bit.images import inputs, pillow_steps
from keras_bit.images.processor import BitImageProcessor
from keras_bit.recipes.hyperrule import HyperRule

# Errors that are the file's fault. Every other system error is the machine's.
UNREADABLE = {
    FileNotFoundError: "there is no such file",
    IsADirectoryError: "it is a directory",
    NotADirectoryError: "a part of its path is not a directory",
    PermissionError: "there is no permission to read it",
}
BAD_NAMES = {errno.ELOOP: "its links form a circle", errno.ENAMETOOLONG: "its name is too long"}
Result = TypeVar("Result")
MEMORY = "Read fewer images at the same time to use less memory: num_parallel_calls=1."


class Batch(NamedTuple):
    """The result of reading some items.

    Args:
        images: float32 `(count, height, width, 3)`; the readable ones, in the order of the items.
        places: int64 `(count,)`, their places among the items.
        problems: a line for each of the others.
        failure: a failure that is not an image's fault (the batch then has no images); empty if nothing failed.
    """

    images: np.ndarray
    places: np.ndarray
    problems: list[str]
    failure: str = ""


class _ReadingError(Exception):
    """Reading failed, but not because of the image. Its cause is the error."""


class Reader:
    """Reads items with the processor's steps, or with the recipe's for training.

    Args:
        processor: a `BitImageProcessor` with `do_convert_rgb`.
        rule: the rule of the training; `None` for evaluation.
        random_resized_crop: the argument of `image_dataset`.
        max_pixels: the most pixels of an encoded image; `None` is Pillow's limit.
        class_names: the classes that labels must be among, if known.
        size: (height, width) of every result; `None` if it depends on the image.
        threads: images that are read at the same time; `None` is one per processor that this process may use.
    """

    def __init__(
        self,
        processor: BitImageProcessor,
        rule: HyperRule | None = None,
        *,
        random_resized_crop: bool = False,
        max_pixels: int | None = None,
        class_names: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        threads: int | None = None,
    ) -> None:
        self._processor, self._rule, self._random_resized_crop = processor, rule, random_resized_crop
        self._max_pixels, self._class_names, self._size = max_pixels, class_names, size
        self._threads = threads or _processors()
        self._memory = BatchMemory()

    def read(self, items: Sequence[Item], uniform: Any = None) -> Batch:
        """Reads some items.

        Args:
            items: the items; the images of broken ones are left out.
            uniform: float64 `(count, geometry.numbers_needed(...))` in [0, 1), the random numbers of the augmentation.
        """
        images = None if self._size is None else self._memory.array((len(items), *self._size, 3))
        results: list[Any] = [None] * len(items)
        waiting = iter(range(len(items)))

        def read_on() -> None:
            # Each thread takes the next place, which needs fewer futures than one per image.
            for place in waiting:
                row = None if images is None else images[place]
                results[place] = self._read(items[place], row, None if uniform is None else uniform[place])

        try:
            pool = _pool(self._threads)
            for done in [pool.submit(read_on) for _ in range(min(self._threads, len(items)))]:
                done.result()
        except _ReadingError as error:
            advice = f" {MEMORY}" if isinstance(error.__cause__, MemoryError) else ""
            failure = f"{error}{advice}"
            return Batch(self._nothing(), np.zeros(0, np.int64), [], failure)
        problems = [result for result in results if isinstance(result, str)]
        places = np.array([place for place, result in enumerate(results) if not isinstance(result, str)], np.int64)
        if images is None:
            images = np.stack([results[place] for place in places]) if len(places) else self._nothing()
        elif problems:
            images = images[places]
        return Batch(images, places, problems)

    def _nothing(self) -> np.ndarray:
        return np.zeros((0, *(self._size or (0, 0)), 3), np.float32)

    def _read(self, item: Item, row: np.ndarray | None, uniform: Any) -> np.ndarray | str:
        """Returns the image (in `row` if given), or what is wrong with it, as a sentence that begins with its name.

        Raises:
            _ReadingError: reading failed, but not because of the image.
        """
        try:
            return self._attempt(item, row, uniform)
        except Exception as error:
            said = f"{type(error).__name__}: {str(error).rstrip('.')}."
            raise _ReadingError(f"Reading {item.name} failed, but not because of the image: {said}") from error

    def _attempt(self, item: Item, row: np.ndarray | None, uniform: Any) -> np.ndarray | str:
        problem = item.problem or targets.problem(item.label, self._class_names)
        if problem:
            return f"{item.name} {problem}"
        return attempted(item.name, lambda: self._finished(item, row, uniform))

    def _finished(self, item: Item, row: np.ndarray | None, uniform: Any) -> np.ndarray:
        image = self._opened(item)
        if self._rule is None:
            return pillow_steps.preprocess(item.name, image, self._processor, row)
        return self._augmented(image, self._rule, uniform, row)

    def _opened(self, item: Item) -> Image.Image:
        """Returns the decoded RGB image of an item."""
        if isinstance(item.contents, np.ndarray):
            if not item.contents.size or item.contents.shape[-1] not in (1, 3, 4):
                why = "it must have 1, 3 or 4 channels" if item.contents.size else "it has no pixels"
                raise ValueError(f"{item.name} has the shape {item.contents.shape}: {why}.")
            return _of_pixels(item.contents)
        image = inputs.read(item.name, item.contents, self._processor.orientation, self._max_pixels)
        return inputs.to_rgb(item.name, image)

    def _augmented(self, image: Image.Image, rule: HyperRule, uniform: Any, row: np.ndarray | None) -> np.ndarray:
        """Applies the recipe's resize, crop and flip, or the Inception networks' crop."""
        crop, resample = rule.crop_size, self._processor.resample
        if self._random_resized_crop:
            top, left, height, width = map(int, geometry.random_part(image.height, image.width, uniform, np))
            image = image.crop((left, top, left + width, top + height)).resize((crop, crop), resample)
        else:
            image = image.resize((rule.resize_size, rule.resize_size), resample)
            top, left = map(int, geometry.random_place(rule.resize_size - crop, uniform, np))
            image = image.crop((left, top, left + crop, top + crop))
        if geometry.is_flipped(uniform):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return pillow_steps.rescale_and_normalize(image, self._processor, row)


def attempted(name: str, read: Callable[[], Result]) -> Result | str:
    """Returns the result of `read`, or what is wrong with the image, as a sentence that begins with its name.

    Raises:
        OSError, MemoryError: reading failed, but not because of the image.
    """
    try:
        return read()
    except ValueError as error:
        return str(error)
    except OSError as error:
        why = UNREADABLE.get(type(error)) or BAD_NAMES.get(error.errno or 0)
        if why is None:
            raise
        return f"{name} cannot be read: {why}. Check the path and its permissions."


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Returns the thread pool of all readers; a reader's own pool would live as long as TensorFlow keeps its graph."""
    return ThreadPoolExecutor(threads, thread_name_prefix="image-reader")


if hasattr(os, "register_at_fork"):
    # A forked process does not inherit threads, so it makes its own.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _of_pixels(pixels: np.ndarray) -> Image.Image:
    if pixels.shape[-1] == 1:
        return Image.fromarray(pixels[..., 0]).convert("RGB")
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))


def _processors() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
