"""Maps positions of the last feature map to places in the image."""

from keras_bit.network.config import BitConfig

STEM_STRIDE = 4  # px of the image between positions after the stem; each further stage doubles it


def of_last_map(config: BitConfig) -> tuple[int, float]:
    """Returns the stride between neighboring positions and the place of the first one, in pixels of the input.

    A position lies in the center of its receptive field; places count from the center of the first pixel. PyTorch's
    padding (`global_padding=None`) is the same on both sides, so position `i` is at `stride * i`, not in the center of
    the `i`-th tile. With SAME padding the paths through a block disagree, and their mean is near the center of the
    tile.
    """
    stride = max(min(STEM_STRIDE * 2 ** (len(config.depths) - 1), config.output_stride), STEM_STRIDE)
    return stride, 0.0 if config.global_padding is None else (stride - 1) / 2
