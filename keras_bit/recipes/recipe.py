"""How to fine-tune: the BiT-HyperRule and further choices, in one object that JSON can hold."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keras_bit.counts import check_whole, is_whole
from keras_bit.recipes.hyperrule import HyperRule

OPTIMIZERS = ("sgd", "adamw")
BALANCED = "balanced"
CUT_MIX = "cut_mix"
AUGMENTATIONS = ("rand_augment", CUT_MIX, "random_erasing")
EVERYTHING = "all"  # the value of `freeze_up_to` with which only the head is trained
VALIDATION = "val_"  # prefix of the validation metrics' names
LEARNING_RATE = 1e-4  # for AdamW, for batches of any size
WEIGHT_DECAY = 0.05
ClassWeight = str | Mapping[str | int, float] | None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A `HyperRule` with further choices, all off by default: `Recipe(rule)` trains as `rule` does.

    >>> rule = HyperRule(num_examples=500, image_size=32)
    >>> recipe = Recipe(rule, label_smoothing=0.1, early_stopping=3, keep_best="val_accuracy")
    >>> Recipe.from_dict(recipe.to_dict()) == recipe
    True

    `image_dataset(recipe=...)` applies the choices about images (`augment`, `sampling`), and `fine_tune(recipe=...)`
    the rest. Half precision is not part of a recipe: set it when you build the model (`keras.config.set_dtype_policy`).

    Args:
        rule: a `HyperRule`: the sizes of images, the number of steps, the warm-up, MixUp, and for `"sgd"` the learning
            rate.
        optimizer: `"sgd"`, the default: SGD with momentum and the schedule of the rule. Or `"adamw"`: Adam with
            decoupled weight decay, the warm-up of the rule, and then a cosine down to 0 at the last step.
        learning_rate: the highest learning rate of `"adamw"`, 1e-4 by default. For `"sgd"` pass it to the rule.
        weight_decay: the weight decay of `"adamw"`, 0.05 by default. Kernels decay; biases and norms do not.
        layer_decay: the ratio of a stage's learning rate to the next stage's, in (0, 1]. The head and the last norm
            have the full rate, the last stage `layer_decay` times it, the stem the lowest.
        class_weight: the weight of an image in the training loss: a dict from a class (its number or name) to a number
            above 0 (1 for other classes); or `"balanced"`, `images / (classes * images of the class)`, as in
            scikit-learn. A row of mixed labels counts `sum(row * weights)`.
        sampling: `"balanced"` shows every class equally often in each pass, however many images it has.
        label_smoothing: the share of each label that is spread over all classes, in [0, 1). It applies to the
            validation loss too.
        ema: the momentum of a moving average of the weights, in (0, 1), such as 0.999. The averaged weights are
            validated, and are the result.
        augment: names of Keras' layers, in the order in which they are applied before the normalization:
            `"rand_augment"`, `"cut_mix"`, `"random_erasing"`, with Keras' own default strengths.
        early_stopping: ends training after this many evaluations without a better value of `keep_best`, or of
            `"val_loss"`.
        keep_best: the name of a validation metric, such as `"val_accuracy"`: the result is the model with its best
            value. Losses and errors are best when low, other metrics when high.
        lora: rank of LoRA for every convolution (`enable_lora`). Kernels and norms are frozen; the head is trained as
            usual. `save_pretrained` writes merged kernels.
        freeze_up_to: the last stage that is frozen, `"stem"`, `"stage1"` ... or `"all"` for everything but the head.
            `keras_bit.freeze` does it.
        temperature: the divisor of the teacher's and the student's logits before they are compared, above 0. Above 1,
            less probable classes count more. Needs `fine_tune(teacher=...)`.

    Raises:
        ValueError: an argument is not as described above, or two contradict each other.

    Sources: Loshchilov and Hutter 2019 (AdamW); Clark et al. 2020, ELECTRA, and Bao et al. 2022, BEiT (`layer_decay`);
    Hu et al. 2022 (LoRA). Checked against torch's `AdamW`, scikit-learn's `compute_class_weight`, and torch's
    `CrossEntropyLoss`.
    """

    rule: HyperRule
    optimizer: str = "sgd"
    learning_rate: float | None = None
    weight_decay: float | None = None
    layer_decay: float | None = None
    class_weight: ClassWeight = None
    sampling: str | None = None
    label_smoothing: float = 0.0
    ema: float | None = None
    augment: Sequence[str] | None = None
    early_stopping: int | None = None
    keep_best: str | None = None
    lora: int | None = None
    freeze_up_to: str | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.rule, HyperRule):
            raise ValueError(f"`rule` must be a keras_bit.HyperRule, got {type(self.rule).__name__}.")
        _check_one_of("optimizer", self.optimizer, OPTIMIZERS)
        _check_one_of("sampling", self.sampling, (None, BALANCED))
        for name in ("learning_rate", "weight_decay"):
            if getattr(self, name) is not None and self.optimizer == "sgd":
                raise ValueError(
                    f"`{name}` must be None for optimizer='sgd', got {getattr(self, name)!r}: the HyperRule has a "
                    "`base_learning_rate` and no weight decay. Pass optimizer='adamw'."
                )
        _check_number("learning_rate", self.learning_rate, "above 0", lambda value: value > 0)
        _check_number("weight_decay", self.weight_decay, "of at least 0", lambda value: value >= 0)
        _check_number("layer_decay", self.layer_decay, "in (0, 1]", lambda value: 0 < value <= 1)
        _check_number("label_smoothing", self.label_smoothing, "in [0, 1)", lambda value: 0 <= value < 1)
        _check_number("ema", self.ema, "in (0, 1)", lambda value: 0 < value < 1)
        for name in ("early_stopping", "lora"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name))
        for name in ("keep_best", "freeze_up_to"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"`{name}` must be a string or None, got {value!r}.")
        _check_number("temperature", self.temperature, "above 0", lambda value: value > 0)
        for name, described in (("label_smoothing", "in [0, 1)"), ("temperature", "above 0")):
            if getattr(self, name) is None:
                raise ValueError(f"`{name}` must be a number {described}, got None.")
        object.__setattr__(self, "augment", _augmentations(self.augment))
        object.__setattr__(self, "class_weight", _class_weight(self.class_weight))
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        if self.keep_best is not None and not self.keep_best.startswith(VALIDATION):
            raise ValueError(
                "`keep_best` must be a metric of the validation, such as 'val_accuracy' or 'val_loss', got "
                f"{self.keep_best!r}."
            )
        if self.class_weight == BALANCED and self.sampling == BALANCED:
            raise ValueError(
                "`class_weight` and `sampling` must not both be 'balanced': rare classes would count twice. Choose one."
            )
        if self.lora is not None and self.freeze_up_to == EVERYTHING:
            raise ValueError(
                f"`lora` must be None with freeze_up_to='all', got {self.lora}: all convolutions would be frozen."
            )

    @property
    def watched(self) -> str | None:
        """The validation metric for `early_stopping` and `keep_best`."""
        return self.keep_best or (f"{VALIDATION}loss" if self.early_stopping else None)

    @property
    def mixes(self) -> bool:
        """Whether labels are mixed, so that they are rows with a number per class."""
        return self.rule.mixup_alpha > 0 or CUT_MIX in (self.augment or ())

    @property
    def choices(self) -> dict[str, Any]:
        """The choices that are not the default, without the rule, for JSON."""
        default = Recipe(self.rule).to_dict()
        return {name: value for name, value in self.to_dict().items() if value != default[name]}

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as a dictionary for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["rule"] = dataclasses.asdict(self.rule) | {"image_size": list(_sides(self.rule))}
        if self.augment is not None:
            values["augment"] = list(self.augment)
        if isinstance(self.class_weight, Mapping):  # a list of pairs, because a JSON key cannot be a number
            values["class_weight"] = [list(pair) for pair in self.class_weight.items()]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Returns the recipe of a dictionary from `to_dict`.

        Raises:
            ValueError: `values` has other keys, or values that `Recipe` refuses.
        """
        values = dict(values)
        _check_keys("Recipe", cls, values)
        rule = values.pop("rule", None)
        if isinstance(rule, Mapping):
            _check_keys("rule", HyperRule, rule)
            missing = [name for name in ("num_examples", "image_size") if name not in rule]
            if missing:
                raise ValueError(f"`rule` must have {' and '.join(missing)}, got {', '.join(rule) or 'nothing'}.")
            rule = HyperRule(**rule)
        return cls(rule, **values)


def _sides(rule: HyperRule) -> tuple[int, int]:
    size = rule.image_size
    return size if isinstance(size, tuple) else (size, size)


def _check_keys(name: str, kind: type, values: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ValueError(
            f"`{name}` must have only the keys {', '.join(known)}, got {', '.join(map(repr, unknown))}. Remove them."
        )


def _check_one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    if value not in tuple(allowed):
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}.")


def _check_number(name: str, value: Any, described: str, fits: Callable[[float], bool]) -> None:
    """Refuses anything but `None` or a finite number in range."""
    if value is None:
        return
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not fits(value):
        raise ValueError(f"`{name}` must be a number {described}, got {value!r}.")


def _augmentations(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    found = (names,) if isinstance(names, str) else tuple(names)
    for name in found:
        _check_one_of("augment", name, AUGMENTATIONS)
    if len(set(found)) < len(found):
        raise ValueError(f"`augment` must name each layer once, got {', '.join(map(repr, found))}.")
    return found or None


def _class_weight(value: Any) -> ClassWeight:
    """Checks class weights: a dict from class to number, or `"balanced"`."""
    if value is None or value == BALANCED:
        return value
    pairs = value.items() if isinstance(value, Mapping) else value
    wanted = "`class_weight` must be None, 'balanced', or a dict from a class, its number or name, to a number above 0"
    if isinstance(value, str) or not isinstance(pairs, Iterable):
        raise ValueError(f"{wanted}; got {value!r}.")
    found: dict[str | int, float] = {}
    for pair in pairs:
        key: Any
        weight: Any
        key, weight = pair if isinstance(pair, tuple | list) and len(pair) == 2 else (pair, None)
        is_key = isinstance(key, str) or (is_whole(key) and key >= 0)
        is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not is_key or not is_number or not 0 < float(weight) < math.inf:
            raise ValueError(f"{wanted}; got {weight!r} for {key!r}.")
        found[key if isinstance(key, str) else int(key)] = float(weight)
    return found
