"""The engines that classify with a BiT: those of keras_bit and of the peers, each from the same checkpoint.

keras_bit, in Keras       `model.predict(batch)`; `model(batch)`; `tf.function` of the model; the last two also with the
                          fused model (`keras_bit.fuse`)
keras_bit, exported       the files that `keras_bit.export` writes: SavedModel; TFLite, run by LiteRT; ONNX, run by
                          onnxruntime; OpenVINO, one file for any size, the others for the size of the batch. All cores
                          run them. Files in int8 are calibrated on the batch that is measured
transformers              BitForImageClassification, eager in both memory formats, and with `torch.compile`
timm                      the same network in timm, eager in both memory formats
onnxruntime, openvino     run the file that `torch.onnx.export` makes of transformers' model: for the shape of the
                          batch, and in OpenVINO also for any size

One process prepares the files and another one reads them, so that preparation does not affect an engine's memory.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

    from keras_bit.network.model import BiTModel

Call = Callable[[np.ndarray], np.ndarray]  # (batch, height, width, 3) to logits


class Engine(NamedTuple):
    """One engine: `load` makes a function of the network in a folder, and needs `packages` and `preparation`.

    The logits of an `exact` engine are those of float32.
    """

    ours: bool
    load: Callable[[Path], Call]
    packages: tuple[str, ...] = ()
    preparation: str | None = None
    exact: bool = True


class Export(NamedTuple):
    """A file that `keras_bit.export` writes; a `sized` one is for the size of the batch that is measured."""

    format: str
    path: str
    quantize: str | None = None
    sized: bool = True

    @property
    def file(self) -> str:
        """The path of what an engine reads: of a SavedModel it is the version's directory."""
        return f"{self.path}/1" if self.format == "saved_model" else self.path


def available(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the engines of `names` whose packages are installed, and the missing packages of the others."""

    def missing(name: str) -> set[str]:
        return {package for package in ENGINES[name].packages if not importlib.util.find_spec(package)}

    return [name for name in names if not missing(name)], sorted(set().union(*map(missing, names)))


# Preparations. `folder` holds `checkpoint` and `batch.npy`; each function writes its files there.


def prepare_export(folder: Path, export: Export) -> None:
    import keras_bit

    batch = np.load(folder / "batch.npy")
    settings = {"image_size": batch.shape[1], "batch_size": len(batch)} if export.sized else {}
    examples = [batch] if export.quantize == "int8" else None
    path = folder / export.path
    keras_bit.export(
        _keras_model(folder), path, export.format, quantize=export.quantize, representative_data=examples, **settings
    )


def prepare_onnx_any(folder: Path) -> None:
    import torch

    sizes = torch.export.Dim
    free = {"pixel_values": {0: sizes("batch"), 2: sizes.AUTO, 3: sizes.AUTO}}
    batch = torch.zeros(2, 3, 224, 224)
    file = folder / "reference-any.onnx"
    torch.onnx.export(transformers_logits(folder), (batch,), file, dynamo=True, dynamic_shapes=free)


def prepare_onnx(folder: Path) -> None:
    import torch

    batch = torch.from_numpy(np.load(folder / "batch.npy").transpose(0, 3, 1, 2).copy())
    torch.onnx.export(transformers_logits(folder), (batch,), folder / "reference.onnx", dynamo=True)


# Engines.


def _keras_model(folder: Path, fused: bool = False) -> "BiTModel":
    import keras_bit

    return keras_bit.from_pretrained(folder / "checkpoint", classifier_activation=None, fused=fused)


def predict(folder: Path) -> Call:
    model = _keras_model(folder)
    return lambda batch: model.predict(batch, batch_size=len(batch), verbose=0)


def predict_64(folder: Path) -> Call:
    """Calls `predict` with 64 images, in batches; the measured time is for all 64."""
    model = _keras_model(folder)
    return lambda batch: model.predict(np.resize(batch, (64, *batch.shape[1:])), batch_size=len(batch), verbose=0)


def direct(folder: Path) -> Call:
    """Calls `model(batch)`, as `keras-bit classify` does for a few images."""
    model = _keras_model(folder, fused=True)
    return lambda batch: np.asarray(model(batch, training=False))


def compiled(folder: Path, fused: bool = False, jit_compile: bool = False) -> Call:
    import tensorflow as tf

    model = _keras_model(folder, fused)
    call = tf.function(lambda batch: model(batch, training=False), jit_compile=jit_compile)
    return lambda batch: call(tf.constant(batch)).numpy()


def exported(folder: Path, format: str, path: str) -> Call:
    """Runs a file that `keras_bit.export` wrote, on all cores."""
    from keras_bit.exporters import engines, machine

    return engines.ENGINES[format](folder / path, machine.threads()).call


def transformers_logits(folder: Path) -> "torch.nn.Module":
    """Returns transformers' model, wrapped so that its output is a tensor."""
    import torch
    from transformers import BitForImageClassification

    model = BitForImageClassification.from_pretrained(folder / "checkpoint").eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.model(pixel_values).logits

    return Logits().eval()


def timm_logits(folder: Path) -> "torch.nn.Module":
    import torch
    from safetensors.numpy import load_file
    from timm.layers import GroupNormAct, StdConv2d
    from timm.models.resnetv2 import ResNetV2

    from keras_bit import BitConfig
    from keras_bit.checkpoints.layouts import TIMM, TRANSFORMERS
    from keras_bit.network.weights import weights_of

    config = BitConfig.from_pretrained(folder / "checkpoint")
    model = ResNetV2(
        config.depths,
        config.stage_widths,
        num_classes=config.num_labels,
        stem_chs=config.stem_width,
        stem_type="fixed",
        conv_layer=StdConv2d,
        norm_layer=GroupNormAct,
    )
    tensors = load_file(folder / "checkpoint" / "model.safetensors")
    state = {}
    for weight in weights_of(config):
        theirs = TIMM.tensor_name(weight.layer, weight.variable)
        tensor = tensors[TRANSFORMERS.tensor_name(weight.layer, weight.variable)]
        state[theirs] = torch.from_numpy(tensor.reshape(TIMM.file_shape(theirs, weight.shape)))
    model.load_state_dict(state)
    return model.eval()


def torch_eager(
    folder: Path, model_of: "Callable[[Path], torch.nn.Module]", channels_last: bool = False, compiled: bool = False
) -> Call:
    import torch

    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = model_of(folder).to(memory_format=memory_format)
    if compiled:
        model = torch.compile(model)

    def call(batch: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(batch.transpose(0, 3, 1, 2)).contiguous(memory_format=memory_format)
        with torch.inference_mode():
            return model(image).numpy()

    return call


def reference(folder: Path, format: str, file: str = "reference.onnx") -> Call:
    """Runs the ONNX file of transformers' model, which takes channels first, on all cores."""
    call = exported(folder, format, file)
    return lambda batch: call(batch.transpose(0, 3, 1, 2).copy())


EXPORTS: Mapping[str, Export] = {
    "SavedModel": Export("saved_model", "served", sized=False),
    "TFLite float32": Export("tflite", "float32.tflite"),
    "TFLite float16": Export("tflite", "float16.tflite", "float16"),
    "TFLite dynamic": Export("tflite", "dynamic.tflite", "dynamic"),
    "TFLite int8": Export("tflite", "int8.tflite", "int8"),
    "ONNX": Export("onnx", "ours.onnx", sized=False),
    "ONNX int8": Export("onnx", "int8.onnx", "int8", sized=False),
    "OpenVINO": Export("openvino", "fixed.xml"),
    "OpenVINO float16": Export("openvino", "float16.xml", "float16"),
    "OpenVINO int8": Export("openvino", "int8.xml", "int8"),
    "OpenVINO, any size": Export("openvino", "any.xml", sized=False),
}
PREPARATIONS: Mapping[str, Callable[[Path], None]] = {
    **{name: partial(prepare_export, export=export) for name, export in EXPORTS.items()},
    "onnx": prepare_onnx,
    "onnx_any": prepare_onnx_any,
}
_NEEDED = {
    "tflite": ("ai_edge_litert",),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "onnxruntime", "openvino"),  # onnxruntime quantizes the file that OpenVINO reads
}
_TRANSFORMERS = ("torch", "transformers")
_TIMM = ("torch", "timm")
ENGINES: Mapping[str, Engine] = {
    "predict": Engine(True, predict),
    "predict, 64 images": Engine(True, predict_64),
    "direct call, fused": Engine(True, direct),
    "compiled": Engine(True, compiled),
    "compiled, fused": Engine(True, lambda folder: compiled(folder, fused=True)),
    "compiled, fused, XLA": Engine(True, lambda folder: compiled(folder, fused=True, jit_compile=True)),
    **{
        name: Engine(
            True,
            partial(exported, format=export.format, path=export.file),
            _NEEDED.get(export.format, ()),
            name,
            exact=export.quantize is None,
        )
        for name, export in EXPORTS.items()
    },
    "transformers": Engine(False, lambda folder: torch_eager(folder, transformers_logits), _TRANSFORMERS),
    "transformers, channels_last": Engine(
        False, lambda folder: torch_eager(folder, transformers_logits, channels_last=True), _TRANSFORMERS
    ),
    "torch.compile": Engine(
        False, lambda folder: torch_eager(folder, transformers_logits, compiled=True), _TRANSFORMERS
    ),
    "timm": Engine(False, lambda folder: torch_eager(folder, timm_logits), _TIMM),
    "timm, channels_last": Engine(False, lambda folder: torch_eager(folder, timm_logits, channels_last=True), _TIMM),
    "onnxruntime": Engine(
        False, lambda folder: reference(folder, "onnx"), (*_TRANSFORMERS, "onnxscript", "onnxruntime"), "onnx"
    ),
    "openvino": Engine(
        False, lambda folder: reference(folder, "openvino"), (*_TRANSFORMERS, "onnxscript", "openvino"), "onnx"
    ),
    "openvino, any size": Engine(
        False,
        lambda folder: reference(folder, "openvino", "reference-any.onnx"),
        (*_TRANSFORMERS, "onnxscript", "openvino"),
        "onnx_any",
    ),
}
