"""Exports a model of another backend, in a process with TensorFlow, from a `.keras` file."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.exporters import checked, processes
from keras_bit.exporters.job import Checks, Job
from keras_bit.images.processor import BitImageProcessor

# The documented errors of `export`, which the caller's process raises again. Others are a crash.
REPORTED = {kind.__name__: kind for kind in (ArithmeticError, ImportError, OSError, ValueError)}
CHARACTERS = 3000  # of the last output of a crashed process


def written(name: str, job: Job, path: Path, checks: Checks) -> tuple[float, float]:
    """Does `checked.written` on TensorFlow, compared with the model's outputs on its own backend.

    Raises:
        ValueError: the model has classes that only the caller's program knows; or as the format raises.
        RuntimeError: the process crashed.
    """
    with tempfile.TemporaryDirectory(prefix="job-", dir=path.parent) as folder:
        job.progress("saving the model for a process with TensorFlow")
        _save(Path(folder), name, job, path, checks)
        return _run(Path(folder), job.progress)


def _save(folder: Path, name: str, job: Job, path: Path, checks: Checks) -> None:
    job.model.save(folder / "model.keras")
    if job.processor is not None:
        job.processor.save_pretrained(folder)
    np.savez(folder / "batches.npz", *checks.batches)
    for index, outputs in enumerate(checks.expected):
        np.savez(folder / f"expected-{index}.npz", *outputs.values())
    if job.representative_data is not None:
        np.savez(folder / "representative_data.npz", *job.representative_data)
    options = {
        "name": name,
        "path": str(path.absolute()),
        "labels": job.labels,
        "quantize": job.quantize,
        "batch_size": job.batch_size,
        "image_size": job.image_size,
        "runtime": None if job.runtime is None else str(job.runtime.absolute()),
        "include_preprocessing": job.include_preprocessing,
        "outputs": [list(outputs) for outputs in checks.expected],
        "backend": keras.backend.backend(),
    }
    (folder / "job.json").write_text(json.dumps(options), encoding="utf-8")


def _run(folder: Path, progress: Callable[[str], None]) -> tuple[float, float]:
    # With this process' own search path. `-m` would need keras_bit in the working directory or installed, and a script
    # would put this directory first, where `onnx` and `openvino` are other modules.
    code = (
        f"import sys; sys.path[:] = {[str(entry) for entry in sys.path]!r}\n"
        f"from keras_bit.exporters import process; process.main({str(folder)!r})"
    )
    # The other backend may hold the accelerator's memory.
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    answer: dict[str, Any] = {}
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8") as answers, open(folder / "stderr", "wb") as stderr:
        try:
            child = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=writing,
                stderr=stderr,
                env=environment,
            )
        finally:
            os.close(writing)  # the child's end of the answers
        try:
            for line in answers:
                answer = json.loads(line)
                if "progress" in answer:
                    progress(answer["progress"])
            child.wait()
        finally:
            child.kill()
            child.communicate()  # which also closes its standard input
    if "error" in answer:
        kind, arguments = answer["error"]
        raise REPORTED[kind](*arguments)
    if "result" not in answer:
        raise RuntimeError(_crash(child.returncode, (folder / "stderr").read_text(encoding="utf-8", errors="replace")))
    difference, limit = answer["result"]
    return difference, limit


def _crash(code: int, said: str) -> str:
    return (
        f"The process with TensorFlow {processes.ended(code)}; nothing was kept. The end of its "
        f"output:\n{processes.without_start_up(said)[-CHARACTERS:].strip()}"
    )


def main(folder: str) -> None:
    """Runs in the other process: exports the model in `folder`, and answers in lines of JSON on standard output.

    `{"progress": line}` for every step; at the end `{"result": [difference, limit]}` or `{"error": [kind, arguments]}`.
    """
    processes.end_with_the_caller()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # other output must not look like an answer

    def answer(key: str, value: Any) -> None:
        print(json.dumps({key: value}), file=answers, flush=True)

    try:
        name, job, path, checks = _load(Path(folder), lambda line: answer("progress", line))
        answer("result", checked.written(name, job, path, checks))
    except tuple(REPORTED.values()) as error:
        kind = next(name for name, kind in REPORTED.items() if isinstance(error, kind))
        arguments: list[Any] = [str(error)]
        if isinstance(error, OSError) and error.strerror is not None:
            arguments = [error.errno, error.strerror, error.filename]
        answer("error", [kind, [value if isinstance(value, int | None) else str(value) for value in arguments]])


def _load(folder: Path, progress: Callable[[str], None]) -> tuple[str, Job, Path, Checks]:
    options = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        model = keras.saving.load_model(folder / "model.keras", compile=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`model` has classes that only your program knows, so the process with TensorFlow that the format "
            f"{options['name']!r} needs under the {options['backend']} backend cannot rebuild it. Save it with "
            "`model.save`, and export it in a program that has these classes and runs with KERAS_BACKEND=tensorflow. "
            f"Keras says: {_reason(error)}"
        ) from error
    size, labels = options["image_size"], options["labels"]
    data = folder / "representative_data.npz"
    job = Job(
        model=model,
        processor=BitImageProcessor.from_pretrained(folder) if (folder / "preprocessor_config.json").exists() else None,
        labels=None if labels is None else tuple(labels),
        quantize=options["quantize"],
        representative_data=_arrays(data) if data.exists() else None,
        batch_size=options["batch_size"],
        image_size=None if size is None else tuple(size),
        progress=progress,
        runtime=None if options["runtime"] is None else Path(options["runtime"]),
        include_preprocessing=options["include_preprocessing"],
    )
    expected = [
        dict(zip(names, _arrays(folder / f"expected-{index}.npz"), strict=True))
        for index, names in enumerate(options["outputs"])
    ]
    checks = Checks(_arrays(folder / "batches.npz"), expected)
    return options["name"], job, Path(options["path"]), checks


def _reason(error: Exception) -> str:
    """Returns Keras' message without the configurations that it prints."""
    return str(error).rpartition("Exception encountered: ")[2].partition(" Full object config: ")[0]


def _arrays(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return [file[f"arr_{index}"] for index in range(len(file.files))]
