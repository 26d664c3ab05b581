"""Loads a source: first its configuration, then its checkpoint, then its tensors, all of them or none."""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from keras_bit import versions, wording
from keras_bit.checkpoints import filling, keras_folder, sharded, tensorflow_files
from keras_bit.checkpoints.layouts import FILE_LAYOUTS, KERAS, Layout, recognized
from keras_bit.checkpoints.lazy import LazyTensor
from keras_bit.checkpoints.readers import open_saved
from keras_bit.files import keras_files
from keras_bit.files.damage import described
from keras_bit.hub import finding
from keras_bit.hub.finding import HubOptions
from keras_bit.network import outline
from keras_bit.network.config import PUBLISHED, BitConfig, find_config, missing_config
from keras_bit.network.layers import Activation
from keras_bit.network.model import BiTModel, Values, layers_in_front, network_layers
from keras_bit.network.plain_weights import plain_weights, quantized_layers
from keras_bit.network.weights import Weight

# The names of files of weights that are looked for, in order of preference.
WEIGHT_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.npz",
    "model.keras",
    "model.weights.h5",
    "model.weights.json",
    tensorflow_files.VARIABLES,
)

_INDICES = (".index.json", ".weights.json")  # the suffixes of indices of weights in several files


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The named tensors of local files.

    Args:
        source: the source, as the user named it.
        layout: the layout of the tensors' names and axes.
        tensors: name to tensor, whose numbers have not been read yet.
        files: the files that hold the tensors.
        config: the network; `None` if neither a file nor the tensors' shapes show it.
        head_activation: the head's activation; `"auto"` if the file does not name it.
        frozen: the names of the layers that are not trained.
        arguments: the arguments that messages may advise, as for `find`.
    """

    source: str
    layout: Layout
    tensors: dict[str, LazyTensor]
    files: tuple[Path, ...]
    config: BitConfig | None = None
    head_activation: Activation = "auto"
    frozen: tuple[str, ...] = ()
    arguments: Collection[str] = ()

    def known_config(self) -> BitConfig:
        """Returns `config`, or raises an error that says what is missing."""
        if self.config is None:
            raise missing_config(self.source, "config" in self.arguments)
        return self.config

    @property
    def head_classes(self) -> int | None:
        """The number of classes of the head's tensor; `None` without a head."""
        kernel = self.tensors.get(self.layout.tensor_name("predictions", "kernel"))
        bias = self.tensors.get(self.layout.tensor_name("predictions", "bias"))
        if kernel is None or not kernel.shape:
            return None
        if bias is not None and len(bias.shape) == 1 and bias.shape[0] in kernel.shape:
            return bias.shape[0]  # this is correct even if the kernel is transposed, which `read` then reports
        return kernel.shape[0] if self.layout.pytorch_axes else kernel.shape[-1]

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(tensor.shape)) for tensor in self.tensors.values())


@dataclasses.dataclass(frozen=True)
class Found:
    """A source whose configuration was read, but not its weights.

    Args:
        source: a source of a checkpoint, as `finding.find_file` takes it.
        options: the options of the download.
        config: the configuration in the `config.json`, or the caller's; `None` if neither is known.
        arguments: the `arguments` of `find`.
    """

    source: str | Path
    options: HubOptions
    config: BitConfig | None
    arguments: Collection[str] = ()

    def open(self, default: BitConfig | None = None) -> Checkpoint:
        """Finds the weights and reads the names and shapes of their tensors, but not the numbers.

        Args:
            default: the network, if `config`, a `.keras` file and the tensors' shapes do not show it.

        Raises:
            FileNotFoundError: `source` has no weights, or a shard is missing.
            OSError: the Hub cannot be reached, or refuses.
            ImportError: the file is a `pytorch_model.bin`, and torch is not installed.
            ValueError: the file is damaged, or of an unknown kind.
        """
        checkpoint = _open_weights(self.source, self.options)
        config = self.config or checkpoint.config or infer_config(checkpoint) or default
        return dataclasses.replace(checkpoint, config=config, arguments=self.arguments)


def find(
    source: str | Path, options: HubOptions, config: BitConfig | None = None, arguments: Collection[str] = ()
) -> Found:
    """Finds a source and its configuration, before any weights are downloaded.

    Args:
        source: a source of a checkpoint, as `finding.find_file` takes it.
        options: the options of the download.
        config: replaces the source's own, which is not read then.
        arguments: which of `config`, `include_top` and `classes` the caller's function has. Messages advise no others.

    Raises:
        OSError: the source does not exist, or the Hub cannot be reached, or refuses.
        ValueError: its `config.json` is not a BiT's.
    """
    if config is None and not _says_itself(source, options):
        config = find_config(source, options)
    return Found(source, options, config, arguments)


def _says_itself(source: str | Path, options: HubOptions) -> bool:
    """Returns whether `source` is a file of a whole model. A `config.json` in its folder may be of another model."""
    if str(source).endswith(".keras"):
        return True
    named = finding.named_file(source)  # `source` may be an address that continues after the file's name
    if named is None or not os.path.isfile(os.path.expanduser(str(source))):
        return (named or "").endswith(".keras")
    path = finding.find_file(source, (named,), options)
    return path is not None and keras_files.layers_in(path) is not None


def _open_weights(source: str | Path, options: HubOptions) -> Checkpoint:
    named = finding.named_file(source)
    names = WEIGHT_NAMES if named is None else (named,)
    path = finding.find_file(source, names, options)
    if path is None:
        raise FileNotFoundError(
            f"`source` {finding.shown(source)!r} holds no weights. These names were tried: "
            f"{', '.join(names)}.{'' if named else _under_other_names(source)}{finding.remark(source)}"
        )
    if path.suffix == ".keras" or keras_files.layers_in(path) is not None:
        return _open_keras(finding.shown(source), path)
    if keras_folder.holds(path):
        return dataclasses.replace(_open_keras(finding.shown(source), path.parent), files=(path,))
    if path.suffix == ".index":
        finding.find_file(source, (tensorflow_files.DATA,), options)  # the index needs this file next to it
    shards = sharded.shards(source, path, options) if path.suffix == ".json" else {path: []}
    # Tensors of a `.weights.h5` already have Keras' own names.
    saved = any(file.suffix in keras_files.HDF5 and not tensorflow_files.is_older_h5(file) for file in shards)
    tensors = dict(open_saved(path, shards)) if saved else sharded.merged(path, shards)
    layout = KERAS if saved else _layout(source, tensors)
    tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(layout.prefix)}
    return Checkpoint(finding.shown(source), layout, tensors, tuple(shards))


def _under_other_names(source: str | Path) -> str:
    """Returns advice about weights with other file names, as a sentence after a space; or an empty text."""
    place = finding.place_of(source)
    if not isinstance(place, Path):
        return " Pass a file of another name by its own address, '.../resolve/main/NAME' of the repository's page."
    if finding.run_of(place):
        return ""
    kinds = tuple(suffix for suffix in finding.FILE_SUFFIXES if suffix != ".json")
    found = sorted(file.name for file in place.iterdir() if file.name.lower().endswith((*kinds, *_INDICES)))
    found = [name for name in found if not re.search(r"-\d+-of-\d+\.", name)]  # a single shard is useless
    return (
        f" It has {wording.some(found)}: pass the path of the file, such as {str(place / found[0])!r}." if found else ""
    )


def infer_config(checkpoint: Checkpoint) -> BitConfig | None:
    """Returns the published architecture with the tensors' names and shapes; `None` if none has.

    Other networks are not guessed, because tensors do not show the activation, the padding or the number of groups: a
    wrong guess would load and give wrong numbers.
    """
    layout, tensors = checkpoint.layout, checkpoint.tensors

    def width(layer: str) -> int | None:
        tensor = tensors.get(layout.tensor_name(layer, "kernel"))
        return None if tensor is None or not tensor.shape else tensor.shape[0 if layout.pytorch_axes else -1]

    def depth(stage: int) -> int:
        return next(block for block in itertools.count() if width(f"stage{stage}_block{block}_conv3") is None)

    depths = tuple(itertools.takewhile(bool, map(depth, itertools.count(1))))
    widths = tuple(width(f"stage{stage}_block0_conv3") for stage in range(1, len(depths) + 1))
    for config in PUBLISHED.values():
        if (width("stem_conv"), widths, depths) == (config.stem_width, config.stage_widths, config.depths):
            return config.with_num_labels(checkpoint.head_classes or config.num_labels)
    return None


def refuse_larger(config: BitConfig, checkpoint: Checkpoint) -> None:
    """Refuses a configuration with far more parameters than the file holds, before such a network is built.

    `read` reports smaller differences, tensor by tensor.

    Raises:
        ValueError: the network would have twice the checkpoint's parameters and ten million more.
    """
    needed = config.with_num_labels(0).num_parameters
    if needed > 2 * checkpoint.parameters + 10_000_000:
        raise ValueError(
            f"The checkpoint {checkpoint.source!r} does not fit the model: it holds {checkpoint.parameters:,} "
            f"parameters and {_described_by(checkpoint)} describes a network of {needed:,} (stem "
            f"{config.stem_width}, stages {config.stage_widths}, depths {config.depths}). Nothing was loaded. Correct "
            "the configuration."
        )


def read(checkpoint: Checkpoint, weights: Iterable[Weight], ignored: Iterable[Weight] = ()) -> Values:
    """Reads and checks the tensors of `checkpoint` for these weights: all of them, or none.

    Args:
        checkpoint: the source of the tensors.
        weights: the weights that must be there, and no others except `ignored`.
        ignored: names that may be there, and are not read. A head is ignored if `weights` has none.

    Returns:
        Layer and variable name to the backend's tensor, in Keras' axis order: `model.build` takes them as `values`.

    Raises:
        ValueError: names, shapes, dtypes or values do not fit; the message lists every such tensor.
    """
    layout = checkpoint.layout
    try:
        expected = {layout.tensor_name(weight.layer, weight.variable): weight for weight in weights}
        unused = {layout.tensor_name(weight.layer, weight.variable) for weight in ignored}
    except KeyError as error:
        raise ValueError(
            f"The checkpoint {checkpoint.source!r} does not fit the model: {error.args[0]}. Nothing was loaded. "
            "Load it with the configuration that it was saved with."
        ) from error
    if not any(layout.is_head(name) for name in expected):
        unused |= {name for name in checkpoint.tensors if layout.is_head(name)}
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in unused}
    _refuse_misfits(checkpoint, {name: weight.shape for name, weight in expected.items()}, tensors)
    return _read_all(checkpoint, expected, tensors)


def _read_all(checkpoint: Checkpoint, expected: dict[str, Weight], tensors: dict[str, LazyTensor]) -> Values:
    dtype = keras.config.dtype_policy().variable_dtype
    # The largest tensors come first, so that at the end small ones keep every thread busy.
    order = sorted(expected, key=lambda name: -math.prod(expected[name].shape))

    def read(name: str) -> tuple[np.ndarray, str | None]:
        return _read(checkpoint, name, tensors[name], filling.aligned(expected[name].shape, dtype))

    found: Values = {}
    damaged: dict[str, str] = {}
    with contextlib.closing(filling.in_threads(read, order)) as results:
        names = tqdm(order, desc="load weights", unit="tensor", delay=2, leave=False)
        for name, (values, fault) in zip(names, results, strict=True):
            if fault:
                damaged[name] = f"{name} {fault}"
            elif not damaged:
                found[expected[name].layer, expected[name].variable] = filling.to_backend(values)
    if damaged:
        listed = "; ".join(damaged[name] for name in expected if name in damaged)
        raise ValueError(
            f"The checkpoint {checkpoint.source!r} is damaged: {listed}. Nothing was loaded. Fetch or save it again."
        )
    return found


def _refuse_misfits(checkpoint: Checkpoint, shapes: dict[str, tuple[int, ...]], tensors: dict[str, LazyTensor]) -> None:
    lines = []
    missing = [name for name in shapes if name not in tensors]
    if missing:
        lines.append(f"missing from the checkpoint ({len(missing)}): {', '.join(missing)}")
    unexpected = [name for name in tensors if name not in shapes]
    if unexpected:
        lines.append(f"not part of the model ({len(unexpected)}): {', '.join(unexpected)}")
    misshapen = []
    for name, shape in shapes.items():
        expected = checkpoint.layout.file_shape(name, shape)
        got = tensors[name].shape if name in tensors else expected
        if got != expected:
            transposed = sorted(got) == sorted(expected)
            misshapen.append(
                f"{name} expected {expected}, got {got}"
                + (" (transposed: the same sizes in another order)" * transposed)
            )
    if misshapen:
        lines.append(f"wrongly shaped ({len(misshapen)}): {'; '.join(misshapen)}")
    if lines:
        problems = "\n  ".join(lines)
        raise ValueError(
            f"The checkpoint {checkpoint.source!r} ({checkpoint.layout.title}) does not fit the model. Nothing was "
            f"loaded.\n  {problems}\n{_described_by(checkpoint).capitalize()} must describe the network that was saved."
            f"{_without_head(checkpoint, missing)}"
        )


def _described_by(checkpoint: Checkpoint) -> str:
    return "its config.json, or `config`," if "config" in checkpoint.arguments else "its config.json"


def _without_head(checkpoint: Checkpoint, missing: Collection[str]) -> str:
    """Returns advice about a head that is missing entirely, as a sentence after a space; or an empty text."""
    head = {checkpoint.layout.tensor_name("predictions", variable) for variable in ("kernel", "bias")}
    if not head <= set(missing) or "include_top" not in checkpoint.arguments:
        return ""
    return " For a checkpoint without a head use `include_top=False` or `classes=`."


def _read(checkpoint: Checkpoint, name: str, tensor: LazyTensor, values: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Reads a tensor into `values`, an array in Keras' axis order; returns it and what is wrong with it."""
    try:
        return values, filling.fill(checkpoint.layout.to_file(name, values), tensor)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise almost anything
        place = f" in {tensor.path}" if tensor.path and str(tensor.path) != checkpoint.source else ""
        raise ValueError(
            f"The tensor {name} of the checkpoint {checkpoint.source!r}{place} cannot be read: {described(error)}. "
            "Nothing was loaded. Fetch or save the file again."
        ) from error


def _layout(source: str | Path, names: Collection[str]) -> Layout:
    if layouts := recognized(names):
        if len(layouts) > 1:
            prefixes = wording.some(repr(layout.prefix) for layout in layouts)
            raise ValueError(
                f"`source` {finding.shown(source)!r} holds {len(layouts)} BiTs, whose names begin with {prefixes}. "
                "Save only the one that you need."
            )
        return layouts[0]
    looked_for = ", ".join(f"{layout.marker}* ({layout.title})" for layout in FILE_LAYOUTS)
    raise ValueError(
        f"`source` {finding.shown(source)!r} holds no BiT. Expected tensors {looked_for}; its names begin "
        f"{wording.some(names) or 'with nothing: it is empty'}.{finding.remark(source)}"
    )


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as opened:
        damaged = opened.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} in it does not match")


def _refuse_code(layers: str) -> None:
    """Refuses code: Keras would run a function in a file's config if its safe mode is off anywhere in the process."""
    waiting = [json.loads(layers)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("class_name") in ("__lambda__", "Lambda"):
                raise ValueError("it holds a Python function (lambda), which is never run")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _numbers(weight: Any) -> Callable[[], np.ndarray]:
    if isinstance(weight, keras.Variable):
        return weight.numpy  # Keras' `convert_to_numpy` would make TensorFlow warn about numpy 2
    return functools.partial(keras.ops.convert_to_numpy, weight)


def _open_keras(source: str, path: Path) -> Checkpoint:
    try:
        if path.is_dir():
            _refuse_code(keras_folder.description(path))
            model = keras_folder.load(path)
        else:
            if path.suffix == ".keras" and versions.is_older(keras.__version__, versions.CHECKS_KERAS_FILES):
                _check_zip(path)
            _refuse_code(keras_files.layers_in(path) or "{}")
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # the zip, JSON and HDF5 readers and every layer may raise anything
        raise ValueError(
            f"{path} is damaged, or not a model that Keras can load: {described(error)}. Fetch or save it again."
        ) from error
    if keras_files.is_classifier(model):
        model = model.model
    config = getattr(model, "config", None)
    if not isinstance(config, BitConfig):
        held = "network around a BiT" if isinstance(model, BiTModel) else type(model).__name__
        raise ValueError(
            f"{path} holds a {held}, expected a model that keras_bit built. `keras.saving.load_model` loads it as it "
            "is."
        )
    if in_front := layers_in_front(model):
        raise ValueError(
            f"{path} holds layers before BiT ({', '.join(in_front)}), which would be lost. Load the model with "
            "`keras.saving.load_model`."
        )
    if quantized := quantized_layers(model):
        raise ValueError(
            f"{path} holds a quantized model: {wording.some(quantized)}. Its weights before quantization are lost. "
            "Load it with `keras.saving.load_model`."
        )
    if changed := outline.differences(model):
        raise ValueError(
            f"{path} holds other layers than its `config` describes, and the differences would be lost: "
            f"{wording.some(changed, separator='; ')}. Load the model with `keras.saving.load_model`."
        )
    tensors = {
        KERAS.tensor_name(layer.name, name): LazyTensor(tuple(weight.shape), _numbers(weight), path=path)
        for layer in network_layers(model)
        for name, weight in plain_weights(layer).items()
    }
    frozen = tuple(layer.name for layer in network_layers(model) if layer.weights and not layer.trainable)
    head = next((layer for layer in model.layers if layer.name == "predictions"), None)
    activation = "auto" if head is None else head.activation
    return Checkpoint(source, KERAS, tensors, (path,), config, activation, frozen)
