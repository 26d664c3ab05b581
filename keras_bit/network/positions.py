"""Where in the image the positions of the last feature map lie."""

from keras_bit.network.config import BitConfig

STEM_STRIDE = 4  # px of the image to a position after the stem; each further stage doubles it


def of_last_map(config: BitConfig) -> tuple[int, float]:
    """The stride from one position of a row or column to the next, and the place of the first, in pixels of the input.

    A position lies in the middle of what it sees, before the edge of the image cuts it; places count from the middle of
    the first pixel. With PyTorch's padding (`global_padding=None`), which is the same on both sides, every stride keeps
    the first of its inputs as the middle, and so position `i` is at `stride * i`, not in the middle of the `i`-th tile.
    With the padding SAME the paths through a block disagree, and their mean is about the middle of the tile.
    """
    stride = max(min(STEM_STRIDE * 2 ** (len(config.depths) - 1), config.output_stride), STEM_STRIDE)
    return stride, 0.0 if config.global_padding is None else (stride - 1) / 2
