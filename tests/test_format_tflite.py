"""Tests exporters/tflite.py: every mode's file in LiteRT, what the file says about itself, and refusals."""

import collections
import importlib.util
import io
import zipfile

import keras
import numpy as np
import pytest

from conftest import absent
from keras_bit import BiT, BiTBackbone, BitConfig, BitImageProcessor, export, from_pretrained
from keras_bit.exporters import calibration_data, tflite, tflite_metadata
from keras_bit.exporters.job import Job
from keras_bit.exporters.registry import format_named
from store import TRAINED

# Two blocks, the second with a stride: every operator that a BiT is made of, at 32 px.
TINY = BitConfig(embedding_size=16, hidden_sizes=(32, 64), depths=(1, 1), num_groups=4)
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
PROCESSOR = BitImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False, **HALF)
TFLITE = format_named("tflite")
# Of the largest output. float32: other orders of the same sums; float16: weights of 11 bits. The others have steps of
# 1/255 of a range, layer after layer; what counts for them is the accuracy in benchmarks/.
SHARES = {None: 1e-5, "float16": 5e-3, "dynamic": 0.1, "int8": 0.2, "int8_full": 0.3}


@pytest.fixture(autouse=True, scope="module")
def _runtime():
    if importlib.util.find_spec("ai_edge_litert") is None:
        absent("ai-edge-litert is not installed: pip install -e '.[tflite]'")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return BiT(TINY, classes=5, classifier_activation=None)


@pytest.fixture(scope="module")
def images():
    """Returns smooth images, as photographs are, from -1 to 1."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(-1, 1, (16, 4, 4, 3)).astype(np.float32)
    fine = np.array(keras.ops.image.resize(coarse, (32, 32), interpolation="bilinear"))
    fine[0, 0, 0], fine[0, 0, 1] = -1, 1
    return fine


@pytest.fixture(scope="module")
def files(finished, model, images):
    """Returns a function from a mode to the report on its file. It writes a file when it is first asked for."""

    def write(folder, quantize):
        return export(
            model,
            folder / "bit.tflite",
            "tflite",
            processor=PROCESSOR,
            labels=list("abcde"),
            quantize=quantize,
            representative_data=[images[:10], images[10:]],
        )

    return lambda quantize: finished(f"two blocks as tflite {quantize}", lambda folder: write(folder, quantize))


def interpreter(path):
    """Opens a file without the delegate, which hides the operators of the graph."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    opened = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    opened.allocate_tensors()
    return opened


def run(opened, image):
    opened.set_tensor(opened.get_input_details()[0]["index"], image)
    opened.invoke()
    return opened.get_tensor(opened.get_output_details()[0]["index"])


def operators(opened):
    """Maps each operator to the types of its first output."""
    types = {tensor["index"]: tensor["dtype"].__name__ for tensor in opened.get_tensor_details()}
    found = collections.defaultdict(set)
    for operator in opened._get_ops_details():
        found[operator["op_name"]].add(types[operator["outputs"][0]])
    return found


def flatbuffer(path):
    from ai_edge_litert import schema_py_generated as schema

    return schema.Model.GetRootAs(path.read_bytes(), 0)


# What the modes are


@pytest.mark.parametrize("quantize", [None, "float16", "dynamic", "int8"])
def test_a_file_gives_what_the_model_gives_from_floats_to_floats(files, model, images, quantize):
    opened = interpreter(files(quantize).path)
    (taken,), (given,) = opened.get_input_details(), opened.get_output_details()
    assert (taken["dtype"], given["dtype"]) == (np.float32, np.float32)
    assert tuple(taken["shape"]) == tuple(taken["shape_signature"]) == (1, 32, 32, 3)
    expected = model.predict_on_batch(images)
    found = np.concatenate([run(opened, images[place : place + 1]) for place in range(len(images))])
    assert np.abs(found - expected).max() <= SHARES[quantize] * np.abs(expected).max()


def test_int8_full_takes_and_gives_uint8_with_the_files_scales(files, model, images):
    opened = interpreter(files("int8_full").path)
    (taken,), (given,) = opened.get_input_details(), opened.get_output_details()
    assert (taken["dtype"], given["dtype"]) == (np.uint8, np.uint8)
    scale, zero = taken["quantization"]
    assert scale == pytest.approx(2 / 255)  # of the images' range, from -1 to 1
    found = []
    for image in images:
        integers = np.clip(np.rint(image[None] / scale) + zero, 0, 255).astype(np.uint8)
        found.append((run(opened, integers).astype(np.float32) - given["quantization"][1]) * given["quantization"][0])
    expected = model.predict_on_batch(images)
    assert np.abs(np.concatenate(found) - expected).max() <= SHARES["int8_full"] * np.abs(expected).max()


@pytest.mark.parametrize("quantize", TFLITE.quantizations)
def test_every_file_is_of_tflites_own_operators(files, quantize):
    report = files(quantize)
    model = flatbuffer(report.path)
    codes = [model.OperatorCodes(place) for place in range(model.OperatorCodesLength())]
    assert [code.CustomCode() for code in codes if code.CustomCode()] == []
    found = operators(interpreter(report.path))
    assert {"CONV_2D", "MEAN", "RSQRT", "FULLY_CONNECTED"} <= set(found)
    assert not {"READ_VARIABLE", "VAR_HANDLE"} & set(found)  # weights that are not constants
    assert (report.format, report.quantize, report.bytes) == ("tflite", quantize, report.path.stat().st_size)
    assert report.max_abs_diff <= report.limit


def test_int8_has_convolutions_in_8_bits_and_norms_in_float(files):
    found = operators(interpreter(files("int8").path))
    assert found["CONV_2D"] == found["MAX_POOL_2D"] == found["FULLY_CONNECTED"] == {"int8"}
    for name in ("MEAN", "SQUARED_DIFFERENCE", "SUB", "ADD", "MUL", "RSQRT"):
        assert found[name] == {"float32"}


def test_int8_full_computes_nothing_in_float(files):
    found = operators(interpreter(files("int8_full").path))
    assert set.union(*found.values()) <= {"int8", "uint8", "int32"}


def test_the_weights_take_the_bytes_of_their_mode(files, model):
    weights = model.count_params()
    # In addition to them a file has the graph: some 100 bytes for each of its 200 tensors and operators.
    for quantize, width in {None: 4, "float16": 2, "dynamic": 1, "int8": 1, "int8_full": 1}.items():
        assert width * weights < files(quantize).bytes < (width + 0.5) * weights + 60_000


@pytest.mark.parametrize("quantize", ["dynamic", "int8", "int8_full"])
@pytest.mark.slow
def test_a_trained_network_gives_about_the_logits_of_transformers(tmp_path, quantize):
    with np.load(TRAINED / "golden.npz") as golden:
        batch, expected = BitImageProcessor.from_pretrained(TRAINED)(list(golden["0/pictures"])), golden["0/logits"]
    model = from_pretrained(TRAINED, classifier_activation=None)
    path = tmp_path / "trained.tflite"
    job = Job(model, image_size=(64, 64), quantize=quantize, representative_data=[batch, batch[:, :, ::-1]])
    TFLITE.write(job, path)
    found = TFLITE.load(job, path)(batch)["output"]
    assert found.argmax() == expected.argmax()
    assert np.abs(found - expected).max() <= SHARES[quantize] * np.abs(expected).max()


# Shapes


@pytest.mark.slow
def test_a_resizable_file_takes_any_size(model, images, tmp_path):
    path = tmp_path / "any.tflite"
    export(model, path, "tflite", image_size=(None, None))
    opened = interpreter(path)
    taken = opened.get_input_details()[0]
    assert tuple(taken["shape_signature"]) == (1, -1, -1, 3)
    for image in (images[:1], images[1:2, :, :20], np.tile(images[2:3], (1, 2, 3, 1))):
        opened.resize_tensor_input(taken["index"], image.shape)
        opened.allocate_tensors()
        expected = model.predict_on_batch(image)
        assert np.abs(run(opened, image) - expected).max() <= 1e-5 * np.abs(expected).max()  # float32


def test_a_batch_of_a_fixed_size(model, images, tmp_path):
    path = tmp_path / "three.tflite"
    report = export(model, path, "tflite", image_size=32, batch_size=3, quantize="int8", representative_data=[images])
    opened = interpreter(path)
    assert tuple(opened.get_input_details()[0]["shape"]) == (3, 32, 32, 3)
    assert report.images == 3
    assert run(opened, images[:3]).shape == (3, 5)


@pytest.mark.parametrize(
    ("input_shape", "options", "expected"),
    [
        ((None, None, 3), {}, (1, 224, 224)),
        ((96, 80, 3), {}, (1, 96, 80)),
        ((96, None, 3), {"processor": PROCESSOR}, (1, 96, 32)),
        ((None, None, 3), {"processor": PROCESSOR}, (1, 32, 32)),
        ((None, None, 3), {"processor": BitImageProcessor(size=256, crop_size=(48, 40))}, (1, 48, 40)),
        ((None, None, 3), {"processor": BitImageProcessor(size=256, do_center_crop=False)}, (1, 224, 224)),
        ((None, None, 3), {"processor": PROCESSOR, "image_size": (64, 32), "batch_size": 4}, (4, 64, 32)),
        ((None, None, 3), {"processor": PROCESSOR, "image_size": (None, 32)}, (1, None, 32)),
    ],
)
def test_the_size_is_asked_for_or_the_models_the_processors_or_224(input_shape, options, expected):
    inputs = keras.Input(input_shape)
    model = keras.Model(inputs, keras.layers.ReLU()(inputs))
    assert TFLITE.shape(Job(model, **options)) == expected


def test_calibration_sees_every_image_in_batches_of_the_file(images):
    samples = list(calibration_data.samples([images[:5], images[5:6]], 2))
    assert [len(sample) for sample in samples] == [2, 2, 2, 2]
    np.testing.assert_array_equal(np.concatenate(samples), images[[0, 1, 2, 3, 4, 0, 5, 5]])


# Other models


def test_feature_maps_have_their_names(tmp_path, images):
    backbone = BiTBackbone(None, config=TINY, out_features=["stem", "stage1", "stage2"])
    path = tmp_path / "maps.tflite"
    export(backbone, path, "tflite", image_size=32)
    runner = interpreter(path).get_signature_runner()
    found, expected = runner(pixel_values=images[:1]), backbone.predict_on_batch(images[:1])
    assert sorted(found) == ["stage1", "stage2", "stem"]
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= 1e-5 * np.abs(values).max()
    assert sorted(read(path)["outputs"]) == ["stage1", "stage2", "stem"]


@pytest.mark.slow
def test_a_model_of_half_precision_is_written_in_float32(tmp_path, images):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = BiT(TINY, classes=5, classifier_activation=None)
    finally:
        keras.config.set_dtype_policy("float32")
    path = tmp_path / "half.tflite"
    assert export(half, path, "tflite", image_size=32).max_abs_diff > 0
    keras.utils.set_random_seed(0)
    whole = BiT(TINY, classes=5, classifier_activation=None)
    whole.set_weights(half.get_weights())
    expected = whole.predict_on_batch(images[:1])
    assert np.abs(run(interpreter(path), images[:1]) - expected).max() <= 1e-5 * np.abs(expected).max()


# What the file says about itself


def read(path):
    """Reads the metadata with flatbuffers' own reader and the field numbers of the public schema."""
    from flatbuffers import number_types as types
    from flatbuffers.table import Table

    model = flatbuffer(path)
    entries = {model.Metadata(place).Name(): model.Metadata(place).Buffer() for place in range(model.MetadataLength())}
    content = model.Buffers(entries[b"TFLITE_METADATA"]).DataAsNumpy().tobytes()
    assert content[4:8] == b"M001"

    def place(table, field):
        return table.Offset(4 + 2 * field)

    def child(table, field):
        return Table(content, table.Indirect(place(table, field) + table.Pos)) if place(table, field) else None

    def children(table, field):
        if not place(table, field):
            return []
        start, count = table.Vector(place(table, field)), table.VectorLen(place(table, field))
        return [Table(content, table.Indirect(start + 4 * number)) for number in range(count)]

    def text(table, field):
        return table.String(place(table, field) + table.Pos).decode()

    def number(table, field, flags):
        return table.Get(flags, place(table, field) + table.Pos) if place(table, field) else 0

    def floats(table, field):
        return table.GetVectorAsNumpy(types.Float32Flags, place(table, field)).tolist()

    root = Table(content, types.UOffsetTFlags.py_type(int.from_bytes(content[:4], "little")))
    (graph,) = children(root, 3)
    (taken,), outputs = children(graph, 2), children(graph, 3)
    found = {"name": text(root, 0), "input": text(taken, 0), "outputs": [text(output, 0) for output in outputs]}
    found["content"] = number(child(taken, 3), 0, types.Int8Flags)
    properties = child(child(taken, 3), 1)
    found["color_space"] = number(properties, 0, types.Int8Flags)
    size = child(properties, 1)
    found["size"] = tuple(number(size, field, types.Uint32Flags) for field in (1, 0))
    for unit in children(taken, 4):
        assert number(unit, 0, types.Int8Flags) == 1  # NormalizationOptions
        found |= {"mean": floats(child(unit, 1), 0), "std": floats(child(unit, 1), 1)}
    if stats := child(taken, 5):
        found |= {"max": floats(stats, 0), "min": floats(stats, 1)}
    found["files"] = [(text(file, 0), number(file, 2, types.Int8Flags)) for file in children(outputs[0], 6)]
    return found


@pytest.mark.parametrize("quantize", [None, "int8_full"])
def test_the_file_tells_labels_and_normalization(files, model, quantize):
    path = files(quantize).path
    assert read(path) == {
        "name": model.name,
        "input": "pixel_values",
        "outputs": ["logits"],
        "content": 2,  # ImageProperties
        "color_space": 1,  # RGB
        "size": (32, 32),
        "mean": [127.5] * 3,
        "std": [127.5] * 3,
        "max": [1.0] * 3,
        "min": [-1.0] * 3,
        "files": [("labels.txt", 2)],  # TENSOR_AXIS_LABELS
    }
    with zipfile.ZipFile(path) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(entry) == b"a\nb\nc\nd\ne\n"


def test_unknown_metadata_are_left_out(tmp_path):
    path = tmp_path / "features.tflite"
    keras.utils.set_random_seed(0)
    export(BiT(TINY, include_top=False, pooling="avg"), path, "tflite", image_size=(None, 48))
    found = read(path)
    assert found["size"] == (224, 48)
    assert found["files"] == []
    assert not {"mean", "std", "max", "min"} & set(found)
    assert not zipfile.is_zipfile(path)


@pytest.mark.parametrize(
    "options",
    [
        HALF,
        {},  # CLIP's numbers
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": 50.0},
        {"rescale_factor": 1 / 127.5, **HALF},
    ],
)
def test_one_mean_and_one_spread_do_what_the_processor_does(options):
    processor = BitImageProcessor(do_resize=False, do_center_crop=False, **options)
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    mean, std = tflite_metadata.normalization(processor, 3)
    # Two roundings to float32 instead of three, of numbers up to 2.7 (255 without rescaling).
    np.testing.assert_allclose((image - mean) / std, processor(image)[0], rtol=1e-6, atol=2e-6)


def test_weights_stand_at_multiples_of_16_bytes(files):
    model = flatbuffer(files(None).path)
    buffers = [model.Buffers(place) for place in range(model.BuffersLength())]
    places = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]
    assert len(places) > 20
    assert {place % 16 for place in places} == {0}


def test_the_same_export_gives_the_same_bytes():
    description = tflite_metadata.Description("bit", "pixel_values", ["output"], 3, (32, 32), labels=["a"])
    assert tflite_metadata.encoded(description) == tflite_metadata.encoded(description)
    once, again = (tflite_metadata.with_labels(b"model", ["é"]) for _ in range(2))
    assert once == again
    assert zipfile.ZipFile(io.BytesIO(once)).read("labels.txt") == "é\n".encode()


# What is refused


def refused(model, tmp_path, error, message, **options):
    with pytest.raises(error, match=message):
        export(model, tmp_path / "new" / "model.tflite", "tflite", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantize", ["int8", "int8_full"])
def test_8_bits_without_images_say_how_to_give_some(model, tmp_path, quantize):
    message = rf"`representative_data` must be given for `quantize='{quantize}'`.*`image_dataset\(folder, .*'dynamic'"
    refused(model, tmp_path, ValueError, message, quantize=quantize)


def test_images_of_another_size_are_refused_in_any_batch(model, tmp_path, images):
    data = [images[:2], images[:2, :30]]
    message = r"must have the size of the export, 32x32 px, got 30x32. `image_size` sets"
    refused(model, tmp_path, ValueError, message, quantize="int8", representative_data=data, image_size=32)


def test_an_unknown_mode_lists_the_known_ones(model, tmp_path):
    message = "`quantize` must be one of None, 'float16', 'dynamic', 'int8', 'int8_full' .* got 'int4'"
    refused(model, tmp_path, ValueError, message, quantize="int4")


def test_without_the_runtime_its_install_command_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorflow" or None)
    refused(model, tmp_path, ImportError, r"`format` 'tflite'.*ai_edge_litert.*keras_bit\[tflite\]")


def test_a_model_larger_than_a_file_can_be_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "LARGEST_FILE", 4 * model.count_params())
    refused(
        model, tmp_path, ValueError, r"`model` has 0.0 GB of weights for `quantize=None`, .* 'float16' or 'dynamic'"
    )


def test_labels_of_two_lines_are_refused(model, tmp_path):
    refused(model, tmp_path, ValueError, "`labels` must be names of one line each", labels=["a\nb", *"cdef"])


def test_layers_without_an_operator_of_tflite_are_refused(tmp_path):
    class Inverse(keras.layers.Layer):
        def call(self, x):
            return keras.ops.erfinv(keras.ops.tanh(x))

    inputs = keras.Input((32, 32, 3))
    other = keras.Model(inputs, Inverse()(inputs))
    refused(other, tmp_path, ValueError, r"`model` cannot be written with TFLite's own operators\. ")
