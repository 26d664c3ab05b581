"""The BiT-HyperRule: steps, image size and learning rate of fine-tuning, from the number and the size of the images."""

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_bit.counts import check_whole, is_whole
from keras_bit.recipes.layer_rates import factors

SMALL_AREA = 96 * 96  # pixels; smaller training images are "small"
SMALL_SIZES = (160, 128)  # px of small images: they are resized to the first and cropped to the second
LARGE_SIZES = (512, 480)
# Each row has the number of examples below which it counts, and its steps: the end of the warm-up, three drops of the
# rate, and the end.
STEPS = (
    (20_000, (100, 200, 300, 400, 500)),
    (500_000, (500, 3000, 6000, 9000, 10_000)),
    (None, (500, 6000, 12_000, 18_000, 20_000)),
)
MIXUP_EXAMPLES = 20_000  # MixUp is on from this number of examples on
MIXUP_ALPHA = 0.1
MOMENTUM = 0.9
RULES_BATCH_SIZE = 512
SCALINGS = (None, "linear")


@dataclasses.dataclass(frozen=True)
class HyperRule:
    """BiT's recipe for a data set.

    Examples:
        >>> rule = HyperRule(num_examples=50_000, image_size=32)
        >>> rule.resize_size, rule.crop_size, rule.total_steps, rule.mixup_alpha
        (160, 128, 10000, 0.1)

    It can be serialized with `dataclasses.asdict`: `HyperRule(**json.loads(json.dumps(dataclasses.asdict(rule))))`
    equals `rule`.

    Args:
        num_examples: number of training images.
        image_size: the training images' size in pixels, (height, width) or one number for a square; a typical size if
            they vary.
        batch_size: images in a step. The rule was made for 512.
        base_learning_rate: the rate after the warm-up for the rule's batches of 512.
        scaling: the effect of another `batch_size`. `None` is no effect, as in Google's code, which suggests a
            `base_learning_rate` of 0.001 for batches of 128. `"linear"` multiplies the rate by `batch_size / 512` and
            every boundary by `512 / batch_size`, so that the number of images and the effect of each stay the same
            (Goyal et al. 2017, "Accurate, Large Minibatch SGD"). Size and MixUp do not change.
        steps: the number of steps, instead of the rule's; the other boundaries scale with it. A warm-up of less than
            half a step is dropped, so that even one or two steps have the full rate.

    Raises:
        ValueError: an argument is not a positive number, or `scaling` is unknown.

    Source: google-research/big_transfer, `bit_hyperrule.py`.
    """

    num_examples: int
    image_size: tuple[int, int] | int
    batch_size: int = RULES_BATCH_SIZE
    base_learning_rate: float = 0.003
    scaling: str | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        size = self.image_size
        size = _pair(size) if is_whole(size) else size
        sides = size if isinstance(size, tuple | list) else ()
        if len(sides) != 2 or not all(is_whole(side) and side >= 1 for side in sides):
            raise ValueError(
                f"`image_size` must be (height, width) in whole pixels, or one number for a square, got "
                f"{self.image_size!r}."
            )
        object.__setattr__(self, "image_size", tuple(map(int, sides)))
        for name in ("num_examples", "batch_size", "steps"):
            value = getattr(self, name)
            if name == "steps" and value is None:
                continue
            check_whole(name, value)
            object.__setattr__(self, name, int(value))
        rate = self.base_learning_rate
        if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 < rate < float("inf"):
            raise ValueError(f"`base_learning_rate` must be a number above 0, got {rate!r}.")
        if self.scaling not in SCALINGS:
            raise ValueError(f"`scaling` must be one of {', '.join(map(repr, SCALINGS))}, got {self.scaling!r}.")

    @property
    def resize_size(self) -> int:
        """Height and width of resized training images, whatever their aspect ratio, in pixels."""
        return self._sizes[0]

    @property
    def crop_size(self) -> int:
        """Height and width of the random crop, and of evaluation images, in pixels."""
        return self._sizes[1]

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Steps at which the schedule changes: the end of the warm-up, the drops of the rate, and the end."""
        boundaries = next(steps for most, steps in STEPS if most is None or self.num_examples < most)
        factor = RULES_BATCH_SIZE / self.batch_size if self.scaling == "linear" else 1
        if self.steps is not None:
            factor = self.steps / boundaries[-1]
        warmup, *others = (round(boundary * factor) for boundary in boundaries)
        return (warmup, *(max(1, boundary) for boundary in others))

    @property
    def warmup_steps(self) -> int:
        """Steps until the learning rate reaches its maximum."""
        return self.boundaries[0]

    @property
    def total_steps(self) -> int:
        """Number of steps of the training."""
        return self.boundaries[-1]

    @property
    def mixup_alpha(self) -> float:
        """Parameter of MixUp's beta distribution; 0 means no MixUp."""
        return MIXUP_ALPHA if self.num_examples >= MIXUP_EXAMPLES else 0.0

    @property
    def learning_rate(self) -> float:
        """The rate after the warm-up, for this `batch_size`."""
        return self.base_learning_rate * (self.batch_size / RULES_BATCH_SIZE if self.scaling == "linear" else 1)

    def schedule(self) -> "HyperRuleSchedule":
        """Returns the learning rate by step."""
        return HyperRuleSchedule(self.learning_rate, self.boundaries)

    def optimizer(self, gradient_accumulation_steps: int | None = None) -> "MomentumSGD":
        """Returns stochastic gradient descent with the schedule and a momentum of 0.9, without weight decay.

        Args:
            gradient_accumulation_steps: batches per step, whose gradients are averaged, for machines that cannot hold
                `batch_size` images. Each batch then has a part of these images.
        """
        if gradient_accumulation_steps in (None, 1):
            return MomentumSGD(self.schedule(), momentum=MOMENTUM)
        schedule = HyperRuleSchedule(self.learning_rate, self.boundaries, gradient_accumulation_steps)
        return MomentumSGD(schedule, momentum=MOMENTUM, gradient_accumulation_steps=gradient_accumulation_steps)

    @property
    def _sizes(self) -> tuple[int, int]:
        height, width = _pair(self.image_size)
        return SMALL_SIZES if height * width < SMALL_AREA else LARGE_SIZES


@keras.saving.register_keras_serializable(package="keras_bit")
class HyperRuleSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to the base rate, then a tenth of the rate after each drop.

    For step `s`, from 0, and `boundaries` b0 ... bn: `base * s / b0` before b0; then `base / 10 ** k`, with k the
    number of b1 ... b(n-1) that are *below* s, so that the step at a boundary still has the old rate. Google's code
    stops at bn; here the last rate continues. It computes in float32, or in float64 if that is `keras.config.floatx()`.

    Args:
        base_learning_rate: the rate after the warm-up.
        boundaries: steps, increasing.
        batches_per_step: batches per step; Keras calls a schedule with the number of batches, even if the optimizer
            accumulates gradients (3.15: `Optimizer._get_current_learning_rate`).
    """

    def __init__(self, base_learning_rate: float, boundaries: tuple[int, ...], batches_per_step: int = 1) -> None:
        self.base_learning_rate = base_learning_rate
        self.boundaries = tuple(boundaries)
        self.batches_per_step = batches_per_step

    def __call__(self, step: Any) -> Any:
        step = ops.floor_divide(step, self.batches_per_step)
        # float32 is exact up to 16 million steps.
        step = ops.cast(step, "float64" if keras.config.floatx() == "float64" else "float32")
        first, *falls = self.boundaries[:-1]
        warming = self.base_learning_rate * (step / max(first, 1))
        rate = ops.where(step < first, warming, self.base_learning_rate)
        for count, boundary in enumerate(falls, start=1):
            rate = ops.where(step > boundary, self.base_learning_rate / 10**count, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "base_learning_rate": self.base_learning_rate,
            "boundaries": list(self.boundaries),
            "batches_per_step": self.batches_per_step,
        }


@keras.saving.register_keras_serializable(package="keras_bit")
class MomentumSGD(keras.optimizers.SGD):
    """SGD with PyTorch-style momentum, as in the original training: `v = momentum * v + g`, `w -= rate * v`.

    Keras' SGD computes `v = momentum * v - rate * g`, `w += v`. The two differ while the learning rate changes, as in a
    warm-up, because the old rate stays in `v`.

    Args:
        layer_rates: name of a stage to the factor of its learning rate; `None` if all have one rate.
        **arguments: arguments of `keras.optimizers.SGD`.

    Checked against torch 2.13 `torch.optim.SGD`.
    """

    def __init__(self, *arguments: Any, layer_rates: Mapping[str, float] | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.layer_rates = None if layer_rates is None else dict(layer_rates)

    def build(self, variables: Sequence[Any]) -> None:
        super().build(variables)
        # The factors are found here, because TensorFlow passes its own variables, without a path, to `update_step`.
        self._factors = factors(variables, self.layer_rates)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        learning_rate = ops.cast(learning_rate, variable.dtype)
        if self.layer_rates is not None:
            learning_rate = learning_rate * self._factors[self._get_variable_index(variable)]
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            # Under TensorFlow `ops.cast` of the momentum, a Python number, would make it float32 first. The operator
            # `*` takes it in the velocity's own type.
            self.assign(velocity, velocity * self.momentum + gradient)
            gradient = velocity * self.momentum + gradient if self.nesterov else velocity
        self.assign_sub(variable, gradient * learning_rate)

    def get_config(self) -> dict[str, Any]:
        # `layer_rates` is left out if it is `None`, so that earlier versions of keras_bit can open the file.
        rates = {} if self.layer_rates is None else {"layer_rates": self.layer_rates}
        return {**super().get_config(), **rates}


def _pair(size: tuple[int, int] | int) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)
