"""Lists the weights of a network by name and shape, from its configuration, without building it."""

from collections.abc import Iterator
from typing import NamedTuple

from keras_bit.network.config import BitConfig, block_width

HEAD = "predictions"  # the name of the layer that gives the logits


class Weight(NamedTuple):
    """A variable of the network: its layer's name, its own name, and its shape in Keras."""

    layer: str
    variable: str
    shape: tuple[int, ...]


def weights_of(config: BitConfig) -> Iterator[Weight]:
    """Lists every weight of the network, in its order.

    The head `predictions` comes last, if there are labels.
    """
    bottleneck = config.layer_type == "bottleneck"

    def norm(layer: str, width: int) -> tuple[Weight, Weight]:
        return Weight(layer, "gamma", (width,)), Weight(layer, "beta", (width,))

    incoming = config.stem_width
    yield Weight("stem_conv", "kernel", (7, 7, config.num_channels, incoming))
    if bottleneck:
        yield from norm("stem_norm", incoming)
    for stage, (depth, width) in enumerate(zip(config.depths, config.stage_widths, strict=True), start=1):
        inner = block_width(width)
        for block in range(depth):
            name = f"stage{stage}_block{block}"
            if block == 0:
                yield Weight(f"{name}_shortcut_conv", "kernel", (1, 1, incoming, width))
                if bottleneck:
                    yield from norm(f"{name}_shortcut_norm", width)
            kernels = (1, 1, incoming, inner), (3, 3, inner, inner), (1, 1, inner, width)
            for index, shape in enumerate(kernels, start=1):
                kernel = Weight(f"{name}_conv{index}", "kernel", shape)
                # Pre-activation blocks normalize a convolution's input, the others its output.
                if bottleneck:
                    yield from (kernel, *norm(f"{name}_norm{index}", shape[3]))
                else:
                    yield from (*norm(f"{name}_norm{index}", shape[2]), kernel)
            incoming = width
    if not bottleneck:
        yield from norm("norm", incoming)
    if config.num_labels:
        yield Weight(HEAD, "kernel", (incoming, config.num_labels))
        yield Weight(HEAD, "bias", (config.num_labels,))
