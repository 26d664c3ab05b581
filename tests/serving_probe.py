"""Checks by hand whether a real TF Serving answers as the weights do. The tests only use a loopback server.

    keras-bit export --weights tests/checkpoints/bit-tiny-cifar10 --out served/bit
    served/bit/serve.sh    # or tensorflow_model_server --model_base_path=$PWD/served/bit --model_name=bit --port=8500
    python tests/serving_probe.py grpc://127.0.0.1:8500    # or http://127.0.0.1:8501

It sends eight images in one request, by the client of `keras-bit classify --server`, and compares labels and scores
with those of the local weights. The exit code is 0 if they agree. `grpc://` needs the extra `serving`.
"""

import argparse

import numpy as np

from image_files import encoded, pixels
from keras_bit import BitImageProcessor, from_pretrained
from keras_bit.exporters.serving_client import connect
from store import TRAINED

IMAGES = 8  # as many as `keras-bit classify` sends at a time


def difference(address: str, name: str) -> float:
    """Returns the largest difference of a score, or infinity if a label differs."""
    images = [encoded(pixels(number, 40, 70)) for number in range(IMAGES)]
    model = from_pretrained(TRAINED)
    expected = np.asarray(model(BitImageProcessor.from_pretrained(TRAINED)(images)))
    largest = 0.0
    for answer, scores in zip(connect(address, name)(images), expected, strict=True):
        best = np.argsort(-scores)[: len(answer)]
        if [label for label, _ in answer] != [model.config.id2label[int(index)] for index in best]:
            return float("inf")
        largest = max(largest, float(np.abs([score for _, score in answer] - scores[best]).max()))
    return largest


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="grpc://HOST:PORT or http://HOST:PORT")
    parser.add_argument("--model", default="bit", help="name of the model on the server (default: %(default)s)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="largest difference of a score (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    found = difference(given.address, given.model)
    if found > given.tolerance:
        raise SystemExit(f"{given.address}: the scores differ from those of the weights by {found:.2g}")
    print(f"{given.address} answers as the weights do, to within {given.tolerance:g}")


if __name__ == "__main__":
    main()
