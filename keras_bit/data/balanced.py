"""An order of the images in which every class comes equally often. Without TensorFlow."""

import numpy as np


def balanced_order(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many places as there are images, of every class equally many, or one more where it does not come out even.

    Images of a class with few come several times, each as often as another one or once more; of a class with many
    only some come, other ones in each pass.

    Args:
        labels: whole numbers `(count,)`.
        generator: decides.

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
