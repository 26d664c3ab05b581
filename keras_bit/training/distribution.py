"""Training on several devices or machines, with tf.distribute or JAX's processes."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras

from keras_bit.network.model import BiTModel

if TYPE_CHECKING:
    import tensorflow as tf

STRATEGIES = ("mirrored", "multi_worker")


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes that train one model together, from the point of view of one of them.

    Args:
        index, count: this process' number, and how many there are. Each reads its part of every batch.
        scope: a context for creating a model, the same on every process.
        alone: a context for computing in this process only, as for a report.
        wait: returns after every process has called it.
        lost: whether an error means that another process has ended.
        accumulates: whether Keras can accumulate gradients here, which it cannot over devices of tf.distribute.
    """

    index: int = 0
    count: int = 1
    scope: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    alone: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    wait: Callable[[], None] = lambda: None
    lost: Callable[[Exception], bool] = lambda error: False
    accumulates: bool = True

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files."""
        return self.index == 0


def start(strategy: str | None) -> Workers:
    """Connects to the other processes. Call it before anything else is computed.

    Args:
        strategy: `None`: this process by itself. `"mirrored"`: all GPUs of this machine, by TensorFlow.
            `"multi_worker"`: one process per machine. Under TensorFlow the environment's `TF_CONFIG` names them, as
            TensorFlow documents it; under JAX `KERAS_DISTRIBUTION_JOB_ADDRESSES` (of the first process),
            `KERAS_DISTRIBUTION_NUM_PROCESSES` and `KERAS_DISTRIBUTION_PROCESS_ID`.

    Raises:
        ValueError: the strategy is unknown, or the backend or the environment does not support it.
    """
    backend = keras.backend.backend()
    if strategy is None:
        return Workers()
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` must be None or one of {', '.join(map(repr, STRATEGIES))}, got {strategy!r}.")
    if backend == "tensorflow":
        return _mirrored() if strategy == "mirrored" else _tensorflow_workers()
    if backend == "jax" and strategy == "multi_worker":
        return _jax_processes()
    raise ValueError(
        f"`strategy` {strategy!r} is for {'TensorFlow' if strategy == 'mirrored' else 'TensorFlow and JAX'}, got the "
        f"backend {backend}. Set KERAS_BACKEND=tensorflow."
    )


def _mirrored() -> Workers:
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    return Workers(scope=strategy.scope, accumulates=False)


def _tensorflow_workers() -> Workers:
    import tensorflow as tf

    try:
        config = json.loads(os.environ["TF_CONFIG"])
        cluster, kind, index = config["cluster"], config["task"]["type"], config["task"]["index"]
        # A chief, if there is one, is the first worker.
        everyone = [(task, number) for task in ("chief", "worker") for number in range(len(cluster.get(task, ())))]
        index = everyone.index((kind, index))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(
            "`strategy` 'multi_worker' needs the environment variable TF_CONFIG with the addresses of all workers and "
            'the number of this one: {"cluster": {"worker": ["host0:port", "host1:port"]}, "task": {"type": "worker", '
            f'"index": 0}}}}, got {os.environ.get("TF_CONFIG")!r}.'
        ) from None
    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    @tf.function
    def wait() -> None:
        strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)

    errors = tf.errors
    lost = (errors.UnavailableError, errors.AbortedError, errors.CancelledError, errors.InternalError)
    return Workers(
        index,
        len(everyone),
        strategy.scope,
        wait=wait,
        lost=lambda error: isinstance(error, lost),
        accumulates=False,
    )


def _jax_processes() -> Workers:
    needed = [f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")]
    if missing := [name for name in needed if not os.environ.get(name)]:
        raise ValueError(
            f"`strategy` 'multi_worker' under JAX needs the environment variables {', '.join(needed)}: host and port "
            f"of the first process, the number of processes, and this one's number. Missing: {', '.join(missing)}. "
            "Set them."
        )
    keras.distribution.initialize()
    import jax
    from jax.experimental import multihost_utils

    # Every process reads its own part of the data.
    together = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(together)

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(together)

    def wait() -> None:
        multihost_utils.sync_global_devices("keras_bit")

    def lost(error: Exception) -> bool:
        # Gloo, its library for CPUs, raises a ValueError for a broken connection too.
        return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)

    return Workers(jax.process_index(), jax.process_count(), alone=alone, wait=wait, lost=lost)


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager:
    """Returns the scope for creating a model's optimizer, loss and metrics."""
    return model.distribute_strategy.scope() if keras.backend.backend() == "tensorflow" else contextlib.nullcontext()


def strategy_of(model: keras.Model) -> "tf.distribute.Strategy | None":
    """Returns the tf.distribute strategy that a model was made under; `None` without one and under other backends."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    strategy = model.distribute_strategy
    return strategy if isinstance(strategy, tf.distribute.MirroredStrategy | _multi_worker()) else None


def has_processes(strategy: "tf.distribute.Strategy | None") -> bool:
    return strategy is not None and isinstance(strategy, _multi_worker())


def has_several_processes(model: keras.Model) -> bool:
    """Returns whether a model is trained by several processes, under tf.distribute or `keras.distribution`."""
    if keras.backend.backend() != "jax":
        return has_processes(strategy_of(model))
    import jax

    return jax.process_count() > 1


def fittable(model: BiTModel) -> "DistributedModel":
    """Returns the same layers and weights as a model that Keras can fit under their strategy."""
    with scope_of(model):
        return DistributedModel(model.inputs, model.outputs[0], name=model.name)


def own_part(strategy: "tf.distribute.Strategy", data: "tf.data.Dataset | None") -> Any:
    """Wraps a data set with this process' part of each batch for `strategy`; `None` stays `None`."""
    # As a function, because TensorFlow would divide the batches once more.
    return None if data is None else strategy.distribute_datasets_from_function(lambda context: data)


def _multi_worker() -> type:
    import tensorflow as tf

    return tf.distribute.MultiWorkerMirroredStrategy


class DistributedModel(BiTModel):
    """A model that Keras 3.15 can fit under a tf.distribute strategy, even with several processes (keras#20585).

    It shares its layers, and so its weights, with the original model.
    """

    def train_step(self, *arguments: Any) -> dict[str, Any]:
        return self._as_rows(super().train_step(*arguments))

    def test_step(self, *arguments: Any) -> dict[str, Any]:
        return self._as_rows(super().test_step(*arguments))

    def _as_rows(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Gives scalars a first axis if there are several processes, because Keras then takes the mean over it."""
        if not has_processes(self.distribute_strategy):
            return logs
        return {name: keras.ops.expand_dims(value, 0) for name, value in logs.items()}

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras takes the mean of the devices' batches to find its shape, which fails if they differ in size, or with
        # several processes. One device's batch has the same shape.
        if iterator is not None:
            local = self.distribute_strategy.experimental_local_results
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(lambda value: local(value)[0], next(batches))
                break
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=data_batch)
