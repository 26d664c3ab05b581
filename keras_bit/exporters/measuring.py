"""The processes of `benchmark`: one exports a file, another runs it. `python -m keras_bit.exporters.measuring`.

    measuring export FOLDER NAME         writes FOLDER/NAME/... of FOLDER/model.keras, by FOLDER/NAME.json measuring run
    FOLDER NAME THREADS    loads it and measures

The answer is a line of JSON, the last one on standard output; an error is `{"error": [kind, message]}`.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.exporters import engines, processes

BATCH_SIZE = 8  # images per batch for the throughput and untimed calls, if the file takes them
WARM_UP = 2  # calls after the first
CALLS = 20  # calls for the median, and the seconds after which they stop
SECONDS = 4.0
RESULT = "top_1.npy"


def export(folder: Path, name: str) -> dict[str, Any]:
    """Writes the file, and returns its path and size."""
    import keras

    from keras_bit.exporters import exporting

    model = keras.saving.load_model(folder / "model.keras", compile=False)
    wanted = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    data = folder / "calibration.npy"
    images = np.load(data, mmap_mode="r")
    size = wanted["image_size"]
    report = exporting.export(
        model,
        folder / name / wanted["file"],
        wanted["format"],
        quantize=wanted["quantize"],
        representative_data=[images[at : at + BATCH_SIZE] for at in range(0, len(images), BATCH_SIZE)],
        image_size=None if size is None else tuple(size),
    )
    return {"path": str(report.path), "bytes": report.bytes, "max_abs_diff": report.max_abs_diff}


def run(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """Loads the file, classifies all images unless this is done, and returns the seconds of calls.

    The best class of each image is written next to the file, for the comparison.
    """
    wanted = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    engine = engines.ENGINES[wanted["format"]](Path(wanted["path"]), threads)
    images = np.load(folder / "images.npy", mmap_mode="r")
    many = engine.batch_size or BATCH_SIZE
    answered = folder / name / RESULT
    if not answered.exists():
        best = [_padded(engine, images[at : at + many]).argmax(1) for at in range(0, len(images), many)]
        answered.parent.mkdir(exist_ok=True)
        np.save(answered, np.concatenate(best))
    one = np.array(np.resize(images[:1], (engine.batch_size or 1, *images.shape[1:])))
    several = np.array(np.resize(images[:many], (many, *images.shape[1:])))
    latency, first = _seconds(engine.call, one)
    batch = latency if len(several) == len(one) else _seconds(engine.call, several)[0]
    return {
        "start": first,  # from the start of the process to the first answer
        "latency": latency,
        "batch": batch,
        "batch_size": many,
        "images_of_latency": len(one),
        "modules": [name for name in HEAVY if name in sys.modules],
    }


HEAVY = ("keras", "tensorflow", "jax", "torch", "ai_edge_litert", "onnxruntime", "openvino")


def _padded(engine: engines.Engine, batch: np.ndarray) -> np.ndarray:
    """Returns the scores of a batch, which may be smaller than the file's batch size."""
    whole = np.resize(batch, (engine.batch_size or len(batch), *batch.shape[1:]))
    scores = np.asarray(engine.call(np.array(whole)))[: len(batch)]
    if scores.shape[0] != len(batch) or scores.ndim != 2 or not np.isfinite(scores).all():
        raise ValueError(f"it gives scores of shape {scores.shape}, or NaN, for {len(batch)} images")
    return scores


def _seconds(call: engines.Call, batch: np.ndarray) -> tuple[float, float]:
    """Returns the median time of calls, and the seconds from the start of the process to the first answer."""
    call(batch)
    first = processes.since_start()
    for _ in range(WARM_UP):
        call(batch)
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < CALLS and (not times or time.perf_counter() < end):
        begin = time.perf_counter()
        call(batch)
        times.append(time.perf_counter() - begin)
    return statistics.median(times), first


def main(arguments: Sequence[str]) -> None:
    processes.end_with_the_caller()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # other output must not look like an answer
    what, folder, name, *rest = arguments
    measure: Callable[[], dict[str, Any]] = {
        "export": lambda: export(Path(folder), name),
        "run": lambda: run(Path(folder), name, int(rest[0])),
    }[what]
    try:
        answer = measure()
    except Exception as error:
        kind = "ImportError" if isinstance(error, ImportError) else type(error).__name__
        answer = {"error": [kind, str(error) or type(error).__name__]}
    print(json.dumps(answer), file=answers, flush=True)
    answers.close()
    os._exit(0)  # some engines hang or crash at exit, after the answer


if __name__ == "__main__":
    main(sys.argv[1:])
