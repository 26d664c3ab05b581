"""Benchmarks every file that `export` writes for a model, in its engine, on this machine: agreement, size and speed.

Each file is written and run in its own processes, in turn. So engines do not share threads or memory, other load on the
machine affects all equally, and a crash is a row with its reason.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit import packages
from keras_bit.counts import check_whole
from keras_bit.exporters import arguments, benchmark_images, machine, measuring, processes
from keras_bit.exporters.benchmark_report import FAILED, KERAS, MEASURED, MISSING, UNSUPPORTED, Benchmark, Row
from keras_bit.exporters.registry import format_named
from keras_bit.images.processor import BitImageProcessor

# The formats for engines on this machine, and the file of each.
FILES = {"saved_model": "model", "tflite": "model.tflite", "onnx": "model.onnx", "openvino": "model.xml"}
ENGINES = {
    KERAS: "Keras",
    "saved_model": "TensorFlow",
    "tflite": "LiteRT",
    "onnx": "onnxruntime",
    "openvino": "OpenVINO",
}
ROUNDS = 3  # processes per file; the result is the median of their medians
EXPORT_PATIENCE, RUN_PATIENCE = 7200.0, 3600.0  # seconds after which an engine counts as failed
PACKAGES = ("keras_bit", "keras", "tensorflow", "jax", "torch", "ai-edge-litert", "onnxruntime", "openvino", "numpy")
VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS")
# Everything runs on the CPU, even if there is an accelerator.
ON_THE_PROCESSOR = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


@dataclasses.dataclass(frozen=True)
class _File:
    """A file to write: a format and its quantization."""

    format: str
    quantize: str | None

    @property
    def name(self) -> str:
        """The name of its directory, and in progress messages."""
        return f"{self.format}-{self.quantize or 'float32'}"


def benchmark(
    model: keras.Model,
    data: str | Path | None = None,
    *,
    processor: BitImageProcessor | None = None,
    formats: Sequence[str] | None = None,
    quantizations: Sequence[str | None] | None = None,
    num_images: int = 200,
    image_size: int | tuple[int, int] | None = None,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Exports a classifier to every format whose packages are installed, and runs each file on this machine.

    Every file runs on all CPU cores that this process may use, without an accelerator, from batches of the model's
    input to scores; preprocessing is not measured. Files have the defaults of `export`: TFLite is for one image of the
    images' size, the others for any batch and size unless `image_size` is given.

    Args:
        model: a model that `export` takes, with scores `(batch, classes)`; or a `BiTClassifier`.
        data: a directory with images, at any depth. If it has a folder per class of the model, as for `keras-bit
            evaluate`, accuracy is measured too. `None` uses random patterns.
        processor: how images become the model's input; needed for `data`.
        formats: one or more of "saved_model", "tflite", "onnx" and "openvino"; `None` is all.
        quantizations: the quantizations of each format; `None` is all. `int8` is calibrated on at most 128 images of
            `data`, other than the counted ones if there are enough.
        num_images: the number of images of `data` to use, evenly spread.
        image_size: a fixed size in pixels, an int or (height, width), of the images and of every file; `None` is the
            model's own, the processor's, or 224.
        rounds: processes in which each file is measured.
        progress: a function that is called with a line at the beginning of each step.

    Returns:
        A `Benchmark`, with a `Row` for the Keras model and for each file, and `advice` in one sentence.

    Raises:
        ValueError: an argument is out of its range, the model has no classes, or `data` holds no image.
        NotADirectoryError: `data` is not a directory.
        RuntimeError: the Keras model itself cannot be run in another process.

    Every other failure, including a killed process or a missing package, is a row with its reason.
    """
    say = progress or (lambda line: None)
    model, processor = arguments.taken_apart(model, processor)
    model = arguments.checked_model(model)
    _check_classifier(model)
    check_whole("num_images", num_images)
    check_whole("rounds", rounds)
    asked = arguments.checked_image_size(model, image_size)
    size = benchmark_images.size_of(model, processor, asked)
    wanted = _wanted(formats, quantizations)
    if data is None:
        say("making random patterns")
        images = benchmark_images.patterns(model, processor, size)
    elif processor is None:
        raise ValueError("`processor` must be given with `data`, to prepare the images.")
    else:
        arguments.check_processor(model, processor)
        say(f"reading images of {data}")
        images = benchmark_images.read(data, model, processor, num_images, size)

    rows: dict[_File, Row] = {}
    for file in wanted:
        if problem := _missing(file.format, model):
            rows[file] = Row(file.format, file.quantize, MISSING, problem)
        elif problem := format_named(file.format).refusal(model, file.quantize):
            rows[file] = Row(file.format, file.quantize, UNSUPPORTED, problem)
    with tempfile.TemporaryDirectory(prefix="keras-bit-benchmark-") as scratch:
        folder = Path(scratch)
        say("saving the model for other processes")
        model.save(folder / "model.keras")
        np.save(folder / "images.npy", images.pixels)
        np.save(folder / "calibration.npy", images.calibration)
        exported = _export(folder, [file for file in wanted if file not in rows], size, asked, rows, say)
        own = _File(KERAS, None)
        _describe(folder, own, {"path": str(folder / "model.keras")})
        measured = _run(folder, [own, *exported], rounds, rows, say)
        if own in rows:
            raise RuntimeError(f"The Keras model cannot be run in another process: {rows[own].reason}")
        answers = {file: np.load(folder / file.name / measuring.RESULT) for file in measured}
        sizes = {**exported, own: (folder / "model.keras").stat().st_size}
    for file, each in measured.items():
        rows[file] = _row(file, each, sizes[file], answers[file], answers[own], images.right)
    return Benchmark(
        rows=[rows[file] for file in (own, *wanted)],
        what=images.what,
        images=len(images.pixels),
        calibration_images=len(images.calibration),
        image_size=size,
        own_images=data is not None,
        machine=machine.machine(),
        versions=machine.versions(PACKAGES),
        environment={name: os.environ.get(name) for name in VARIABLES},
        notes=images.notes,
    )


def _check_classifier(model: keras.Model) -> None:
    shape: tuple[int | None, ...] = () if isinstance(model.output, dict) else model.output_shape
    if len(shape) != 2 or (shape[-1] or 0) < 2:
        raise ValueError(
            "`model` must give scores (batch, classes) of two classes or more, got outputs of shape "
            f"{shape or 'several names'}."
        )


def _wanted(formats: Sequence[str] | None, quantizations: Sequence[str | None] | None) -> list[_File]:
    for name in formats or ():
        if name not in FILES:
            raise ValueError(f"`formats` must hold only {', '.join(map(repr, FILES))}, got {name!r}.")
    found = [
        _File(name, quantize)
        for name in dict.fromkeys(FILES if formats is None else formats)
        for quantize in format_named(name).quantizations
        if quantizations is None or quantize in quantizations
    ]
    if not found:
        raise ValueError(f"`quantizations` must name one that a chosen format has, got {quantizations!r}.")
    return found


def _missing(name: str, model: keras.Model) -> str:
    """Returns what to install for a format; empty if its packages are installed."""
    writer = format_named(name)
    try:
        if writer.needs_tensorflow(model):
            packages.require_tensorflow(f"The format {name!r}")
        for package in writer.packages:
            packages.require(package, writer.name, f"The format {name!r}")
    except packages.MissingPackageError as missing:
        return str(missing)
    return ""


def _export(
    folder: Path,
    wanted: Sequence[_File],
    size: tuple[int, int],
    asked: tuple[int | None, int | None] | None,
    rows: dict[_File, Row],
    say: Callable[[str], None],
) -> dict[_File, int]:
    """Writes the files, and returns the bytes of each; `rows` gets the failures."""
    done: dict[_File, int] = {}
    for number, file in enumerate(wanted, 1):
        say(f"exporting {file.name} ({number} of {len(wanted)})")
        # TFLite always has a size, and its default may differ.
        fixed = size if file.format == "tflite" else asked
        (folder / file.name).mkdir()
        _describe(folder, file, {"file": FILES[file.format], "image_size": fixed})
        try:
            answer = processes.run(_case("export", folder, file, EXPORT_PATIENCE, {"KERAS_BACKEND": "tensorflow"}))
        except processes.ProcessError as error:
            rows[file] = _not_measured(file, error, "The process that exports it")
        else:
            done[file] = answer["bytes"]
            _describe(folder, file, {"path": answer["path"]})
    return done


def _run(
    folder: Path, files: Sequence[_File], rounds: int, rows: dict[_File, Row], say: Callable[[str], None]
) -> dict[_File, list[dict[str, Any]]]:
    """Measures the files in turn, and returns the results of each process; `rows` gets the failures."""
    named = {file.name: file for file in files}
    count = str(machine.threads())
    cases = {file.name: _case("run", folder, file, RUN_PATIENCE, {}, count) for file in files}
    failures: dict[str, processes.ProcessError] = {}
    turn = iter(range(1, rounds * len(files) + 1))
    found = processes.in_turn(
        cases,
        rounds,
        lambda name: say(f"measuring {name} (process {next(turn)} of at most {rounds * len(files)})"),
        failures,
    )
    for name, error in failures.items():
        engine = ENGINES[named[name].format]
        rows[named[name]] = _not_measured(named[name], error, f"The process that runs it in {engine}")
    return {named[name]: each for name, each in found.items() if name not in failures}


def _describe(folder: Path, file: _File, more: dict[str, Any]) -> None:
    """Writes the description of a file for `measuring`."""
    told = {"format": file.format, "quantize": file.quantize, **more}
    (folder / f"{file.name}.json").write_text(json.dumps(told), encoding="utf-8")


def _case(
    what: str, folder: Path, file: _File, patience: float, environment: dict[str, str], *more: str
) -> processes.Case:
    # With this process' own search path, and without the working directory (-P), where `onnx` may be another module.
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return processes.Case(
        ("-P", "-m", measuring.__name__, what, str(folder), file.name, *more),
        # The folder also holds the remains of a killed converter.
        environment={**ON_THE_PROCESSOR, **environment, "PYTHONPATH": path, "TMPDIR": str(folder)},
        patience=patience,
    )


def _not_measured(file: _File, error: processes.ProcessError, which: str) -> Row:
    """Returns the row of a file whose process failed or crashed."""
    status = MISSING if error.kind == "ImportError" else FAILED
    reason = f"{which} {error}" if error.kind is None else str(error)
    return Row(file.format, file.quantize, status, " ".join(reason.split()))


def _row(
    file: _File,
    measured: Sequence[dict[str, Any]],
    size: int,
    answers: np.ndarray,
    expected: np.ndarray,
    right: Sequence[tuple[int, ...]] | None,
) -> Row:
    def median(key: str) -> float:
        return statistics.median(one[key] for one in measured)

    many = measured[0]["batch_size"]
    accuracy = None
    if right is not None:
        accuracy = float(np.mean([best in classes for best, classes in zip(answers.tolist(), right, strict=True)]))
    return Row(
        format=file.format,
        quantize=file.quantize,
        status=MEASURED,
        bytes=size,
        agreement=float(np.mean(answers == expected)),
        accuracy=accuracy,
        latency=median("latency"),
        throughput=many / median("batch"),
        batch_size=many,
        start=median("start"),
    )
