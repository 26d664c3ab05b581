"""An order of the images in which every class occurs equally often. Without TensorFlow."""

import numpy as np


def balanced_order(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns as many places as there are images, with equally many (or one more) of each class.

    Images of a small class occur several times, each equally often or once more. Only some images of a large class
    occur, different ones in each pass.

    Args:
        labels: whole numbers `(count,)`.
        generator: draws the order.

    Returns:
        int64 `(count,)`: numbers of images.
    """
    count, classes = len(labels), np.unique(labels)
    shares = np.full(len(classes), count // len(classes))
    shares[generator.permutation(len(classes))[: count % len(classes)]] += 1
    chosen = []
    for number, share in zip(classes, shares, strict=True):
        images = np.flatnonzero(labels == number)
        passes = -(-int(share) // len(images))
        chosen.append(np.concatenate([generator.permutation(images) for _ in range(max(passes, 1))])[:share])
    return generator.permutation(np.concatenate(chosen)).astype(np.int64)
