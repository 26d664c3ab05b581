"""Fits a model on a pipeline and prints what it saw, as JSON. Run in a process of its own with KERAS_BACKEND set.

python tests/feeding_probe.py DIRECTORY
"""

import json
import sys

import keras
import numpy as np

from keras_bit import BiT, BitConfig, BitImageProcessor, HyperRule, image_dataset


def main() -> None:
    processor = BitImageProcessor(size=(32, 32), do_center_crop=False, resample=2, image_mean=0.5, image_std=0.5)
    options = {"processor": processor, "batch_size": 4, "seed": 0}
    found = {"backend": keras.backend.backend(), "losses": {}, "sums": []}
    for name, count, loss in (
        ("numbers", 100, keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        ("mixed", 20_000, keras.losses.CategoricalCrossentropy(from_logits=True)),
    ):
        train = image_dataset(sys.argv[1], training=True, rule=HyperRule(count, 32), **options)
        found["sums"].append(
            float(sum(np.abs(images).sum(dtype=np.float64) for images, _ in train.as_numpy_iterator()))
        )
        keras.utils.set_random_seed(0)
        config = BitConfig(
            embedding_size=16,
            hidden_sizes=(32,),
            depths=(1,),
            num_groups=4,
            id2label=dict(enumerate(train.class_names)),
        )
        model = BiT(config, classifier_activation=None)
        model.compile(keras.optimizers.SGD(0.01), loss)
        history = model.fit(train, epochs=2, verbose=0)
        found["losses"][name] = history.history["loss"]
    evaluation = image_dataset(sys.argv[1], **options)
    found["predicted"] = list(model.predict(evaluation, verbose=0).shape)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
