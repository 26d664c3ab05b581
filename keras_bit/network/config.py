"""Describes a BiT: `BitConfig` has the arguments of transformers' class of that name, and checks them."""

import dataclasses
import numbers
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_bit.files import keras_files
from keras_bit.hub import finding
from keras_bit.network import config_files, pretrained_arguments
from keras_bit.network.architectures import ARCHITECTURES
from keras_bit.network.config_files import CONFIG_NAME
from keras_bit.network.unnamed_labels import UnnamedIndices, UnnamedLabels

LAYER_TYPES = ("preactivation", "bottleneck")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
OUTPUT_STRIDES = (4, 8, 16, 32, 64)
ACTIVATIONS = ("relu", "gelu", "gelu_new", "selu")

# The largest value of each number. No machine holds a larger network, so a larger number is damage or a mistake.
# Without a limit it would fill the memory, or overflow, before it is compared with the weights.
LARGEST = {
    "num_channels": 2**12,  # satellite images have hundreds
    "embedding_size": 2**16,
    "hidden_sizes": 2**16,  # R152x4 has 8,192
    "depths": 2**10,  # in a stage; R152x4 has 36
    "num_groups": 2**16,
    "width_factor": 2**6,
    "num_labels": 2**24,  # an R50's head of this size has 137 GB
}
MOST_STAGES = 16  # each halves the image


class _Completed(tuple[Any, ...]):
    """Outputs that were completed, not given by the caller. A changed copy completes them again."""


_COMPLETED: Any = None  # the default of fields that `__post_init__` completes: they are never None afterwards


def make_divisible(width: float, divisor: int = 8) -> int:
    """Rounds `width` to a multiple of `divisor`, at most 10 % down (transformers' and timm's `make_div`)."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


@dataclasses.dataclass(frozen=True)
class BitConfig:
    """The architecture and the labels of a BiT, with transformers' names and defaults.

    Args:
        num_channels: channels of the input images.
        embedding_size: width of the stem, before `width_factor`.
        hidden_sizes: output width of each stage, before `width_factor`; a block's inner width is a quarter of it. If
            there are more widths than stages, the rest is unused, as in the stems of hybrid ViT and DPT.
        depths: number of blocks of each stage.
        layer_type: `"preactivation"` (BiT's own) or `"bottleneck"` (the stem of hybrid ViT and DPT).
        hidden_act: `"relu"`, `"gelu"` (exact), `"gelu_new"` (tanh form) or `"selu"`.
        global_padding: `None` (fixed, symmetric pads) or `"SAME"` (TensorFlow's rule), in upper or lower case.
        num_groups: groups of every group normalization; divides every width and a quarter of it.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first, in [0, 1).
        embedding_dynamic_padding: pads the stem's pool with zeros by TensorFlow's SAME rule.
        output_stride: 4, 8, 16 or 32 input pixels per output pixel. Below 32 the later stages have dilated
            convolutions instead of strides. 64 means the same as 32, because four stages have no further strides.
        width_factor: multiplies every width, including those of the stem and the head, as timm's and Google's code do.
            transformers widens only the stages, and crashes.
        out_features, out_indices: stages that `BitBackbone` returns, by name or by index (0 is the stem), in the
            network's order. If both are given, they must name the same stages. If one is left out or `None`, it follows
            from the other. The default is the last stage.
        num_labels: number of classes. The default is the length of `id2label`, or 1000 without it.
        id2label: class index to label. The default is `LABEL_0`, `LABEL_1` ... as in transformers, in a mapping that
            makes each label on access.
        label2id: label to class index. The default is the inverse of `id2label`. Without `id2label` it is ignored, as
            in transformers.
        problem_type: `None` or one of transformers' `single_label_classification`, `multi_label_classification`,
            `regression`; decides the activation of the head.
        output_hidden_states: whether `BitModel` and `BitForImageClassification` return `hidden_states`, unless a call
            says otherwise.
        return_dict: whether `BitModel`, `BitForImageClassification` and `BitBackbone` return an output object instead
            of a tuple, unless a call says otherwise.
        pretrained_arguments: further arguments of transformers' `PretrainedConfig`, such as `torch_dtype`. Pass them by
            their own names. They are kept for `to_dict` and change nothing.

    Raises:
        TypeError: an argument is unknown; the message gives the closest ones.
        ValueError: an argument is out of its range. Numbers are limited (`LARGEST`), because a file may hold any.

    Checked against transformers 5.23 `models/bit/configuration_bit.py`.
    """

    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: str = "preactivation"
    hidden_act: str = "relu"
    global_padding: str | None = None
    num_groups: int = 32
    drop_path_rate: float = 0.0
    embedding_dynamic_padding: bool = False
    output_stride: int = 32
    width_factor: int = 1
    out_features: tuple[str, ...] = _COMPLETED
    out_indices: tuple[int, ...] = _COMPLETED
    num_labels: int = _COMPLETED
    id2label: Mapping[int, str] = _COMPLETED
    label2id: Mapping[str, int] = _COMPLETED
    problem_type: str | None = None
    output_hidden_states: bool = False
    return_dict: bool = True
    pretrained_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("hidden_sizes", "depths", "out_features", "out_indices"):
            value = getattr(self, name)
            if isinstance(value, _Completed):
                value = None  # `dataclasses.replace` copied it from another object, so it is completed again
                object.__setattr__(self, name, value)
            if value is None and name.startswith("out_"):
                continue
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ValueError(f"`{name}` must be a list or a tuple, got {reprlib.repr(value)}.")
            # numpy's integers become Python's, which JSON can store
            whole = (
                item if isinstance(item, bool) or not isinstance(item, numbers.Integral) else int(item)
                for item in value
            )
            object.__setattr__(self, name, tuple(whole))
        for name in ("num_channels", "embedding_size", "num_groups", "output_stride", "width_factor", "num_labels"):
            if isinstance(number := getattr(self, name), numbers.Integral) and not isinstance(number, bool):
                object.__setattr__(self, name, int(number))
        if isinstance(self.global_padding, str):
            object.__setattr__(self, "global_padding", self.global_padding.upper())
        self._check_architecture()
        self._complete_outputs()
        self._complete_labels()
        object.__setattr__(self, "pretrained_arguments", pretrained_arguments.check(self.pretrained_arguments))

    @property
    def stem_width(self) -> int:
        """Number of channels of the stem, after `width_factor`."""
        return make_divisible(self.embedding_size * self.width_factor)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Number of channels of each stage, after `width_factor`."""
        return tuple(make_divisible(size * self.width_factor) for size in self.hidden_sizes[: len(self.depths)])

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stem and of the stages, in their order."""
        return ("stem", *(f"stage{stage}" for stage in range(1, len(self.depths) + 1)))

    @property
    def num_parameters(self) -> int:
        """Number of parameters: convolutions, norms and head."""
        incoming = self.stem_width
        total = 7 * 7 * self.num_channels * incoming
        norms = 0
        for depth, width in zip(self.depths, self.stage_widths, strict=True):
            inner = block_width(width)
            total += incoming * width  # the projection
            # Pre-activation blocks normalize their input; the others normalize their output and the projection's.
            norms += incoming + (depth - 1) * width if self.layer_type == "preactivation" else (depth + 1) * width
            norms += depth * 2 * inner
            total += incoming * inner + (depth - 1) * width * inner + depth * (9 * inner * inner + inner * width)
            incoming = width
        norms += incoming if self.layer_type == "preactivation" else self.stem_width
        return total + 2 * norms + (incoming + 1) * self.num_labels

    @property
    def has_named_labels(self) -> bool:
        """Whether `id2label` says more than `LABEL_0`, `LABEL_1` ..."""
        return self.id2label != UnnamedLabels(self.num_labels)

    def with_num_labels(self, num_labels: int) -> "BitConfig":
        """Returns the same architecture with `num_labels` classes. If the number changes, the labels become unnamed."""
        if num_labels == self.num_labels:
            return self
        return dataclasses.replace(self, num_labels=num_labels, id2label=_COMPLETED, label2id=_COMPLETED)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BitConfig":
        """Reads the dictionary of a transformers `config.json`; unknown keys are left out.

        Without `id2label` and `num_labels` it means 2 labels, as in transformers.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"`values` must be a dictionary, as of a config.json, got {type(values).__name__}.")
        known = [field.name for field in dataclasses.fields(cls) if field.name != pretrained_arguments.FIELD]
        return cls(**config_files.from_transformers(values, known))

    @classmethod
    def from_timm(cls, values: Mapping[str, Any]) -> "BitConfig":
        """Reads the dictionary of a `config.json` in timm's layout: `architecture`, `num_classes` and labels.

        `label_names`, with their `label_descriptions` if there are any, become `id2label`.

        Raises:
            ValueError: `architecture` is not one of timm's BiTs, or `model_args` describe a network that is not a BiT.
        """
        arguments = config_files.from_timm(values)
        try:
            return cls(**arguments)
        except ValueError as error:
            raise config_files.in_timms_words(error) from None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> "BitConfig":
        """Reads the `config.json` of a checkpoint: any `source` that `keras_bit.from_pretrained` takes.

        Raises:
            FileNotFoundError: the checkpoint does not exist, or has no configuration.
            OSError: the Hub cannot be reached, or refuses.
            ValueError: it is not JSON, belongs to another model type, or holds arguments that are out of range.
        """
        config = find_config(source, finding.HubOptions(revision, cache_dir, token, local_files_only))
        if config is None:
            raise missing_config(source)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Returns the dictionary of a `config.json` that transformers reads as the same configuration."""
        names = [field.name for field in dataclasses.fields(self) if field.name != pretrained_arguments.FIELD]
        values = config_files.to_transformers({name: getattr(self, name) for name in names})
        return {**values, **self.pretrained_arguments}

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `config.json` into `directory`, which is created if needed. A reader never sees half of the file."""
        config_files.write(self.to_dict(), directory)

    def _check_architecture(self) -> None:
        for name in ("num_channels", "embedding_size", "num_groups", "width_factor"):
            _check_count(name, getattr(self, name))
        for name in ("hidden_sizes", "depths"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must name at least one stage, got {getattr(self, name)}.")
            if len(getattr(self, name)) > MOST_STAGES:
                raise ValueError(f"`{name}` must name at most {MOST_STAGES} stages, got {len(getattr(self, name))}.")
            for value in getattr(self, name):
                _check_count(name, value)
        if len(self.hidden_sizes) < len(self.depths):
            raise ValueError(
                "`hidden_sizes` must have an entry for each of the stages that `depths` has, got "
                f"hidden_sizes={self.hidden_sizes} and depths={self.depths}."
            )
        _check_choice("layer_type", self.layer_type, LAYER_TYPES)
        _check_choice("hidden_act", self.hidden_act, ACTIVATIONS)
        _check_choice("output_stride", self.output_stride, OUTPUT_STRIDES)
        if self.global_padding == "VALID":
            raise ValueError(
                "`global_padding` 'valid' builds no network: without padding the 3x3 convolution shrinks its branch by "
                "two pixels and the residual sum no longer fits. Use None or 'SAME'."
            )
        _check_choice("global_padding", self.global_padding, (None, "SAME"))
        _check_choice("problem_type", self.problem_type, (None, *PROBLEM_TYPES))
        for name in ("embedding_dynamic_padding", "output_hidden_states", "return_dict"):
            _check_choice(name, getattr(self, name), (True, False))
        rate = self.drop_path_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
            raise ValueError(f"`drop_path_rate` must be a number of at least 0 and below 1, got {reprlib.repr(rate)}.")
        for width in (self.stem_width, *self.stage_widths, *map(block_width, self.stage_widths)):
            if width % self.num_groups:
                raise ValueError(
                    f"`num_groups` {self.num_groups} does not divide the width {width}: every width after "
                    f"`width_factor` (stem {self.stem_width}, stages {self.stage_widths}) and a quarter of every "
                    "stage's width must be a multiple of it."
                )
        self._check_outputs()

    def _check_outputs(self) -> None:
        names = self.stage_names
        for feature in self.out_features or ():
            _check_choice("out_features", feature, names)
        for index in self.out_indices or ():
            if isinstance(index, bool) or not isinstance(index, int) or not -len(names) <= index < len(names):
                raise ValueError(
                    f"`out_indices` must be whole numbers between {-len(names)} and {len(names) - 1} (0 is the stem), "
                    f"got {reprlib.repr(index)}."
                )
        positions = [names.index(feature) for feature in self.out_features or ()]
        indices = [index % len(names) for index in self.out_indices or ()]
        for argument, values in (("out_features", positions), ("out_indices", indices)):
            if values != sorted(set(values)):
                raise ValueError(
                    f"`{argument}` must name each stage once and in the network's order {names}, got "
                    f"{getattr(self, argument)}."
                )
        if self.out_features is not None and self.out_indices is not None and positions != indices:
            raise ValueError(
                f"`out_features` {self.out_features} and `out_indices` {self.out_indices} must name the same stages. "
                "Give only one of them."
            )

    def _complete_outputs(self) -> None:
        names = self.stage_names
        if self.out_features is None and self.out_indices is None:
            object.__setattr__(self, "out_features", _Completed(names[-1:]))
            object.__setattr__(self, "out_indices", _Completed((len(names) - 1,)))
        elif self.out_indices is None:
            object.__setattr__(self, "out_indices", _Completed(map(names.index, self.out_features or ())))
        elif self.out_features is None:
            object.__setattr__(self, "out_features", _Completed(names[index] for index in self.out_indices))

    def _complete_labels(self) -> None:
        named = self.id2label is not None and not isinstance(self.id2label, UnnamedLabels)
        id2label = _read_id2label(self.id2label) if named else {}
        num_labels = self.num_labels
        if num_labels is None:
            num_labels = len(id2label) if named else 1000 if self.id2label is None else len(self.id2label)
        _check_count("num_labels", num_labels, least=0)
        object.__setattr__(self, "num_labels", num_labels)
        if not named:
            if self.id2label is not None and len(self.id2label) != num_labels:
                raise ValueError(
                    f"`id2label` has {len(self.id2label)} labels, and `num_labels` is {num_labels}. Pass one of them."
                )
            object.__setattr__(self, "id2label", UnnamedLabels(num_labels))
            object.__setattr__(self, "label2id", UnnamedIndices(num_labels))
            return
        if len(id2label) != num_labels or any(index not in id2label for index in range(num_labels)):
            raise ValueError(
                f"`id2label` must name every class from 0 to {num_labels - 1} (`num_labels` is {num_labels}), got "
                f"{len(id2label)} labels for {_some(sorted(id2label))}."
            )
        id2label = {index: id2label[index] for index in range(num_labels)}
        inverse = {label: index for index, label in id2label.items()}
        object.__setattr__(self, "id2label", id2label)
        object.__setattr__(self, "label2id", inverse if self.label2id is None else read_label2id(self.label2id))


# mypy uses the constructor that `dataclass` writes.
BitConfig.__init__ = pretrained_arguments.accepting(BitConfig.__init__)  # type: ignore[method-assign]


def find_config(source: str | Path, options: finding.HubOptions) -> BitConfig | None:
    """Returns the configuration in the `config.json` of `source`; `None` if it has no such file.

    Raises:
        OSError: the source does not exist, or does not answer.
        ValueError: the file is not JSON, belongs to another model type, or holds arguments that are out of range.
    """
    path, values = _config_of(source, options)
    if path is None:
        return None
    if config_files.is_kerass(values):
        bit = config_files.from_keras(values)
        if bit is None:
            raise ValueError(
                f"`source` {str(source)!r} is not a BiT: {path.name} describes a {values['class_name']} of Keras that "
                "keras_bit did not build. `keras.saving.load_model` loads it."
            )
        values = bit
    timms = config_files.is_timms(values)
    values = values if timms else config_files.of_bit(values)
    if not timms and values.get("model_type") != "bit":
        raise ValueError(
            f"`source` {finding.shown(source)!r} is not a BiT: {path.name} has model_type "
            f"{values.get('model_type')!r}, expected 'bit'. Pass a checkpoint of BiT."
        )
    try:
        return BitConfig.from_timm(values) if timms else BitConfig.from_dict(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`source` {finding.shown(source)!r}: {path.name} does not describe a BiT: {error}") from error


def _config_of(source: str | Path, options: finding.HubOptions) -> tuple[Path | None, Mapping[str, Any]]:
    """Finds the file that describes the network and reads it: `config.json`, or a whole model that Keras wrote."""
    named = finding.named_file(source)
    if named is not None and named.endswith(keras_files.SUFFIXES):
        path = finding.find_file(source, (named,), options)
        values = None if path is None else keras_files.described_in(path)
        if values is not None:
            return path, values
    path = finding.find_file(source, (CONFIG_NAME,), options)
    return path, {} if path is None else finding.read_json(path)


def missing_config(source: str | Path, may_be_passed: bool = False) -> FileNotFoundError:
    """Returns the error for a source whose architecture is unknown.

    Args:
        may_be_passed: whether the caller takes `config=`, so that the message may advise it.
    """
    return FileNotFoundError(
        f"`source` {finding.shown(source)!r} has no {CONFIG_NAME}, so its architecture is unknown. Expected a "
        "checkpoint in transformers' or timm's layout (config.json and model.safetensors). For weights without a "
        "config.json, write one with "
        f"`BitConfig(...).save_pretrained(directory)`{', or pass `config=BitConfig(...)`' * may_be_passed}"
        f".{finding.remark(source)}"
    )


def block_width(stage_width: int) -> int:
    """Returns the inner width of a block: a quarter of its stage's width, rounded."""
    return make_divisible(stage_width / 4)


def _read_id2label(id2label: Any) -> dict[int, str]:
    # The keys are strings in JSON and numbers in Python.
    try:
        return {int(index): str(label) for index, label in id2label.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f'`id2label` must map class indices to labels, such as {{0: "cat", 1: "dog"}}, got '
            f"{reprlib.repr(id2label)}."
        ) from error


def read_label2id(label2id: Any) -> dict[str, int]:
    try:
        return {str(label): int(index) for label, index in label2id.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f'`label2id` must map labels to class indices, such as {{"cat": 0, "dog": 1}}, got '
            f"{reprlib.repr(label2id)}."
        ) from error


def _some(indices: list[int]) -> str:
    return str(indices) if len(indices) <= 6 else f"[{indices[0]}, {indices[1]}, ... {indices[-1]}]"


def _check_count(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        allowed = "a positive whole number" if least else "a whole number of at least 0"
        raise ValueError(f"`{name}` must be {allowed}, got {reprlib.repr(value)}.")
    if value > LARGEST[name]:
        raise ValueError(f"`{name}` must be at most {LARGEST[name]:,}, got {reprlib.repr(value)}.")


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    # The type is compared too: 32.0 and 1 equal 32 and True, but transformers refuses them in a config.json.
    if not any(isinstance(value, type(choice)) and value == choice for choice in allowed):
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {reprlib.repr(value)}.")


# Title to configuration, smallest first.
PUBLISHED = {row.title: BitConfig(depths=row.depths, width_factor=row.width_factor) for row in ARCHITECTURES}
