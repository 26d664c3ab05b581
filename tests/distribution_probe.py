"""Trains a model as one of several processes; prints its losses and a digest of its weights as JSON.

python tests/distribution_probe.py DIRECTORY STRATEGY...

The strategy `none` trains with the whole batch in one process. `mirrored` uses two CPU devices as if they were GPUs.
For `multi_worker`, TF_CONFIG or KERAS_DISTRIBUTION_... must be set. The probe prints a line for each strategy.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_bit import BiT, BitConfig, BitImageProcessor, HyperRule, fine_tune, image_dataset
from keras_bit.training import distribution


def main() -> None:
    directory, *strategies = sys.argv[1:]
    if "mirrored" in strategies:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for strategy in strategies:
        print(json.dumps(trained(directory, None if strategy == "none" else strategy)), flush=True)


def trained(directory: str, strategy: str | None) -> dict[str, Any]:
    workers = distribution.start(strategy)
    # The rate is far above the recipe's, so that six steps are seen in the losses.
    rule = HyperRule(12, 32, batch_size=8, steps=6, base_learning_rate=0.05)
    processor = BitImageProcessor(size=(32, 32), do_center_crop=False, resample=2, image_mean=0.5, image_std=0.5)
    shard = (workers.index, workers.count)
    train = image_dataset(
        directory, processor=processor, batch_size=8, training=True, rule=rule, seed=0, repeat=True, shard=shard
    )
    validation = image_dataset(directory, processor=processor, batch_size=5)
    with workers.scope():
        keras.utils.set_random_seed(0)
        model = BiT(BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(1,), num_groups=4, num_labels=3))
    history = fine_tune(model, train, validation, rule=rule, steps_per_epoch=2, verbose=0).history
    history |= {f"numbers: {name}": values for name, values in numbers_learned(directory, workers, processor).items()}
    weights = b"".join(keras.ops.convert_to_numpy(variable).tobytes() for variable in model.weights)
    workers.wait()
    return {"history": history, "weights": hashlib.sha256(weights).hexdigest()}


def numbers_learned(
    directory: str, workers: distribution.Workers, processor: BitImageProcessor
) -> dict[str, list[float]]:
    """Returns the history of a training on numbers to predict, and the model's answer to a gray image."""
    paths = sorted(map(str, Path(directory).glob("*/*")))
    numbers = [3e5 + 1e5 * (number % 5) for number in range(len(paths))]
    rule = HyperRule(12, 32, batch_size=8, steps=4, base_learning_rate=0.01)
    shard = (workers.index, workers.count)
    train = image_dataset(
        (paths, numbers), processor=processor, batch_size=8, training=True, rule=rule, seed=0, repeat=True, shard=shard
    )
    with workers.scope():
        keras.utils.set_random_seed(0)
        model = BiT(BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(1,), num_groups=4, num_labels=1))
    history = fine_tune(model, train, rule=rule, steps_per_epoch=2, verbose=0).history
    with workers.alone():
        answer = keras.ops.convert_to_numpy(model(np.zeros((1, 32, 32, 3), "float32")))
    return history | {"answer": answer[0].tolist()}


if __name__ == "__main__":
    main()
