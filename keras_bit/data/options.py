"""The arguments of `keras_bit.image_dataset` that concern every source and both engines."""

import dataclasses

from keras_bit.hyperrule import HyperRule
from keras_bit.images.processor import BitImageProcessor


@dataclasses.dataclass(frozen=True)
class Options:
    """These, checked.

    Args:
        rule: of the training; `None` for evaluation.
        skip: whether to leave out images that cannot be read.
        engine: who reads, `"host"` or `"graph"`.
    """

    processor: BitImageProcessor
    batch_size: int
    rule: HyperRule | None = None
    seed: int | None = None
    skip: bool = False
    random_resized_crop: bool = False
    max_pixels: int | None = None
    drop_remainder: bool = False
    num_parallel_calls: int | None = None
    repeat: bool = False
    initial_step: int = 0
    shard: tuple[int, int] = (0, 1)
    label_mode: str | None = None
    engine: str = "host"

    @property
    def mixup_alpha(self) -> float:
        return 0.0 if self.rule is None else self.rule.mixup_alpha

    @property
    def mixes(self) -> bool:
        return self.mixup_alpha > 0

    @property
    def one_hot(self) -> bool:
        return self.label_mode == "categorical" or (self.mixes and self.label_mode is None)

    def size(self, known: tuple[int, int] | None) -> tuple[int, int] | None:
        """(height, width) of every result, or `None` where it depends on the image; of a source whose size is known."""
        if self.rule is not None:
            return self.rule.crop_size, self.rule.crop_size
        unchanged = not (self.processor.do_resize or self.processor.do_center_crop)
        return known if unchanged else self.processor.fixed_size
