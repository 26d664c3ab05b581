"""Runs a SavedModel on image files with TensorFlow but without Keras, and prints its scores as JSON.

This is what a server does: its process has neither Keras nor keras_bit, and the preprocessing is in the graph.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    # TensorFlow imports Keras by itself if it is installed; an entry of None makes the import fail, as if it were not.
    for package in ("keras", "tf_keras", "keras_bit"):
        sys.modules[package] = None

    import tensorflow as tf

    directory, *files = sys.argv[1:]
    loaded = tf.saved_model.load(directory)
    outputs = loaded.signatures["serve_bytes"](image_bytes=tf.constant([Path(file).read_bytes() for file in files]))
    scores = outputs["probabilities"] if "probabilities" in outputs else outputs["logits"]
    if any(name.split(".")[0] in ("keras", "tf_keras", "keras_bit") for name, module in sys.modules.items() if module):
        raise SystemExit("Keras was imported: this shows nothing about a process without it")
    print(json.dumps(scores.numpy().tolist()))


if __name__ == "__main__":
    main()
