"""Run in a process of its own with KERAS_BACKEND set: what a `.keras` file gives under that backend, as JSON.

python tests/backend_probe.py MODEL.keras PICTURES.npy
"""

import json
import sys

import keras
import numpy as np

from keras_bit import BiTBackbone, from_pretrained


def main() -> None:
    path, pictures = sys.argv[1], np.load(sys.argv[2])
    logits = from_pretrained(path, classifier_activation=None)
    maps = BiTBackbone(path, out_features=["stem", "stage1", "stage2"])(pictures)

    model = keras.saving.load_model(path)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    targets = np.arange(len(pictures)) % model.config.num_labels
    history = model.fit(pictures, targets, batch_size=2, epochs=2, shuffle=False, verbose=0)

    half = {}
    for policy in ("mixed_float16", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        small = from_pretrained(path, classifier_activation=None)
        half[policy] = keras.ops.convert_to_numpy(keras.ops.cast(small(pictures), "float32")).tolist()

    print(
        json.dumps(
            {
                "backend": keras.backend.backend(),
                "logits": keras.ops.convert_to_numpy(logits(pictures)).tolist(),
                "sums": {
                    name: float(np.abs(keras.ops.convert_to_numpy(values)).sum()) for name, values in maps.items()
                },
                "losses": history.history["loss"],
                "half": half,
            }
        )
    )


if __name__ == "__main__":
    main()
