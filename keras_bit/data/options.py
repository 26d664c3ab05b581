"""The arguments of `keras_bit.image_dataset` that concern every source and both engines."""

import dataclasses
from collections.abc import Sequence

from keras_bit.images.processor import BitImageProcessor
from keras_bit.recipes.hyperrule import HyperRule
from keras_bit.recipes.recipe import CUT_MIX

UNLABELED = "unlabeled"  # of `label_mode`


@dataclasses.dataclass(frozen=True)
class Options:
    """The checked arguments.

    Args:
        rule: the rule of the training; `None` for evaluation.
        skip: whether to leave out images that cannot be read.
        engine: what reads the images, `"host"` or `"graph"`.
        augment, sampling: the values of the recipe, in training.
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
    augment: tuple[str, ...] = ()
    sampling: str | None = None

    @property
    def mixup_alpha(self) -> float:
        return 0.0 if self.rule is None else self.rule.mixup_alpha

    @property
    def mixes(self) -> bool:
        return self.mixup_alpha > 0

    @property
    def one_hot(self) -> bool:
        return self.label_mode == "categorical" or (self.mixes_labels and self.label_mode in (None, UNLABELED))

    @property
    def mixes_labels(self) -> bool:
        return self.mixes or CUT_MIX in self.augment

    @property
    def reading_processor(self) -> BitImageProcessor:
        """The processor that reads an image. Keras' layers take pixels in [0, 255], which are normalized after them."""
        if not self.augment:
            return self.processor
        return dataclasses.replace(self.processor, do_rescale=False, do_normalize=False)

    def size(self, known: tuple[int, int] | None) -> tuple[int, int] | None:
        """Returns the (height, width) of every result, or `None` if it depends on the image."""
        if self.rule is not None:
            return self.rule.crop_size, self.rule.crop_size
        unchanged = not (self.processor.do_resize or self.processor.do_center_crop)
        return known if unchanged else self.processor.fixed_size

    def check_labels(self, class_names: Sequence[str] | None, numbers: bool) -> None:
        """Refuses a form of labels that the source cannot give.

        Args:
            class_names: the class names of the source, if known.
            numbers: whether its labels are floats to predict.
        """
        if self.mixes_labels and not self.one_hot:
            how = "MixUp" if self.mixes else f"augment={CUT_MIX!r}"
            raise ValueError(f"`label_mode` must be None or 'categorical' for {how}, which mixes labels, got 'int'.")
        if numbers and CUT_MIX in self.augment:
            raise ValueError(
                f"`augment` must not contain {CUT_MIX!r} for labels that are numbers, because it mixes classes."
            )
        if numbers and self.label_mode is not None:
            raise ValueError(
                f"`label_mode` must be None for labels that are numbers to be predicted, got {self.label_mode!r}."
            )
        if self.one_hot and class_names is None and not numbers:
            raise ValueError(
                "`class_names` must be given for MixUp, CutMix and label_mode='categorical', which need one-hot "
                "labels, got None for a `source` whose number of classes is unknown."
            )
