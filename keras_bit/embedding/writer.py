"""Computes and writes shards of features: the network with its preprocessing."""

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_bit.data.items import Item, named
from keras_bit.data.named_batches import NoImageError, read_batches
from keras_bit.data.skipped import Skipped
from keras_bit.embedding import shard_files
from keras_bit.embedding.shard_files import Job
from keras_bit.hub.finding import HubOptions

if TYPE_CHECKING:
    import keras

NO_LABEL = np.int32(0)


class Writer:
    """The network with its preprocessing, which writes shards.

    Attributes:
        made_by: the metadata about them.
        width: the number of features.
    """

    def __init__(self, weights: str, hub: HubOptions, batch_size: int) -> None:
        from keras_bit.applications import from_pretrained
        from keras_bit.data.options import Options
        from keras_bit.data.reading import Reader
        from keras_bit.images.processor import BitImageProcessor

        self._model = from_pretrained(weights, include_top=False, pooling="avg", **hub.arguments)
        processor = BitImageProcessor.from_pretrained(weights, **hub.arguments)
        self._batch_size = batch_size
        self._reader = Reader(processor, size=Options(processor, batch_size).size(None))
        self.width = int(self._model.output_shape[-1])
        self.made_by = {
            "keras_bit": importlib.metadata.version("keras_bit"),
            "weights_sha256": digest(self._model),
            # JSON changes some types, and later runs compare these values with those of a file.
            "processor": json.loads(json.dumps(processor.to_dict())),
        }

    def write(self, job: Job, shard: int, advance: Callable[[int], Any] = lambda count: None) -> None:
        """Writes a shard; `advance` receives the number of images done.

        Raises:
            ValueError: with `on_error="raise"`, an image cannot be read.
            ArithmeticError: a feature is not finite.
        """
        names = job.images.names(shard)
        features = np.zeros((len(names), self.width), np.float32)
        rows: list[int] = []
        skipped = Skipped()
        paths = (job.images.path(name) for name in names)
        items = (Item(named(path), NO_LABEL, path) for path in paths)
        for images, _, index in _batches(items, self._reader, self._batch_size, job.on_error, skipped):
            features[index] = self._features(images)
            rows += index.tolist()
            advance(len(index))
        advance(len(names) - len(rows))
        for row in rows:
            if not np.isfinite(features[row]).all():
                raise ArithmeticError(
                    f"{job.images.path(names[row])} has features that are not finite. Check the weights."
                )
        shard_files.write(job, shard, rows, features[rows], skipped.files)

    def _features(self, images: np.ndarray) -> np.ndarray:
        # Every batch has the same size, because JAX compiles for each size, and the order of sums may depend on it.
        rest = np.zeros((self._batch_size - len(images), *images.shape[1:]), np.float32)
        return self._model.predict_on_batch(np.concatenate([images, rest]))[: len(images)]


def _batches(*arguments: Any) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    with contextlib.suppress(NoImageError):  # this shard has no readable image, but others may have some
        yield from read_batches(*arguments)


def digest(model: "keras.Model") -> str:
    """Returns a hash of the names and values of a model's weights."""
    import keras

    found = hashlib.sha256()
    for layer in model.layers:
        for variable in layer.weights:
            found.update(f"{layer.name}/{variable.name}".encode())
            found.update(np.asarray(keras.ops.convert_to_numpy(variable.value), np.float32).tobytes())
    return found.hexdigest()


def start_worker(job: Job) -> Callable[[int], str]:
    """Loads the model, and returns a function that writes a shard and returns what went wrong, `""` for nothing."""
    writer = Writer(job.weights, job.hub, job.batch_size)
    differences = shard_files.differences_of({**job.made_by, **writer.made_by}, job.made_by)

    def work(shard: int) -> str:
        if differences:
            return f"A worker has another model than the process that started the run: {differences}"
        try:
            writer.write(job, shard)
        except (OSError, ValueError, ArithmeticError) as error:
            return str(error)
        return ""

    return work
