"""Tests an exported SavedModel behind a local `PredictionService`, under load.

It checks that answers are right, that refusals name the images that cannot be read, and that memory does not grow.

clients        Threads that send requests of 1 to 8 encoded images at the same time, by the client of `keras-bit
               classify --server`. The images are JPEG, PNG, GIF, BMP and WebP files of 12 to 900 px, in every
               orientation
rows           The labels and scores of every image are compared with those of the processor (which reads with Pillow)
               and the Keras model
corrupt ones   1 % of the images are corrupt. The server has to refuse a request with such an image, and to name the
               index and the reason of each corrupt image (of three at most). The client then sends the images of this
               request one by one, as the command does
memory         The resident set of the server's process is read once a second. The growth compares the median of the
               last quarter of the time after the warm-up with that of the first quarter

The server is a process of its own, with gRPC's threads around TensorFlow's signatures. It does not need TF Serving's
binary. This part needs the extra `serving`, and Linux to read the memory.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import arguments, prediction_service, serving_images
from benchmarks.processes import environment, memory
from benchmarks.report import Report, Row
from keras_bit import packages

PACKAGES = ("keras_bit", "tensorflow", "keras", "numpy", "grpcio", "tensorflow-serving-api")
IMAGES = 240  # readable images, from which the clients draw
MOST = 8  # images in a request, as many as `keras-bit classify` sends
TOLERANCE = 1e-5  # of a score; float32 rounds differently in batches of other sizes
WARM_UP = 0.4  # share of the time; TensorFlow keeps memory for every size that it has processed
GROWTH_LIMIT = 0.02  # share of the memory after the warm-up
KEPT = 5  # the report lists at most this many faults
PATIENCE = 30  # s, how long the server may take to end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_weights(parser, "checkpoint to export and serve")
    parser.add_argument(
        "--minutes", type=float, default=30.0, metavar="N", help="duration of the test (default: %(default)g)"
    )
    parser.add_argument(
        "--clients", type=int, default=8, metavar="N", help="clients that send at the same time (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of images and requests (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> Report:
    return measure(options.weights, seconds=60 * options.minutes, clients=options.clients, seed=options.seed)


@dataclasses.dataclass
class Counts:
    """The clients' results so far.

    Args:
        requests: number of requests that were answered or refused, with the single ones after a refusal.
        rows: number of images that were answered.
        wrong: a line for each answer that differs from the Keras model's.
        corrupt: number of corrupt images that were refused with their index and their reason.
        unnamed: a line for each corrupt image that was not.
        seconds: duration of each request.
    """

    requests: int = 0
    rows: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    corrupt: int = 0
    unnamed: list[str] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Pool:
    """The images for the clients.

    Args:
        readable: encoded images.
        scores: their scores from the processor and the Keras model, `(images, classes)`.
        labels: labels of the classes.
        corrupt: files that cannot be read.
    """

    readable: Sequence[bytes]
    scores: np.ndarray
    labels: Sequence[str]
    corrupt: Sequence[serving_images.Corrupt]


def measure(
    weights: str,
    *,
    seconds: float | None = None,
    requests: int | None = None,
    clients: int = 8,
    corrupt_share: float = 0.01,
    images: int = IMAGES,
    seed: int = 0,
) -> Report:
    """Exports a checkpoint, serves it, and sends requests until `seconds` have passed or `requests` are sent.

    Args:
        weights: checkpoint of a classifier, with its processor and its labels.
        seconds: how long to send; `None` for as long as `requests` take.
        requests: how many requests all clients send together; `None` for as many as `seconds` allow.
        clients: number of clients that send at the same time.
        corrupt_share: share of corrupt images.
        images: number of readable images from which the clients draw.
        seed: seed of images and requests.
    """
    import keras_bit

    if (seconds is None) == (requests is None) or not (seconds or requests) or clients < 1:
        raise ValueError(
            "Either `seconds` or `requests` must be given, above 0, and `clients` at least 1, got "
            f"{seconds!r}, {requests!r} and {clients!r}."
        )
    packages.require("tensorflow_serving", "serving", "A server")
    model = keras_bit.from_pretrained(weights)
    processor = keras_bit.BitImageProcessor.from_pretrained(weights)
    pool = make_pool(model, processor, images, seed)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        version = keras_bit.export(model, Path(folder) / "served", processor=processor).path
        with _server(version, clients) as (address, process):
            counts, memories, took = _load(
                address,
                process,
                pool,
                seconds=seconds,
                requests=requests,
                clients=clients,
                share=corrupt_share,
                seed=seed,
            )
    return Report(
        "Serving under load",
        "",
        rows(counts, memories, took),
        {
            "memory": [{"seconds": at, "bytes": size} for at, size in memories],
            "requests": [{"seconds": one} for one in counts.seconds],
            "wrong": [{"what": line} for line in counts.wrong],
            "unnamed": [{"what": line} for line in counts.unnamed],
        },
        PACKAGES,
        [
            *(f"WRONG: {line}" for line in [*counts.wrong, *counts.unnamed][:KEPT]),
            f"{clients} clients for {took / 60:.1f} minutes; {images} images, {100 * corrupt_share:g} % corrupt; seed "
            f"{seed}.",
        ],
    )


def rows(counts: Counts, memories: Sequence[tuple[float, int]], took: float) -> list[Row]:
    """Returns the rows of the table: the first two must be 0, and the memory must not grow."""
    first, last = growth(memories)
    milliseconds = [1e3 * one for one in counts.seconds] or [0.0]
    return [
        Row("rows that differ from the Keras model", "", len(counts.wrong), limit=0, details=f"of {counts.rows:,}"),
        Row(
            "corrupt images that were not named with a reason",
            "",
            len(counts.unnamed),
            limit=0,
            details=f"of {counts.corrupt + len(counts.unnamed):,}",
        ),
        Row("requests", "/s", counts.requests / took, details=f"{counts.requests:,} in {took / 60:.1f} minutes"),
        Row("time of a request, median", "ms", statistics.median(milliseconds)),
        Row("time of a request, 99th percentile", "ms", float(np.quantile(milliseconds, 0.99))),
        Row("memory of the server after the warm-up", "MB", first / 1e6),
        Row("memory of the server at the end", "MB", last / 1e6),
        Row("growth of the server's memory", "%", 100 * (last / first - 1), limit=100 * GROWTH_LIMIT),
    ]


def growth(memories: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Returns the median memory in the first and in the last quarter of the time after the warm-up."""
    start = WARM_UP * memories[-1][0]
    after = [size for at, size in memories if at >= start]
    quarter = max(len(after) // 4, 1)
    return statistics.median(after[:quarter]), statistics.median(after[-quarter:])


def make_pool(model: Any, processor: Any, images: int, seed: int) -> Pool:
    """Returns readable images with their scores from the processor and the Keras model, and corrupt images."""
    from keras_bit.evaluation import class_map

    found = serving_images.readable(images, seed)
    scores = np.concatenate([np.asarray(model(processor(found[at : at + MOST]))) for at in range(0, images, MOST)])
    broken = serving_images.corrupt(seed)
    for one in broken:
        try:
            processor([one.content])
        except ValueError:
            continue
        raise AssertionError(f"an image that should be corrupt ({one.reason}) is read by the processor")
    return Pool(found, scores, class_map.labels_of(model.config), broken)


def _load(
    address: str,
    process: Any,
    pool: Pool,
    *,
    seconds: float | None,
    requests: int | None,
    clients: int,
    share: float,
    seed: int,
) -> tuple[Counts, list[tuple[float, int]], float]:
    """Returns the clients' results, the server's memory `(seconds, bytes)`, and the duration."""
    counts, lock = Counts(), threading.Lock()
    begin = time.monotonic()
    end = begin + seconds if seconds is not None else float("inf")
    left = collections.deque(range(requests)) if requests is not None else None
    failed: queue.Queue[BaseException] = queue.Queue()

    def client(number: int) -> None:
        try:
            from keras_bit.exporters.serving_client import connect

            classify = connect(address, prediction_service.MODEL)
            generator = np.random.default_rng([seed, number])
            while time.monotonic() < end and failed.empty():
                if left is not None:
                    try:
                        left.popleft()
                    except IndexError:
                        return
                _ask(classify, _request(generator, pool, share), pool, counts, lock)
        except BaseException as error:
            failed.put(error)

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    memories = [(0.0, memory(process.pid))]
    while any(thread.is_alive() for thread in threads):
        threads[0].join(1.0)
        if not threads[0].is_alive():
            time.sleep(0.05)
        if process.poll() is not None:
            raise RuntimeError(f"The server ended with status {process.returncode}.")
        memories.append((time.monotonic() - begin, memory(process.pid)))
    if not failed.empty():
        raise RuntimeError(f"A client failed: {failed.get()!r}")
    return counts, memories, time.monotonic() - begin


def _request(generator: np.random.Generator, pool: Pool, share: float) -> list[int]:
    """Draws the images of a request: their places in the pool, or -1, -2 ... for corrupt ones."""
    count = int(generator.integers(1, MOST + 1))
    places = generator.integers(0, len(pool.readable), count)
    broken = -1 - generator.integers(0, len(pool.corrupt), count)
    return [int(place) for place in np.where(generator.random(count) < share, broken, places)]


def _ask(classify: Any, places: Sequence[int], pool: Pool, counts: Counts, lock: threading.Lock) -> None:
    """Sends one request; if it is refused, sends its images one by one."""
    from keras_bit.exporters.serving_client import ImageError

    images = [pool.corrupt[-1 - place].content if place < 0 else pool.readable[place] for place in places]
    start = time.perf_counter()
    answers, problems = None, {}
    try:
        answers = classify(images)
    except ImageError as error:
        problems = error.problems
    took = time.perf_counter() - start
    broken = [index for index, place in enumerate(places) if place < 0]
    with lock:
        counts.requests += 1
        counts.seconds.append(took)
        if answers is not None:
            counts.unnamed += [f"{pool.corrupt[-1 - places[index]].reason}: was answered" for index in broken]
            for index, (place, answer) in enumerate(zip(places, answers, strict=True)):
                if place >= 0:
                    _count(counts, fault(answer, pool.scores[place], pool.labels), f"image {place} at index {index}")
            return
        if not broken:
            counts.wrong.append(f"images {list(places)} were refused: {problems}")
            return
        _count_problems(counts, places, broken, problems, pool)
    if len(places) > 1:
        for place in places:
            _ask(classify, [place], pool, counts, lock)


def _count(counts: Counts, wrong: str | None, which: str) -> None:
    counts.rows += 1
    if wrong is not None:
        counts.wrong.append(f"{which}: {wrong}")


def _count_problems(
    counts: Counts, places: Sequence[int], broken: Sequence[int], problems: Mapping[int, str], pool: Pool
) -> None:
    """Checks that a refusal names exactly the corrupt images; of many, the graph only names the first ones."""
    from keras_bit.exporters.signatures import NAMED

    named = broken[:NAMED]
    for index in named:
        reason = pool.corrupt[-1 - places[index]].reason
        if problems.get(index, "").startswith(reason):
            counts.corrupt += 1
        else:
            counts.unnamed.append(f"{reason} at index {index}: the refusal says {dict(problems)}")
    counts.unnamed += [f"the refusal names index {index}, too" for index in problems if index not in named]


def fault(answer: Sequence[tuple[str, float]], scores: np.ndarray, labels: Sequence[str]) -> str | None:
    """Returns what is wrong with an answer, compared with the Keras model's `scores`; `None` if it is right.

    Labels with scores within the tolerance of each other may come in either order.
    """
    best = np.sort(scores)[::-1][: len(answer)]
    given = np.array([score for _, score in answer])
    own = [float(scores[labels.index(label)]) if label in labels else float("nan") for label, _ in answer]
    if len(answer) != min(5, len(labels)) or len({label for label, _ in answer}) < len(answer):
        return f"{len(answer)} labels: {answer}"
    difference = float(np.max(np.abs([given - best, given - own])))
    return None if difference <= TOLERANCE else f"{answer} is off by {difference:.2g}"


# The server is `python -m benchmarks.serving VERSION THREADS`; it ends when its standard input is closed.


@contextlib.contextmanager
def _server(version: Path, threads: int) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Starts a server within the context; yields its address and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving", str(version), str(threads)],
        env={**os.environ, **environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"The server ended with status {process.wait()} before it was ready.")
        yield json.loads(line)["address"], process
    finally:
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def main(arguments: Sequence[str]) -> None:
    import tensorflow as tf

    version, threads = arguments
    loaded = tf.saved_model.load(version)
    _warm_up(loaded, version)
    with prediction_service.over_grpc(dict(loaded.signatures), int(threads)) as address:
        print(json.dumps({"address": address}), flush=True)
        sys.stdin.read()


def _warm_up(loaded: Any, version: str) -> None:
    """Runs the requests that `export` wrote for the warm-up, as TF Serving does before it reports that it is ready."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from keras_bit.exporters.serving_files import WARMUP

    for record in tf.data.TFRecordDataset(str(Path(version) / WARMUP)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(values)) for name, values in request.inputs.items()}
        loaded.signatures[request.model_spec.signature_name](**inputs)


if __name__ == "__main__":
    main(sys.argv[1:])
