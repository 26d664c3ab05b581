"""What an export takes for one picture, beside what a user of the PyTorch model has: R50x1 at 224 px, random weights.

SavedModel            `keras_bit.export(model, path)`, its `serving_default`, as TF Serving runs it
TFLite                `format="tflite"` in LiteRT, all cores; int8 calibrated on the pictures that are measured
transformers          BitForImageClassification, eager in both memory formats, and by `torch.compile`
onnxruntime, openvino on transformers' own `torch.onnx.export`

Every process measures one of them, and they take turns. The logits are compared first: a fast wrong answer is an error.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import rounds_of
from benchmarks.report import Report, Row

PACKAGES = ("keras_bit", "tensorflow", "keras", "ai-edge-litert", "torch", "transformers", "onnxruntime", "openvino")
# Case to the packages that it needs.
OURS = {"SavedModel": (), "TFLite float32": ("ai_edge_litert",), "TFLite int8": ("ai_edge_litert",)}
PEERS = {
    "eager": ("torch", "transformers"),
    "eager, channels_last": ("torch", "transformers"),
    "torch.compile": ("torch", "transformers"),
    "onnxruntime": ("torch", "transformers", "onnxscript", "onnxruntime"),
    "openvino": ("torch", "transformers", "onnxscript", "openvino"),
}
# Of ours, of the peers' (the fastest of several counts), and the largest ratio.
TARGETS = (
    ("SavedModel", ("eager", "eager, channels_last"), 0.5),
    ("SavedModel", ("torch.compile",), 0.8),
    ("TFLite float32", ("onnxruntime",), 0.95),
    ("TFLite float32", ("openvino",), 0.85),
    ("TFLite int8", ("TFLite float32",), 0.45),
)
LIMIT = 1e-3  # of the largest logit, for everything in float32
WARM_UP = 3  # runs; `torch.compile` compiles in the first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="processes of each case (default: 3)")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="runs in each process (default: 30)")


def run(options: argparse.Namespace) -> Report:
    from keras_bit.config import ARCHITECTURES

    config = next(architecture.config for architecture in ARCHITECTURES if architecture.title == "BiT50")
    return measure(config, rounds=options.rounds, runs=options.runs)


def measure(config: Any, *, rounds: int, runs: int, image_size: int = 224) -> Report:
    """Measures every case whose packages are installed; the targets are for R50x1 at 224 px on two cores or more."""
    from benchmarks import checkpoints

    if rounds < 1 or runs < 1:
        raise ValueError(f"`rounds` and `runs` must be at least 1, got {rounds} and {runs}.")
    installed = [name for name, packages in (OURS | PEERS).items() if all(map(importlib.util.find_spec, packages))]
    missing = sorted(
        {one for packages in (OURS | PEERS).values() for one in packages if not importlib.util.find_spec(one)}
    )
    notes = [f"Not installed: {', '.join(missing)}."] if missing else []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        folder = checkpoints.write(Path(scratch, "checkpoint"), config, image_size)
        batch = np.random.default_rng(0).uniform(-1, 1, (1, image_size, image_size, 3)).astype(np.float32)
        np.save(Path(scratch, "batch.npy"), batch)
        preparations = ["ours", *(["onnx"] if {"onnxruntime", "openvino"} & set(installed) else [])]
        rounds_of({f"prepare {one}": _case(f"prepare {one}", scratch, 1) for one in preparations}, 1)
        found = rounds_of({name: _case(name, scratch, runs) for name in installed}, rounds)
    expected = np.array(found["SavedModel"][0]["logits"])
    for name, measured in found.items():
        difference = np.abs(np.array(measured[0]["logits"]) - expected).max() / np.abs(expected).max()
        if "int8" not in name and difference > LIMIT:
            raise ValueError(f"{name} gives other logits than the SavedModel, by {difference:.1e} of the largest.")
        for one in measured:
            one["difference"] = float(difference)
            del one["logits"]
    notes.append(f"{folder.name}: {image_size} px, batch 1; medians of {rounds} processes with {runs} runs each.")
    return Report("Exported", "peer", rows(found), found, PACKAGES, notes)


def rows(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Row]:
    medians = {name: statistics.median(1e3 * one["median"] for one in measured) for name, measured in found.items()}
    shown = [Row(name, "ms", medians[name]) for name in OURS if name in medians]
    shown += [Row(name, "ms", None, medians[name]) for name in PEERS if name in medians]
    for ours, peers, limit in TARGETS:
        times = [medians[peer] for peer in peers if peer in medians]
        if ours in medians and times:
            name = "eager, the better" if len(peers) > 1 else peers[0]
            shown.append(Row(f"{ours} / {name}", "", medians[ours] / min(times), None, limit))
    return shown


# In a process of its own: `python -m benchmarks.exported CASE FOLDER RUNS`.


def _case(name: str, scratch: str | Path, runs: int) -> list[str]:
    return ["benchmarks.exported", name, str(scratch), str(runs)]


def prepare_ours(folder: Path) -> dict[str, Any]:
    import keras_bit

    model = keras_bit.from_pretrained(folder / "checkpoint", classifier_activation=None)
    batch = np.load(folder / "batch.npy")
    report = keras_bit.export(model, folder / "served")
    if importlib.util.find_spec("ai_edge_litert"):
        size = batch.shape[1]
        keras_bit.export(model, folder / "float32.tflite", "tflite", image_size=size)
        keras_bit.export(
            model, folder / "int8.tflite", "tflite", quantize="int8", representative_data=[batch], image_size=size
        )
    return {"bytes": report.bytes}


def prepare_onnx(folder: Path) -> dict[str, Any]:
    import torch

    picture = torch.from_numpy(np.load(folder / "batch.npy").transpose(0, 3, 1, 2).copy())
    torch.onnx.export(_Logits.of(folder), (picture,), folder / "reference.onnx", dynamo=True)
    return {}


class _Logits:
    @staticmethod
    def of(folder: Path) -> Any:
        """transformers' model with a tensor for an output."""
        import torch
        from transformers import BitForImageClassification

        model = BitForImageClassification.from_pretrained(folder / "checkpoint").eval()

        class Logits(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, pixel_values: Any) -> Any:
                return self.model(pixel_values).logits

        return Logits().eval()


def saved_model(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder / "served" / "1"))
    serve = loaded.signatures["serving_default"]
    serve.loaded = loaded  # a signature alone does not keep its variables
    return lambda batch: serve(pixel_values=tf.constant(batch))["logits"].numpy()


def tflite(folder: Path, file: str) -> Callable[[np.ndarray], np.ndarray]:
    import os

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / file), num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def call(batch: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given, batch)
        interpreter.invoke()
        return interpreter.get_tensor(taken)

    return call


def eager(folder: Path, channels_last: bool = False, compiled: bool = False) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    model = _Logits.of(folder)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=memory_format)
    if compiled:
        model = torch.compile(model)

    def call(batch: np.ndarray) -> np.ndarray:
        picture = torch.from_numpy(batch.transpose(0, 3, 1, 2)).contiguous(memory_format=memory_format)
        with torch.inference_mode():
            return model(picture).numpy()

    return call


def onnxruntime(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime as ort

    session = ort.InferenceSession(str(folder / "reference.onnx"), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch.transpose(0, 3, 1, 2).copy()})[0]


def openvino(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    import openvino as ov

    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.compile_model(str(folder / "reference.onnx"), "CPU", hints)
    return lambda batch: compiled(batch.transpose(0, 3, 1, 2).copy())[0]


CASES = {
    "SavedModel": saved_model,
    "TFLite float32": lambda folder: tflite(folder, "float32.tflite"),
    "TFLite int8": lambda folder: tflite(folder, "int8.tflite"),
    "eager": eager,
    "eager, channels_last": lambda folder: eager(folder, channels_last=True),
    "torch.compile": lambda folder: eager(folder, compiled=True),
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}


def main(arguments: Sequence[str]) -> None:
    name, folder, runs = arguments
    if name.startswith("prepare"):
        print(json.dumps({"prepare ours": prepare_ours, "prepare onnx": prepare_onnx}[name](Path(folder))))
        return
    batch = np.load(Path(folder, "batch.npy"))
    call = CASES[name](Path(folder))
    for _ in range(WARM_UP):
        logits = call(batch)
    times = []
    for _ in range(int(runs)):
        start = time.perf_counter()
        call(batch)
        times.append(time.perf_counter() - start)
    print(json.dumps({"median": statistics.median(times), "minimum": min(times), "logits": logits.tolist()}))


if __name__ == "__main__":
    main(sys.argv[1:])
