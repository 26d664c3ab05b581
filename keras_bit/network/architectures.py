"""The published architectures, as a table with a row for each."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A published architecture.

    Args:
        title: its name as an application of this package.
        layers: depth and width in the notation of timm's and Google's names, such as `50x1`.
        depths: number of blocks of each stage.
        width_factor: the factor of every layer's width; the smallest architectures have 1.
    """

    title: str
    layers: str
    depths: tuple[int, ...]
    width_factor: int


ARCHITECTURES = (
    Architecture("BiT50", "50x1", (3, 4, 6, 3), 1),
    Architecture("BiT50x3", "50x3", (3, 4, 6, 3), 3),
    Architecture("BiT101", "101x1", (3, 4, 23, 3), 1),
    Architecture("BiT101x3", "101x3", (3, 4, 23, 3), 3),
    Architecture("BiT152x2", "152x2", (3, 8, 36, 3), 2),
    Architecture("BiT152x4", "152x4", (3, 8, 36, 3), 4),
)
