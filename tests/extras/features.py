"""Runs the feature of an extra to its end: `python features.py EXTRA`, in an environment with only that extra.

It runs in a folder outside of any checkout. Next to that folder are copies of what the feature needs: the small
checkpoint as `bit`, and what `COPIED` in `__main__.py` names. Commands run as a user runs them, by the `keras-bit` of
this environment.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BIT = "bit"  # the small checkpoint, which knows CIFAR-10's classes
CLASSES = ("cat", "dog")
IMAGES = 3  # images of each class
SIDE = 40  # px, of an image
EXPORTED = {"tflite": "bit.tflite", "onnx": "bit.onnx", "openvino": "bit.xml", "web": "site"}


def photographs(folder: str = "photographs") -> Path:
    """Writes a folder for each class, with images of random numbers."""
    generator = np.random.default_rng(0)
    for name in CLASSES:
        Path(folder, name).mkdir(parents=True, exist_ok=True)
        for index in range(IMAGES):
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{name}/{index}.png")
    return Path(folder)


def command(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the command and returns what it printed."""
    return _run([str(Path(sys.executable).with_name("keras-bit")), *map(str, arguments)], code)


def module(*arguments: object) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", *map(str, arguments)], 0)


def _run(command: list[str], code: int) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def export(extra: str) -> None:
    command("export", "--weights", BIT, "--format", extra, "--out", EXPORTED[extra])
    written = Path(EXPORTED[extra])
    assert (written / "model.onnx" if extra == "web" else written).stat().st_size > 0


def own_models() -> None:
    """Imports the packages that Keras' exporters need; this extra installs no engine."""
    import scipy
    import tf2onnx

    assert scipy.__version__
    assert tf2onnx.__version__


def embed(*options: object) -> None:
    import pyarrow.parquet as parquet

    command("embed", photographs(), "--weights", BIT, "--out", "features", *options)
    rows = parquet.read_table("features").to_pylist()
    assert [row["label"] for row in rows] == [name for name in CLASSES for _ in range(IMAGES)]
    assert np.isfinite([row["features"] for row in rows]).all()


def evaluate() -> None:
    said = command("evaluate", photographs(), "--weights", BIT, "--out", "report")
    assert "matplotlib" not in said.stderr
    assert json.loads(Path("report/report.json").read_text(encoding="utf-8"))["images"] == len(CLASSES) * IMAGES
    for name in ("confusion.png", "calibration.png"):
        with Image.open(f"report/{name}") as chart:
            assert chart.width > 100


def tensorboard() -> None:
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

    options = ("--steps", 2, "--batch-size", 4, "--image-size", "32x32", "--track", "tensorboard")
    command("finetune", photographs(), "--weights", BIT, "--out", "tuned", *options)
    events = EventAccumulator("tuned/tensorboard/train").Reload()
    assert "epoch_loss" in events.Tags()[TENSORS]


def wandb() -> None:
    os.environ["WANDB_MODE"] = "offline"
    options = ("--steps", 2, "--batch-size", 4, "--image-size", "32x32", "--track", "wandb")
    command("finetune", photographs(), "--weights", BIT, "--out", "tuned", *options)
    assert list(Path("tuned/wandb").glob("offline-run-*/*.wandb"))


def mlflow() -> None:
    os.environ |= {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
    options = ("--steps", 2, "--batch-size", 4, "--image-size", "32x32", "--track", "mlflow")
    command("finetune", photographs(), "--weights", BIT, "--out", "tuned", *options)
    import mlflow as library

    (found,) = library.search_runs(output_format="list")
    assert (found.info.run_name, found.info.status) == ("tuned", "FINISHED")
    assert {"loss", "val_accuracy"} <= found.data.metrics.keys()
    assert found.data.params["options.steps"] == "2"


def compare(source: Any, **options: Any) -> None:
    """Checks that a source has the images and labels of the folder of `photographs()`, in any order."""
    np.testing.assert_array_equal(_rows(source, **options), _rows(str(photographs())))


def _rows(source: Any, **options: Any) -> np.ndarray:
    """Returns rows with the pixels and the label of an image, sorted by their numbers."""
    import keras_bit

    processor = keras_bit.BitImageProcessor.from_pretrained(BIT)
    batches = keras_bit.image_dataset(source, processor=processor, batch_size=4, **options).as_numpy_iterator()
    rows = [np.append(image, label) for images, labels in batches for image, label in zip(images, labels, strict=True)]
    return np.array(sorted(rows, key=lambda row: row.tolist()))


def datasets() -> None:
    import datasets as library

    photographs()
    names = [f"photographs/{name}/{index}.png" for name in CLASSES for index in range(IMAGES)]
    labels = [number for number in range(len(CLASSES)) for _ in range(IMAGES)]
    features = {"image": library.Image(), "label": library.ClassLabel(names=list(CLASSES))}
    compare(library.Dataset.from_dict({"image": names, "label": labels}, features=library.Features(features)))


def tensorflow_datasets() -> None:
    import tensorflow_datasets as library

    photographs("splits/train")
    compare(library.folder_dataset.ImageFolder("splits"), split="train")


def serving() -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    import loopback_serving

    command("export", "--weights", BIT, "--out", "served")
    requests = tf.data.TFRecordDataset("served/1/assets.extra/tf_serving_warmup_requests").as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(one).predict_log.request for one in requests]
    assert [one.model_spec.signature_name for one in logs] == ["serving_default", "serve_bytes"]
    image = photographs() / CLASSES[0] / "0.png"
    with loopback_serving.over_grpc("served/1") as address:
        served = command("classify", image, "--server", address, "--server-model", loopback_serving.MODEL, "--json")
    here = command("classify", image, "--weights", BIT, "--json")
    found, expected = ([one["label"] for one in json.loads(said.stdout)[0]["predictions"]] for said in (served, here))
    assert found == expected


def torch() -> None:
    import torch as library
    from safetensors.torch import load_file

    import keras_bit

    folder = _folder("of-torch")
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes(Path(BIT, name).read_bytes())
    library.save(load_file(Path(BIT, "model.safetensors")), folder / "pytorch_model.bin")
    found, expected = (keras_bit.from_pretrained(source).get_weights() for source in (folder, BIT))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def examine() -> None:
    said = command("probe", photographs(), "--weights", BIT, "--out", "probed", "--shots", "1")
    assert "ridge" in said.stdout
    assert json.loads(Path("probed/probe.json").read_text())["train_images"] == 4


def audit() -> None:
    said = command("audit", photographs(), "--weights", BIT, "--out", "audited")
    assert "images; " in said.stdout
    assert sum(json.loads(Path("audited/audit.json").read_text())["images"].values()) > 0


def demo() -> None:
    said = module("convert.demo", BIT, "--reference", f"{BIT}/golden.npz", "--out", "out")
    assert "run it without Keras" in said.stdout


def reference() -> None:
    module("convert", BIT, "--images", photographs() / CLASSES[0], "--out", "converted")
    assert Path("converted/model.keras").stat().st_size > 0


def none() -> None:
    """Tries the features that need no extra, and the messages of those that need one."""
    image = photographs() / CLASSES[0] / "0.png"
    command("classify", image, "--weights", BIT)
    command("export", "--weights", BIT, "--format", "huggingface", "--out", "transformers")
    assert "keras_bit[serving]" in command("export", "--weights", BIT, "--out", "served").stderr
    assert "keras_bit[plots]" in command("evaluate", photographs(), "--weights", BIT, "--out", "report").stderr
    refused = {
        "examine": ("probe", photographs(), "--weights", BIT),
        "audit": ("audit", photographs(), "--weights", BIT, "--out", "audited"),
        "parquet": ("embed", photographs(), "--weights", BIT, "--out", "features"),
        "ray": ("embed", photographs(), "--weights", BIT, "--out", "features", "--engine", "ray"),
        "tensorboard": ("finetune", photographs(), "--weights", BIT, "--out", "tuned", "--track", "tensorboard"),
        "wandb": ("finetune", photographs(), "--weights", BIT, "--out", "tuned", "--track", "wandb"),
        "mlflow": ("finetune", photographs(), "--weights", BIT, "--out", "tuned", "--track", "mlflow"),
        "serving": ("classify", image, "--server", "grpc://127.0.0.1:1", "--server-model", "bit"),
        **{extra: ("export", "--weights", BIT, "--format", extra, "--out", EXPORTED[extra]) for extra in EXPORTED},
    }
    for extra, arguments in refused.items():
        code, said = _in_this_process(*arguments)
        assert code == 1, extra
        assert f"keras_bit[{extra}]" in said, said


def _in_this_process(*arguments: object) -> tuple[int, str]:
    """Runs a command in this process, where TensorFlow is imported once; returns exit code and standard error."""
    from keras_bit.cli import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        return main.main([str(argument) for argument in arguments]), said.getvalue()


def readme() -> None:
    import page_code

    done = page_code.run([Path("README.md").absolute()], _folder("readme"))
    assert done.returncode == 0, done.stderr
    assert len(page_code.predictions(done.stdout)) == 3, done.stdout


def everything() -> None:
    """Runs the features of all its extras, each in its own process, to check that they do not conflict."""
    for name in ALL:
        _run([sys.executable, __file__, name], 0)


def _folder(name: str) -> Path:
    Path(name).mkdir(exist_ok=True)
    return Path(name)


FEATURES: dict[str, Callable[[], object]] = {
    "none": none,
    "readme": readme,
    "tflite": lambda: export("tflite"),
    "onnx": lambda: export("onnx"),
    "web": lambda: export("web"),
    "own-models": own_models,
    "openvino": lambda: export("openvino"),
    "parquet": embed,
    "ray": lambda: embed("--engine", "ray", "--workers", 2),
    "plots": evaluate,
    "tensorboard": tensorboard,
    "wandb": wandb,
    "mlflow": mlflow,
    "datasets": datasets,
    "tensorflow-datasets": tensorflow_datasets,
    "serving": serving,
    "examine": examine,
    "audit": audit,
    "torch": torch,
    "demo": demo,
    "reference": reference,
    "all": everything,
}
# The extras in `all`: those that a user's code and commands need.
ALL = (
    "datasets",
    "tensorflow-datasets",
    "plots",
    "tensorboard",
    "tflite",
    "parquet",
    "ray",
    "serving",
    "onnx",
    "web",
    "openvino",
    "examine",
    "audit",
    "own-models",
)


def main(name: str) -> None:
    import keras_bit

    # keras_bit comes from this environment, not from a checkout or another environment.
    assert Path(keras_bit.__file__).is_relative_to(sys.prefix), keras_bit.__file__
    FEATURES[name]()


if __name__ == "__main__":
    main(*sys.argv[1:])
