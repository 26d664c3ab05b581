"""Trains a model as one of several processes; prints its losses and a digest of its weights as JSON.

python tests/distribution_probe.py DIRECTORY STRATEGY...

The strategy `none` trains with the whole batch in one process. `mirrored` uses two CPU devices as if they were GPUs.
For `multi_worker`, TF_CONFIG or KERAS_DISTRIBUTION_... must be set. The probe prints a line for each strategy.
"""

import hashlib
import json
import sys
from typing import Any

import keras
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
    weights = b"".join(keras.ops.convert_to_numpy(variable).tobytes() for variable in model.weights)
    workers.wait()
    return {"history": history, "weights": hashlib.sha256(weights).hexdigest()}


if __name__ == "__main__":
    main()
