"""Tests the files of a page that classifies in the browser. `test_web_page.py` opens the page."""

import importlib.util
import json
import re
import shutil
import tarfile
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_bit
from browser import npm_package
from conftest import DATA, absent
from keras_bit import BiT, BitConfig, BitImageProcessor
from keras_bit.evaluation.activation_map import activation_maps
from keras_bit.exporters.web import graph, runtime, site, weights
from store import SMALLEST, TRAINED, smallest

PROCESSOR = BitImageProcessor(size=64, crop_size=64, resample=2, image_mean=0.5, image_std=0.5)
PACKAGES = ("onnx", "tf2onnx", "onnxruntime")
PAGE = {file.name for file in (site.PAGES).iterdir()}
OF_A_MODEL = {"model.onnx", "labels.json", "settings.json"}
TOLERANCE = 1e-4  # of the largest value


@pytest.fixture(autouse=True)
def needs_onnx():
    if any(importlib.util.find_spec(package) is None for package in PACKAGES):
        absent(f"{' or '.join(PACKAGES)} is not installed: pip install -e '.[web]'")


@pytest.fixture(scope="module")
def model():
    return smallest()


def export(folder, model, **options):
    return keras_bit.export(model, folder / "site", "web", **{"processor": PROCESSOR} | options)


def settings_of(folder):
    return json.loads((folder / "site" / "settings.json").read_text(encoding="utf-8"))


def run(folder, pixels):
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "site" / "model.onnx", providers=["CPUExecutionProvider"])
    return dict(
        zip((one.name for one in session.get_outputs()), session.run(None, {"pixel_values": pixels}), strict=True)
    )


def test_the_folder_has_the_page_and_what_it_loads(model, tmp_path):
    report = export(tmp_path, model, labels=["a", "ü", "", "</script>", "e"])
    assert (report.format, report.path) == ("web", tmp_path / "site")
    files = list((tmp_path / "site").iterdir())
    assert {file.name for file in files} == PAGE | OF_A_MODEL
    assert report.bytes == sum(file.stat().st_size for file in files)
    assert json.loads((tmp_path / "site" / "labels.json").read_text()) == ["a", "ü", "", "</script>", "e"]
    found = settings_of(tmp_path)
    assert found["model"]["bytes"] == (tmp_path / "site" / "model.onnx").stat().st_size
    assert found["processor"].items() >= PROCESSOR.to_dict().items()
    assert found["runtime"]["address"] == runtime.ADDRESS


@pytest.mark.slow
def test_the_page_may_connect_to_itself_and_the_pinned_runtime_alone(model, tmp_path):
    export(tmp_path, model)
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert f"connect-src 'self' {runtime.ADDRESS};" in index
    assert "default-src 'none'" in index
    addresses = [word for word in index.split() if "//" in word]
    assert addresses == [f"{runtime.ADDRESS};"]
    export(tmp_path, model, runtime=npm_package(), overwrite=True)
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "connect-src 'self';" in index
    assert "//" not in index


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("classes", "best"), [(5, 5), (7, 5), (2, 2), (1, 1)])
def test_the_model_gives_the_best_classes_and_their_maps(tmp_path, activation, classes, best):
    keras.utils.set_random_seed(0)
    config = BitConfig(**SMALLEST | {"num_labels": classes})
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    with warnings.catch_warnings():  # about a softmax over one class, which `test_exporting.py` looks at
        warnings.filterwarnings("ignore", "(You are using|`model` ends in) a softmax over")
        model = BiT(config, classifier_activation=activation)
        scores = np.asarray(model(pixels))
        all_maps = activation_maps(model, pixels, [*range(classes)]).maps[0].transpose(2, 0, 1)
        export(tmp_path, model)
    found = run(tmp_path, pixels)
    assert found["classes"].shape == (1, best)
    np.testing.assert_array_equal(found["classes"][0], np.argsort(-scores[0], kind="stable")[:best])
    np.testing.assert_allclose(found["probabilities"], scores, rtol=0, atol=1e-5)
    expected = all_maps[found["classes"][0]]
    np.testing.assert_allclose(found["maps"][0], expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(("quantize", "share"), [("float16", 0.54), ("int8", 0.3)])
def test_weights_take_less_room_and_become_float32_again(tmp_path, quantize, share):
    model, sizes, scores = keras_bit.from_pretrained(TRAINED), {}, {}
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    for chosen in (None, quantize):
        report = export(tmp_path, model, quantize=chosen, overwrite=True)
        assert report.quantize == chosen
        assert report.max_abs_diff <= report.limit
        sizes[chosen] = (tmp_path / "site" / "model.onnx").stat().st_size
        scores[chosen] = run(tmp_path, pixels)["probabilities"]
    assert sizes[quantize] < share * sizes[None]
    assert 0 < np.abs(scores[quantize] - scores[None]).max() < 0.05
    assert settings_of(tmp_path)["model"]["weights"] == quantize


def test_a_kernel_in_8_bits_is_off_by_half_a_step_at_most():
    kernel = np.random.default_rng(0).normal(size=(6, 5, 3, 3)).astype(np.float32)
    kernel[2] = 0
    kernel[3] *= 1000
    tensors, node = weights._in_8_bits(kernel, "kernel")
    whole, scales = (tensors[name] for name in node.input)
    assert whole.dtype == np.int8
    steps = scales[:, None, None, None]
    assert (np.abs(whole * steps - kernel) <= steps * 0.5001).all()
    assert np.abs(whole).max(axis=(1, 2, 3)).tolist() == [127, 127, 0, 127, 127, 127]


def test_weights_beyond_float16_are_refused(model, tmp_path):
    larger = keras.models.clone_model(model)
    larger.set_weights(model.get_weights())
    head = larger.get_layer("predictions")
    head.kernel.assign(head.kernel * 1e7)
    with pytest.raises(ValueError, match="`model` has weights above 65,504"):
        export(tmp_path, larger, quantize="float16")
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "no processor": ({}, {"processor": None}, "`processor` must be given"),
    "gray images": ({}, {"processor": BitImageProcessor(do_convert_rgb=False)}, "`do_convert_rgb=True`"),
    "any size": ({}, {"processor": BitImageProcessor(do_center_crop=False)}, "`processor` must make .* same size"),
    "no head": ({"include_top": False}, {}, "`model` must be a BiT .* with its head"),
    "pooled": ({"include_top": False, "pooling": "avg"}, {}, "`model` must be a BiT .* with its head"),
    "logits": ({"classifier_activation": None}, {}, "`model` must give probabilities"),
    "one channel": ({"num_channels": 1}, {}, "`model` must take 3 channels"),
    "another size": ({"input_shape": (96, 64, 3)}, {}, "`processor` makes 64x64 px, but `model` takes 96x64"),
    "a batch": ({}, {"batch_size": 2}, "`batch_size` must be None or 1"),
    "an image size": ({}, {"image_size": 96}, "`image_size` must be None or the 64x64 px"),
    "8 bits of TFLite": ({}, {"quantize": "dynamic"}, "`quantize` must be one of None, 'float16', 'int8'"),
    "no package": ({}, {"runtime": "no/such/folder"}, "`runtime` 'no/such/folder' is not an npm package.*npm install"),
}


@pytest.mark.parametrize(("built", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_arguments_that_a_page_cannot_have_are_refused_by_name(tmp_path, built, options, message):
    network = {name: value for name, value in built.items() if name == "num_channels"}
    model = BiT(BitConfig(**SMALLEST | network), **{name: built[name] for name in built.keys() - network})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export(tmp_path, model, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_the_users_own_is_refused(model, tmp_path):
    inputs = keras.Input((64, 64, 3))
    with pytest.raises(ValueError, match="`model` must be a BiT that keras_bit built"):
        export(tmp_path, keras.Model(inputs, model(inputs)))


def test_only_a_page_has_a_runtime(model, tmp_path):
    with pytest.raises(ValueError, match="`runtime` must be None for the format 'onnx'"):
        keras_bit.export(model, tmp_path / "bit.onnx", "onnx", runtime=tmp_path)


def described(folder, **fields):
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"name": runtime.PACKAGE, "version": runtime.VERSION} | fields))
    return folder


def test_another_package_is_refused_with_what_to_install(tmp_path):
    command = rf"`npm install {runtime.PACKAGE}@{runtime.VERSION}`"
    with pytest.raises(ValueError, match=rf"got onnxruntime-web 1.2.3 in .*{command}"):
        runtime.check_package(described(tmp_path / "older", version="1.2.3"))
    with pytest.raises(ValueError, match=rf"got other {runtime.VERSION} in .*{command}"):
        runtime.check_package(described(tmp_path / "other", name="other"))
    with pytest.raises(FileNotFoundError, match=r"lacks the file .*ort\.wasm\.bundle\.min\.mjs"):
        runtime.check_package(described(tmp_path / "empty"))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "package.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"damaged package\.json"):
        runtime.check_package(tmp_path / "damaged")


@pytest.mark.slow
def test_a_package_that_was_altered_is_refused(model, tmp_path):
    package = shutil.copytree(npm_package(), tmp_path / "package", ignore=shutil.ignore_patterns("*.map", "lib"))
    file = package / "dist" / runtime.ENGINES["wasm"].binary.name
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"`runtime` has a changed .*{file.name}.* not that of .*{runtime.VERSION}"):
        export(tmp_path, model, runtime=package)
    assert not (tmp_path / "site").exists()


def test_the_runtime_of_a_local_package_is_copied(model, tmp_path):
    export(tmp_path, model, runtime=npm_package())
    files = {file.name: file.stat().st_size for file in (tmp_path / "site" / "runtime").iterdir()}
    assert files == {file.name: file.bytes for file in runtime.FILES}
    assert settings_of(tmp_path)["runtime"]["address"] == "runtime/"


@pytest.mark.slow
def test_maps_that_differ_from_the_models_raise_an_error_and_leave_nothing(model, tmp_path, monkeypatch):
    right = graph.add_head

    def wrong(onnx_model, head, shape):
        right(onnx_model, head, shape)
        (last,) = [node for node in onnx_model.graph.node if graph.MAPS in node.output]
        last.input[0] = "head/doubled"
        from onnx import helper

        onnx_model.graph.node.insert(
            len(onnx_model.graph.node) - 1, helper.make_node("Add", ["head/maps", "head/maps"], ["head/doubled"])
        )

    monkeypatch.setattr(graph, "add_head", wrong)
    with pytest.raises(ArithmeticError, match="do not add up to its scores"):
        export(tmp_path, model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_older_page_is_replaced_on_request_if_nothing_is_lost(model, tmp_path):
    export(tmp_path, model)
    with pytest.raises(FileExistsError, match="overwrite"):
        export(tmp_path, model)
    (tmp_path / "site" / "photograph.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"photograph\.jpg"):
        export(tmp_path, model, overwrite=True)
    (tmp_path / "site" / "photograph.jpg").unlink()
    export(tmp_path, model, overwrite=True, quantize="int8")
    assert settings_of(tmp_path)["model"]["weights"] == "int8"


@pytest.mark.parametrize(
    ("place", "lost"),
    [("runtime/ort.wasm.bundle.min.mjs", ""), ("runtime/mine.txt", "runtime"), ("photograph.jpg", "photograph.jpg")],
)
def test_the_files_of_an_older_page_are_checked_before_anything_is_computed(model, tmp_path, place, lost):
    (tmp_path / "site" / "runtime").mkdir(parents=True)
    (tmp_path / "site" / place).write_text("")
    lines = []
    if lost:
        with pytest.raises(FileExistsError, match=f"would be lost: {lost}"):
            export(tmp_path, model, overwrite=True, progress=lines.append)
        assert lines == []
        assert (tmp_path / "site" / place).exists()
    else:
        export(tmp_path, model, overwrite=True)  # with the runtime of jsDelivr
        assert {file.name for file in (tmp_path / "site").iterdir()} == PAGE | OF_A_MODEL


def luminance(color):
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_stands_out_from_its_background_in_light_and_in_dark():
    """Checks the success criteria 1.4.3 of WCAG 2.2 and, for drawings, 1.4.11."""
    style = (site.PAGES / "style.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", part)) for part in style.split("@media")[:2])
    for colors in (light, dark):
        for background in ("background", "surface"):
            for name, least in (("ink", 7), ("faint", 4.5), ("trouble", 4.5), ("accent", 3)):
                low, high = sorted((luminance(colors[name]), luminance(colors[background])))
                assert (high + 0.05) / (low + 0.05) >= least, (name, background)


@pytest.mark.slow
@pytest.mark.data
def test_weights_of_fewer_bits_answer_like_the_model(tmp_path):
    import onnxruntime

    model, processor = keras_bit.from_pretrained(TRAINED), BitImageProcessor.from_pretrained(TRAINED)
    with tarfile.open(DATA / "cifar10.tar.xz") as archive:
        members = [one for one in archive if one.isfile() and "test" in Path(one.name).parts][::10]
        images = [archive.extractfile(one).read() for one in members]
    pixels = processor(images)
    classes = [name for _, name in sorted(model.config.id2label.items())]
    right = np.array([classes.index(Path(one.name).parent.name) for one in members])
    answers = {"Keras": model.predict(pixels, batch_size=100, verbose=0).argmax(axis=1)}
    for quantize in (None, "float16", "int8"):
        export(tmp_path, model, processor=processor, quantize=quantize, overwrite=True)
        session = onnxruntime.InferenceSession(tmp_path / "site" / "model.onnx", providers=["CPUExecutionProvider"])
        scores = [session.run(["probabilities"], {"pixel_values": one[None]})[0][0] for one in pixels]
        answers[quantize] = np.argmax(scores, axis=1)
    for name, found in answers.items():
        print(f"{name}: {np.mean(found == right):.1%} right, {np.mean(found == answers['Keras']):.1%} as Keras")
    assert len(images) == 1000
    assert (answers[None] == answers["Keras"]).all()
    assert np.mean(answers["float16"] == answers["Keras"]) >= 0.998
    assert np.mean(answers["int8"] == answers["Keras"]) >= 0.99
    assert np.mean(answers["int8"] == right) >= np.mean(answers["Keras"] == right) - 0.005
