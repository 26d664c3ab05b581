"""Fuzzes the files in the directory of a run, shards of embeddings, and TFRecord files."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fuzz.kinds import Kind, changed, damaged
from image_files import PROCESSOR, encoded, pixels, write_records
from keras_bit import image_dataset
from keras_bit.checkpoints import safetensors_file
from keras_bit.data import readable
from keras_bit.data.parts import Part
from keras_bit.files import claims
from keras_bit.training import progress, run_directory
from keras_bit.training.state import TrainingState

DESCRIBED = {
    "options": {
        "data": "pets",
        "weights": "google/bit-50",
        "hub": {"revision": None},
        "steps": 100,
        "on_error": "skip",
    },
    "plan": {"rule": {"batch_size": 8}, "class_names": ["a", "b"], "train_images": 7, "validation_digest": None},
}
ROWS = [{"step": 1, "learning_rate": 0.003, "loss": 1.5}, {"step": 2, "learning_rate": 0.001, "loss": 1.25}]


def _in_run(folder: Path, name: str) -> Path:
    """Returns the path of a file in a run that has begun."""
    state = folder / run_directory.STATE_FOLDER
    state.mkdir(exist_ok=True)
    (state / run_directory.STATE_NAME).touch()
    return state / name


def note(structured: bool) -> Callable[[Path], Kind]:
    """Makes a `run.json`."""

    def kind(folder: Path) -> Kind:
        def read(path: Path) -> Any:
            run_directory.check_same_run(DESCRIBED, folder)
            return "the same run"

        whole = json.dumps(DESCRIBED, indent=2).encode()
        inputs = changed(DESCRIBED) if structured else damaged(whole)
        return Kind(_in_run(folder, run_directory.RUN_NAME), whole, inputs, read, names=(str(folder),))

    return kind


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def state(structured: bool) -> Callable[[Path], Kind]:
    """Makes a `state.safetensors`, and writes the log in it as CSV."""

    def kind(folder: Path) -> Kind:
        model = _model()

        def read(path: Path) -> Any:
            found = TrainingState(path, 1, 2, rate_of=float, writes=False)
            found.set_model(model)
            found.on_train_begin()
            progress.write_log(found.rows, folder / "log.csv")
            return {variable.path: variable.numpy() for variable in model.variables} | {"rows": found.rows}

        written = TrainingState(folder / "written", 1, 2, rate_of=float)
        written.set_model(model)
        written.rows = ROWS[:1]
        written.on_epoch_end(1, {"loss": 1.25})
        whole = (folder / "written").read_bytes()

        def with_log(log: bytes) -> bytes:
            safetensors_file.write(
                {name: tensor.read() for name, tensor in safetensors_file.open_tensors(folder / "written")},
                folder / "changed",
                {"log": log.decode()},
            )
            return (folder / "changed").read_bytes()

        inputs = changed(ROWS, with_log) if structured else damaged(whole)
        return Kind(folder / run_directory.STATE_NAME, whole, inputs, read)

    return kind


def remembered(structured: bool) -> Callable[[Path], Kind]:
    """Makes an `images.json.gz`. A run continues without it if it cannot be read."""

    def kind(folder: Path) -> Kind:
        images = {"names": ["a.jpg", "b.jpg"], "left_out": ["c.jpg is empty."]}

        def read(path: Path) -> Any:
            found = run_directory.remembered_images(folder)
            if found is None:
                return None
            # As `planning` and `run` use it.
            gone = [name for name in found.names if name not in {"a.jpg"} and not os.path.lexists(name)]
            return [gone, sorted({"b.jpg"} - set(found.left_out)), sorted(set(found.left_out) - {"b.jpg"})]

        whole = gzip.compress(json.dumps(images).encode(), mtime=0)
        inputs = changed(images, gzip.compress) if structured else damaged(whole)
        return Kind(_in_run(folder, run_directory.IMAGES_NAME), whole, inputs, read)

    return kind


def looked_at(structured: bool) -> Callable[[Path], Kind]:
    """Makes a `readable.json`. It is written again if it cannot be read."""

    def kind(folder: Path) -> Kind:
        readable.LARGE = 1
        image = folder / "a.jpg"
        image.write_bytes(b"")
        part = Part(np.zeros(1, np.int32), [str(image)], None, lambda chosen: [str(image)], in_files=True)
        file = folder / run_directory.READABLE_NAME

        def read(path: Path) -> Any:
            found = readable.unreadable(part, whole=False, shown="", noted=path)
            return [
                {part.names[number]: line for number, line in found.items()},
                np.setdiff1d([0], list(found)).tolist(),
            ]

        read(file)
        whole = file.read_bytes()
        return Kind(file, whole, changed(json.loads(whole)) if structured else damaged(whole), read)

    return kind


def owner(structured: bool) -> Callable[[Path], Kind]:
    """Makes the note of the process that uses a directory. A note that is not valid has no effect."""

    def kind(folder: Path) -> Kind:
        from keras_bit.files import locks

        claimed = folder / "claimed"
        with claims.claimed(claimed, argument="out"):
            file = next(path for path in claimed.iterdir() if path.name == locks.OWNER_NAME)
            whole = file.read_bytes()
        claimed.mkdir(exist_ok=True)

        def read(path: Path) -> Any:
            with claims.claimed(claimed, argument="out"):
                pass
            claimed.mkdir(exist_ok=True)
            return "claimed"

        inputs = changed(json.loads(whole)) if structured else damaged(whole)
        return Kind(file, whole, inputs, read, names=(str(claimed),))

    return kind


def records(structured: bool) -> Callable[[Path], Kind]:
    """Makes a TFRecord file. If `structured`, its second record is damaged and has a right checksum."""

    def kind(folder: Path) -> Kind:
        file = folder / "a.tfrecord"
        write_records(file, [encoded(pixels(seed)) for seed in range(2)], [0, 1])
        whole = file.read_bytes()
        first, second = (record.numpy() for record in tf.data.TFRecordDataset(str(file)))

        def mend(damaged_record: bytes) -> bytes:
            with tf.io.TFRecordWriter(str(folder / "changed")) as writer:
                writer.write(first)
                writer.write(damaged_record)
            return (folder / "changed").read_bytes()

        def read(path: Path) -> Any:
            data = image_dataset([str(path)], processor=PROCESSOR, batch_size=2)
            return [[images.numpy().mean(), labels.numpy().tolist()] for images, labels in data]

        inputs = damaged(second, mend) if structured else damaged(whole)
        return Kind(file, whole, inputs, read, (ValueError, OSError, tf.errors.InvalidArgumentError))

    return kind


def parquet(folder: Path) -> Kind:
    """Makes a shard of embeddings that an earlier run wrote."""
    from keras_bit.embedding import shard_files
    from keras_bit.embedding.lists import list_images
    from keras_bit.hub.finding import HubOptions

    (folder / "pets").mkdir()
    (folder / "pets" / "a.png").write_bytes(encoded(pixels(0), "PNG"))
    images = list_images(str(folder / "pets"), folder / "list", 10)
    made_by = dict.fromkeys(shard_files.SAME, "x")
    job = shard_files.Job(images, folder, "google/bit-50", HubOptions(), 2, "skip", made_by)
    shard_files.write(job, 0, [0], np.ones((1, 4), np.float32), [])
    file = job.file(0)

    def read(path: Path) -> Any:
        found = shard_files.done(job)
        shard_files.join([path], folder / "joined", made_by)
        return found

    whole = file.read_bytes()
    return Kind(file, whole, damaged(whole), read)


def about_parquet(folder: Path) -> Kind:
    """Makes a shard of embeddings, and changes the JSON in it."""
    import pyarrow.parquet as pq

    from keras_bit.embedding import shard_files

    kind = parquet(folder)
    table = pq.read_table(kind.file)
    about = json.loads(table.schema.metadata[shard_files.METADATA])

    def mend(text: bytes) -> bytes:
        pq.write_table(table.replace_schema_metadata({shard_files.METADATA: text}), folder / "changed")
        return (folder / "changed").read_bytes()

    return Kind(kind.file, kind.whole, changed(about, mend), kind.read)


KINDS = {
    "run.json": note(structured=False),
    "run.json, values": note(structured=True),
    "state.safetensors": state(structured=False),
    "state's log, values": state(structured=True),
    "images.json.gz": remembered(structured=False),
    "images.json.gz, values": remembered(structured=True),
    "readable.json": looked_at(structured=False),
    "readable.json, values": looked_at(structured=True),
    "owner of a directory": owner(structured=False),
    "owner of a directory, values": owner(structured=True),
    "parquet": parquet,
    "parquet metadata, values": about_parquet,
}
RECORD_KINDS = {"tfrecord": records(structured=False), "tf.Example": records(structured=True)}
