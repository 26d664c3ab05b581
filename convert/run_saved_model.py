"""Runs a SavedModel on the batch in a .npy file with TensorFlow alone, and prints its scores as JSON.

It is what a server does: in its process Keras and keras_bit cannot be imported.
"""

import json
import sys


def main() -> None:
    # TensorFlow imports Keras by itself where it finds it; an entry of None makes it an uninstalled package.
    for package in ("keras", "tf_keras", "keras_bit"):
        sys.modules[package] = None

    import numpy as np
    import tensorflow as tf

    directory, batch = sys.argv[1:]
    serve = tf.saved_model.load(directory).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    (scores,) = serve(**{name: tf.constant(np.load(batch))}).values()
    if any(name.split(".")[0] in ("keras", "tf_keras", "keras_bit") for name, module in sys.modules.items() if module):
        raise SystemExit("Keras was imported: this shows nothing about a process without it")
    print(json.dumps(scores.numpy().tolist()))


if __name__ == "__main__":
    main()
