"""Tests real photographs in the eight orientations and every format: every path of the package answers the same.

The oracle is `PIL.ImageOps.exif_transpose`: a turned file must give the same as its upright pixels.
"""

import functools
import http.server
import importlib.util
import io
import json
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import keras_bit
import loopback_serving
from command_line import TINY, open_tiny_once, run, tiny, tiny_processor
from conftest import absent
from convert import photographs
from image_files import collect
from keras_bit import BiTClassifier, BitImageProcessor, HyperRule, image_dataset
from keras_bit.exporters.openvino_package import core
from store import served
from tagged_files import HOST_TAGGED, TAGGED, stored

TAGS = range(1, 9)
# Photographs to a class of the network; two are enough, because each is stored in every format and orientation.
SHOWN = {"chelsea": "cat", "astronaut": "bird"}
# A crop of the middle, so that an image that lies is another one; and one that squeezes.
PROCESSORS = {
    "crop": BitImageProcessor(size=72, crop_size=(64, 40), resample=2, image_mean=0.5, image_std=0.5),
    "whole": BitImageProcessor(size=(48, 64), do_center_crop=False),
}
CLOSE = {"rtol": 0, "atol": 1e-5}  # of probabilities and features: float32 sums of batches of other sizes


class Row(NamedTuple):
    """A file of the table."""

    photograph: str
    kind: str
    tag: int
    path: Path
    upright: Image.Image

    @property
    def contents(self):
        return self.path.read_bytes()


def found_photographs():
    try:
        return [file for file in photographs.find([]) if file.stem in SHOWN]
    except ImportError:
        absent("scikit-image is not installed: pip install scikit-image")


def made(folder, kinds, side):
    """Returns the photographs in each format with each tag, which all look the same, and the upright pixels."""
    rows = []
    for file in found_photographs():
        image = Image.open(file).convert("RGB")
        image.thumbnail((side, side))
        # One that is higher than wide among others, and none that is square.
        image = image.crop((0, 0, image.width * 2 // 3, image.height)) if file.stem == "astronaut" else image
        for number, (kind, make) in enumerate(kinds.items()):
            for tag in TAGS:
                suffix = kind.split(",")[0].lower()
                path = folder / "turned" / SHOWN[file.stem] / f"{number:02d}-{tag}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(make(stored(image, tag), tag))
                upright = ImageOps.exif_transpose(Image.open(io.BytesIO(path.read_bytes()))).convert("RGB")
                assert upright.size == image.size
                rows.append(Row(file.stem, kind, tag, path, upright))
    return rows


def told(what, count):
    print(f"\n{what}: {count:,} answers are those of the upright image")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Makes small photographs, in the format of each decoder."""
    return made(
        tmp_path_factory.mktemp("few"), {kind: TAGGED[kind] for kind in ("JPEG, big endian", "PNG", "WebP")}, 96
    )


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)
def test_every_way_to_read_gives_the_pixels_of_the_upright_photograph(few, processor):
    reads_alike(few, processor)


def reads_alike(rows, processor):
    expected = processor([row.upright for row in rows])
    paths, labels = [row.path for row in rows], [0] * len(rows)
    np.testing.assert_array_equal(processor(paths), expected)
    np.testing.assert_array_equal(processor([row.contents for row in rows]), expected)
    data = image_dataset((paths, labels), processor=processor, batch_size=32)
    np.testing.assert_array_equal(collect(data)[0], expected)
    in_graph = [number for number, row in enumerate(rows) if row.kind in TAGGED]
    rows, expected = [rows[number] for number in in_graph], expected[in_graph]
    graph = tf.function(processor.tf_preprocess, input_signature=[tf.TensorSpec([], tf.string)])
    for row, one in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(graph(row.contents), one, err_msg=str(row[:3]))
    paths, labels = [row.path for row in rows], [0] * len(rows)
    data = image_dataset((paths, labels), processor=processor, batch_size=32, engine="graph")
    np.testing.assert_array_equal(collect(data)[0], expected)


# All formats.


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return made(tmp_path_factory.mktemp("table"), TAGGED | HOST_TAGGED, 320)


@pytest.fixture(scope="module")
def folder(table):
    """Returns the directory with a folder for each class, with the files of the table."""
    return table[0].path.parent.parent


@pytest.fixture(scope="module")
def upright(table, folder):
    """Writes the same names with upright pixels and without a tag."""
    for row in table:
        path = folder.parent / "upright" / row.path.relative_to(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        row.upright.save(path, "PNG")
    return folder.parent / "upright"


@pytest.fixture(scope="module")
def expected(table):
    """Returns the network's probabilities for the upright images."""
    values = tiny_processor()([row.upright for row in table])
    return np.concatenate([np.asarray(tiny()(values[start : start + 64])) for start in range(0, len(values), 64)])


@pytest.fixture(autouse=True)
def once(monkeypatch):
    open_tiny_once(monkeypatch)


def scores_of(rows):
    """Returns the probabilities that a command or a classifier gives each image, in the order of the classes."""
    classes = list(tiny().config.id2label.values())
    return np.array([[dict(row)[name] for name in classes] for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)
def test_every_reader_of_every_format_gives_upright_pixels(table, processor):
    reads_alike(table, processor)
    in_graph = sum(row.kind in TAGGED for row in table)
    told("processor(paths), processor(bytes), image_dataset", 3 * len(table))
    told("tf_preprocess, image_dataset(engine='graph')", 2 * in_graph)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["host", "graph"])
@pytest.mark.parametrize("random_resized_crop", [False, True])
def test_training_images_are_turned_before_they_are_cropped(table, upright, folder, engine, random_resized_crop):
    rows = [row for row in table if engine == "host" or row.kind in TAGGED]
    options = {
        "processor": PROCESSORS["whole"],
        "batch_size": 32,
        "training": True,
        "rule": HyperRule(500, 64),
        "seed": 3,
    }
    options |= {"engine": engine, "random_resized_crop": random_resized_crop}
    paths = [row.path for row in rows]
    shown = [upright / path.relative_to(folder) for path in paths]
    found, seen = (collect(image_dataset((files, [0] * len(rows)), **options))[0] for files in (paths, shown))
    np.testing.assert_array_equal(found, seen)
    told(f"training, {engine}", len(rows))


@pytest.mark.slow
def test_commands_and_classifier_answer_as_for_the_upright_image(capsys, table, folder, expected):
    code, out, _ = run(capsys, "classify", folder, "--weights", TINY, "--json", "--top", "10")
    assert code == 0
    results = {result["file"]: result["predictions"] for result in json.loads(out)}
    said = [[(one["label"], one["score"]) for one in results[str(row.path)]] for row in table]
    np.testing.assert_allclose(scores_of(said), expected, **CLOSE)
    classifier = BiTClassifier(tiny(), tiny_processor())
    for images in ([row.path for row in table], [row.contents for row in table]):
        np.testing.assert_allclose(classifier.predict(images), expected, **CLOSE)
        np.testing.assert_allclose(scores_of(classifier.classify(images, top=10)), expected, **CLOSE)
    told("classify, BiTClassifier.classify and .predict of paths and bytes", 5 * len(table))


@pytest.mark.slow
def test_an_address_is_read_as_its_file(capsys, table, folder, expected):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        names = [f"{address}/{row.path.relative_to(folder)}" for row in table]
        code, out, _ = run(capsys, "classify", *names, "--weights", TINY, "--json", "--top", "10")
        server.shutdown()
    assert code == 0
    said = [[(one["label"], one["score"]) for one in result["predictions"]] for result in json.loads(out)]
    np.testing.assert_allclose(scores_of(said), expected, **CLOSE)
    told("classify of http addresses", len(table))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.mark.slow
def test_an_evaluation_counts_as_of_the_upright_photographs(capsys, table, folder, upright, expected):
    found, seen = (
        json.loads(run(capsys, "evaluate", directory, "--weights", TINY, "--json")[1])
        for directory in (folder, upright)
    )
    classes = list(tiny().config.id2label.values())
    right = sum(classes[row.argmax()] == one.path.parent.name for row, one in zip(expected, table, strict=True))
    assert (found["images"], found["right"]) == (len(table), right)
    assert found["log_loss"] == pytest.approx(seen["log_loss"], abs=1e-6)
    assert found["confusions"] == seen["confusions"]
    told("evaluate", len(table))


@pytest.mark.slow
def test_embeddings_are_those_of_the_upright_photographs(table, folder, upright, tmp_path):
    if importlib.util.find_spec("pyarrow") is None:
        absent("pyarrow is not installed: pip install -e '.[parquet]'")
    import pyarrow.parquet as parquet

    from keras_bit.embedding import embed

    read = []
    for name, directory in (("turned", folder), ("upright", upright)):
        embed(directory, tmp_path / name, weights=str(TINY))
        rows = parquet.read_table(tmp_path / name)
        read.append((rows["path"].to_pylist(), np.stack(rows["features"].to_numpy())))
    assert read[0][0] == read[1][0]
    assert len(read[0][0]) == len(table)
    np.testing.assert_array_equal(read[0][1], read[1][1])
    told("embed", len(table))


@pytest.mark.slow
def test_sheets_and_heat_maps_show_the_upright_photographs(capsys, table, folder, upright, monkeypatch, tmp_path):
    sheets = []
    for directory in (folder, upright):
        monkeypatch.chdir(directory.parent)
        (directory.parent / "data").symlink_to(directory)  # the title names it
        for options in (("--evaluation",), ("--seed", "0", "--num-examples", "500", "--image-size", "64x64")):
            out = tmp_path / f"{directory.name}{len(options)}.png"
            arguments = ("data", "--out", out, "--weights", TINY, "--batch-size", len(table))
            assert run(capsys, "plot", *arguments, *options)[0] == 0
            sheets.append(np.asarray(Image.open(out)))
        (directory.parent / "data").unlink()
    np.testing.assert_array_equal(sheets[0], sheets[2])
    np.testing.assert_array_equal(sheets[1], sheets[3])
    kinds = ("JPEG, big endian", "PNG", "WebP", "TIFF")
    rows = [row for row in table if row.photograph == "chelsea" and row.kind in kinds]
    for row in rows:
        drawn = []
        for path in (row.path, upright / row.path.relative_to(folder)):
            code, said, _ = run(capsys, "explain", path, "--out", tmp_path / "heat.png", "--weights", TINY)
            assert code == 0
            drawn.append((said, np.asarray(Image.open(tmp_path / "heat.png"))))
        assert drawn[0][0] == drawn[1][0]
        np.testing.assert_array_equal(drawn[0][1], drawn[1][1], err_msg=str(row[:3]))
    told("plot, of training and of evaluation", 2 * len(table))
    told("explain", len(rows))


@pytest.mark.slow
def test_a_run_of_fine_tuning_is_that_of_the_upright_photographs(capsys, table, folder, upright, tmp_path):
    logs = []
    for directory in (folder, upright):
        out = tmp_path / directory.name
        options = ("--steps", "2", "--batch-size", "16", "--image-size", "64x64", "--seed", "1", "--on-error", "skip")
        assert run(capsys, "finetune", directory, "--weights", TINY, "--out", out, *options)[0] == 0
        (row,) = [line.split(",") for line in (out / "log.csv").read_text().splitlines()][-1:]
        logs.append([float(value) for value in row])
    # Images per second or such are not in it: the losses, the accuracies and the rate.
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    told("finetune", len(table))


@pytest.mark.slow
def test_a_saved_model_answers_as_for_the_upright_photograph(finished, table, expected):
    model = tf.saved_model.load(str(served(finished).path)).signatures["serve_bytes"]
    rows = [number for number, row in enumerate(table) if row.kind in TAGGED]
    for start in range(0, len(rows), 64):
        chosen = rows[start : start + 64]
        found = model(image_bytes=tf.constant([table[number].contents for number in chosen]))["probabilities"]
        np.testing.assert_allclose(found, expected[chosen], **CLOSE)
    told("serve_bytes of a SavedModel", len(rows))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_servers_client_is_answered_as_for_the_upright_photograph(capsys, finished, table, expected, protocol):
    if protocol == "grpc" and importlib.util.find_spec("tensorflow_serving") is None:
        absent("tensorflow-serving-api is not installed: pip install -e '.[serving]'")
    rows = [number for number, row in enumerate(table) if row.kind in TAGGED]
    names = [table[number].path for number in rows]
    with getattr(loopback_serving, f"over_{protocol}")(str(served(finished).path)) as address:
        code, out, _ = run(capsys, "classify", *names, "--server", address, "--json")
    assert code == 0
    found = [[one["score"] for one in result["predictions"]] for result in json.loads(out)]
    np.testing.assert_allclose(found, np.sort(expected[rows])[:, :-6:-1], **CLOSE)
    told(f"classify --server over {protocol}", len(rows))


def tflite(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path), num_threads=2).get_signature_runner()
    return lambda values: runner(pixel_values=values)["probabilities"]


def onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda values: session.run(["probabilities"], {"pixel_values": values})[0]


def openvino(path):

    # Where a processor has bfloat16, it would compute in that.
    model = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda values: model({"pixel_values": values})["probabilities"]


# Format to its file, what runs it, and the packages.
CLIENTS = {
    "tflite": ("bit.tflite", tflite, ("ai_edge_litert",)),
    "onnx": ("bit.onnx", onnx, ("onnx", "onnxruntime")),
    "openvino": ("bit.xml", openvino, ("openvino", "onnx")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIENTS)
def test_pixels_from_a_client_are_answered_as_for_the_upright_image(finished, table, expected, name):
    file, opened, packages = CLIENTS[name]
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        absent(f"{', '.join(missing)} not installed: pip install -e '.[all]'")
    path = finished(
        f"the trained checkpoint as {name}",
        lambda folder: keras_bit.export(tiny(), folder / file, name, processor=tiny_processor()).path,
    )
    ask = opened(path)
    found = np.concatenate([ask(tiny_processor()(row.path)) for row in table])
    np.testing.assert_allclose(found, expected, **CLOSE)
    told(f"{name}, which is given processor(path)", len(table))


@pytest.mark.data
@pytest.mark.slow
def test_command_and_data_set_agree_on_sixty_photographs(capsys, photos, tmp_path):
    """Takes photographs as a phone stores them, turned by a tag. On half of them the two disagreed once."""
    paths = []
    for number, photo in enumerate(photos[:60]):
        image = Image.open(photo).convert("RGB")
        paths.append(tmp_path / f"{number:02d}.jpg")
        kind = ("JPEG, big endian", "JPEG, little endian")[number % 2]
        paths[-1].write_bytes(TAGGED[kind](stored(image, 2 + number % 7), 2 + number % 7))
    assert len(paths) == 60
    _, out, _ = run(capsys, "classify", *paths, "--weights", TINY, "--json", "--top", "1")
    said = [result["predictions"][0] for result in json.loads(out)]
    classes = list(tiny().config.id2label.values())
    answers = {}
    for orientation in ("upright", "ignore"):
        processor = BitImageProcessor.from_pretrained(TINY, orientation=orientation)
        images, _ = collect(image_dataset((paths, [0] * 60), processor=processor, batch_size=20))
        scores = np.asarray(tiny()(images))
        answers[orientation] = [(classes[row.argmax()], row.max()) for row in scores]
    for (label, score), one in zip(answers["upright"], said, strict=True):
        assert (label, score) == (one["label"], pytest.approx(one["score"], abs=1e-5))
    as_stored = sum(label != one["label"] for (label, _), one in zip(answers["ignore"], said, strict=True))
    print(f"\n60 of 60 agree; with the pixels as they are stored {as_stored} have another label")
    assert as_stored > 0
