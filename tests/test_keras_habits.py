"""Tests our functions on models that users have changed by means of Keras.

A head is replaced, `enable_lora` and `quantize` are called, layers are frozen, `model.save("m.h5")` is loaded.
"""

import dataclasses
import os
import re
import subprocess
import sys
import warnings

import h5py
import keras
import numpy as np
import pytest

import keras_bit
from conftest import ROOT
from keras_bit import (
    BiT,
    BiTBackbone,
    BiTClassifier,
    BitConfig,
    BitImageProcessor,
    HyperRule,
    fine_tune,
    from_pretrained,
    fuse,
    rematerialize,
    save_pretrained,
)
from keras_bit.evaluation import evaluate
from keras_bit.network.layers import StdConv2D
from keras_bit.network.model import BiTModel
from keras_bit.network.transforms import freeze
from reference_models import TINY
from store import smallest

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config", "ignore:__array__ implementation"),  # h5py
]
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 40, 40, 3)).astype(np.float32)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
PROCESSOR = BitImageProcessor(size={"height": 40, "width": 40}, do_center_crop=False)
RULE = HyperRule(2, (40, 40), batch_size=2, steps=1)


def outputs(model, images=IMAGES):
    return keras.ops.convert_to_numpy(model(images))


def labeled(labels):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(2)


# Whole models in Keras' older format

IN_H5 = {
    "a model": smallest,
    "fused": lambda: fuse(smallest()),
    "inside another": lambda: keras.Sequential([keras.Input((40, 40, 3)), smallest(), keras.layers.Dense(2)]),
    "a layer before it": lambda: keras_bit.BiT(
        smallest().config, input_tensor=keras.layers.Rescaling(2.0)(keras.Input((40, 40, 3)))
    ),
}


@pytest.mark.parametrize("case", IN_H5)
def test_keras_loads_an_h5_file_with_the_same_outputs(tmp_path, case):
    model = IN_H5[case]()
    model.save(tmp_path / "m.h5")
    again = keras.models.load_model(tmp_path / "m.h5")
    assert type(again) is type(model)
    np.testing.assert_array_equal(outputs(again), outputs(model))
    assert getattr(again, "config", None) == getattr(model, "config", None)


def test_a_classifier_in_an_h5_file_is_loaded_by_keras(tmp_path):
    classifier = BiTClassifier(smallest(), PROCESSOR)
    classifier.save(tmp_path / "c.h5")
    assert keras.models.load_model(tmp_path / "c.h5").classify(PIXELS) == classifier.classify(PIXELS)


PROGRAM = """
import sys
import keras_bit
import keras
import numpy as np

model = keras.models.load_model(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], keras.ops.convert_to_numpy(model(images)))
assert type(model.optimizer).__name__ == "MomentumSGD" and int(model.optimizer.iterations) == 2
"""


def test_another_program_that_imports_keras_bit_loads_a_trained_model(tmp_path):
    model = smallest()
    model.compile(HyperRule(2, (40, 40), batch_size=2, steps=9).optimizer(), "sparse_categorical_crossentropy")
    model.fit(IMAGES, np.array([0, 1]), epochs=2, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "best.h5")])
    np.save(tmp_path / "images.npy", IMAGES)
    names = [str(tmp_path / name) for name in ("best.h5", "images.npy", "outputs.npy")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Another process: float32, whose sums may be in another order there.
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), outputs(model), rtol=1e-5)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_from_pretrained_reads_a_whole_model_by_what_it_says_itself(tmp_path, suffix):
    model = smallest()
    model.save(tmp_path / f"m{suffix}")
    smallest(num_labels=3).config.save_pretrained(tmp_path)  # of something else
    again = from_pretrained(tmp_path / f"m{suffix}")
    assert again.config == model.config
    np.testing.assert_array_equal(outputs(again), outputs(model))


def with_a_lambda(path):
    model = smallest()
    BiTModel(model.input, keras.layers.Lambda(lambda x: x * 2)(model.output)).save(path)


def damaged(path):
    smallest().save(path)
    path.write_bytes(path.read_bytes()[:20000])


def linked(path):
    smallest().save(path)
    with h5py.File(path, "a") as file:
        del file["model_weights/norm"]
        file["model_weights/norm"] = h5py.ExternalLink("other.h5", "norm")


NOT_READ = {
    "another model": (
        lambda path: keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path),
        "Sequential",
    ),
    "fused": (
        lambda path: fuse(smallest()).save(path),
        r"stem_conv: is a Conv2D.*Load .* with `keras\.saving\.load_model`",
    ),
    "a layer before it": (lambda path: IN_H5["a layer before it"]().save(path), "layers before BiT"),
    "code": (with_a_lambda, r"[Ll]ambda"),
    "cut off": (damaged, "is damaged"),
    "a link to another file": (linked, "model_weights/norm is a link"),
}


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("case", NOT_READ)
def test_an_h5_file_of_something_else_is_refused_by_from_pretrained(tmp_path, case):
    write, message = NOT_READ[case]
    write(tmp_path / "m.h5")
    with pytest.raises(ValueError, match=rf"m\.h5 .*{message}"):
        from_pretrained(tmp_path / "m.h5")


# A head of one's own


def by_cloning(model, head):
    def clone(layer):
        return head if layer.name == "predictions" else layer.__class__.from_config(layer.get_config())

    cloned = keras.models.clone_model(model, clone_function=clone)
    for layer in cloned.layers:
        if layer.name != "predictions":
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return cloned


def by_the_graph(model, head):
    return type(model)(model.input, head(model.get_layer("avg_pool").output))


WAYS = {"clone_model": by_cloning, "type(m)(m.input, head)": by_the_graph}


def with_names(**options):
    return smallest(id2label={index: f"class {index}" for index in range(5)}, **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("classes", [3, 5, 7])
def test_a_head_of_ones_own_is_saved_as_what_it_is(tmp_path, way, classes):
    model = WAYS[way](with_names(), keras.layers.Dense(classes, activation="softmax", name="predictions"))
    assert model.config.num_labels == classes
    assert len(model.config.id2label or range(classes)) == classes
    save_pretrained(model, tmp_path / "saved")
    model.save(tmp_path / "m.keras")
    for source in ("saved", "m.keras"):
        again = from_pretrained(tmp_path / source)
        assert again.config.num_labels == classes
        np.testing.assert_allclose(outputs(again), outputs(model), rtol=1e-5)  # the same weights and operations


@pytest.mark.live
@pytest.mark.parametrize("way", WAYS)
def test_transformers_reads_a_head_of_ones_own(tmp_path, way):
    import torch
    import transformers

    model = WAYS[way](with_names(), keras.layers.Dense(3, name="predictions"))
    save_pretrained(model, tmp_path / "saved")
    assert_transformers_gives(tmp_path / "saved", outputs(model), torch, transformers)


def assert_transformers_gives(folder, expected, torch, transformers):
    theirs, report = transformers.BitForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert {name: list(found) for name, found in report.items() if found} == {}
    with torch.no_grad():
        found = theirs.eval()(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())).logits.numpy()
    # float32 through ten convolutions, summed in another order
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("way", WAYS)
def test_fine_tune_follows_a_head_of_ones_own(way):
    model = WAYS[way](with_names(), keras.layers.Dense(7, activation="softmax", name="predictions"))
    history = fine_tune(model, labeled([0, 6]), rule=RULE, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    with pytest.raises(Exception, match=re.escape("classes of the model, [0, 7)")):
        fine_tune(model, labeled([0, 7]), rule=RULE, verbose=0)


OTHER_HEADS = {
    "another name": lambda model: by_the_graph(model, keras.layers.Dense(3, name="mine")),
    "two layers": lambda model: by_the_graph(
        model, keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(3)], name="predictions")
    ),
    "no bias": lambda model: by_the_graph(model, keras.layers.Dense(3, use_bias=False, name="predictions")),
}


@pytest.mark.parametrize("case", OTHER_HEADS)
def test_a_head_that_the_format_cannot_hold_is_refused_with_what_can(tmp_path, case):
    model = OTHER_HEADS[case](smallest())
    with pytest.raises(ValueError, match=r"(mine|predictions).*one Dense layer with the name 'predictions'"):
        save_pretrained(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_fine_tune_says_what_a_head_of_ones_own_is_called():
    with pytest.raises(ValueError, match=r"one without the layer predictions.*own Dense head 'predictions'"):
        fine_tune(OTHER_HEADS["another name"](smallest()), labeled([0, 1]), rule=RULE, verbose=0)


@pytest.mark.parametrize("problem_type", [None, "single_label_classification", "multi_label_classification"])
def test_one_output_for_two_classes_is_refused_with_what_two_classes_take(problem_type):
    model = smallest(num_labels=1, problem_type=problem_type)
    model = by_the_graph(model, keras.layers.Dense(1, activation="sigmoid", name="predictions"))
    with pytest.raises(ValueError, match="For two classes, use two outputs, `classes=2`"):
        fine_tune(model, labeled([0, 1]), rule=RULE, verbose=0)


# Low-rank adaptation


def adapted(**options):
    """Builds every kind of layer that Keras adapts, after it has learned something. Its alpha differs from its rank."""
    model = smallest(**options)
    for index, layer in enumerate(model.layers):
        if isinstance(layer, StdConv2D | keras.layers.Dense):
            layer.enable_lora(2, lora_alpha=6)
            layer.lora_kernel_b.assign(0.1 * np.random.default_rng(index).standard_normal(layer.lora_kernel_b.shape))
    return model


def test_the_result_of_low_rank_adaptation_is_saved_in_the_kernels(tmp_path):
    model = adapted()
    expected = outputs(model)
    assert np.abs(expected - outputs(smallest())).max() > 1e-3  # it is not a little
    save_pretrained(model, tmp_path / "saved")
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    sources = {
        "transformers": from_pretrained(tmp_path / "saved"),
        ".keras": from_pretrained(tmp_path / "m.keras"),
        ".weights.h5": from_pretrained(tmp_path / "m.weights.h5", config=model.config),
        "fused": fuse(model),
    }
    for name, again in sources.items():
        np.testing.assert_allclose(outputs(again), expected, rtol=0, atol=1e-5 * expected.max(), err_msg=name)
        assert not any("lora" in weight.path for weight in again.weights), name
    np.testing.assert_array_equal(outputs(model), expected)  # itself it stays


@pytest.mark.live
def test_transformers_reads_what_low_rank_adaptation_has_learned(tmp_path):
    import torch
    import transformers

    model = adapted()
    save_pretrained(model, tmp_path / "saved")
    logits = from_pretrained(tmp_path / "saved", classifier_activation=None)
    assert_transformers_gives(tmp_path / "saved", outputs(logits), torch, transformers)
    head = model.get_layer("predictions")  # Keras' own sum
    features = keras.Model(model.input, model.get_layer("avg_pool").output)(IMAGES)
    expected = keras.ops.convert_to_numpy(keras.ops.matmul(features, head.kernel) + head.bias)
    assert_transformers_gives(tmp_path / "saved", expected, torch, transformers)


def test_low_rank_adaptation_in_mixed_precision_keeps_the_kernels_digits():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = adapted()
    finally:
        keras.config.set_dtype_policy("float32")
    layer = model.get_layer("stem_conv")
    assert keras.backend.standardize_dtype(layer.kernel.dtype) == "float32"
    first, second = (keras.ops.convert_to_numpy(one) for one in (layer.lora_kernel_a, layer.lora_kernel_b))
    kernel = next(one for one in layer.weights if one.name == "kernel")
    expected = keras.ops.convert_to_numpy(kernel) + 3 * first @ second
    np.testing.assert_allclose(layer.kernel, expected, rtol=0, atol=1e-6 * np.abs(expected).max())  # rounding


def test_freeze_leaves_the_kernels_under_low_rank_adaptation_alone():
    model = adapted()
    freeze(model, up_to="stage1")
    trained = {weight.path for weight in model.trainable_weights if "conv" in weight.path}
    assert trained
    assert all("stage2" in path and "lora" in path for path in trained)


@pytest.mark.parametrize("form", ["m.keras", "m.h5", "a directory"])
def test_the_config_in_a_file_has_the_classes_of_the_actual_head(tmp_path, form):
    model = smallest()
    head = keras.layers.Dense(3, activation="softmax", name="predictions")
    other = type(model)(model.input, head(model.get_layer("avg_pool").output))
    if form == "a directory":
        keras.saving.save_model(other, tmp_path / form, zipped=False)
    else:
        other.save(tmp_path / form)
    assert keras_bit.BitConfig.from_pretrained(tmp_path / form) == other.config
    again = from_pretrained(tmp_path / form)
    assert again.config == other.config
    np.testing.assert_array_equal(outputs(again), outputs(other))


# Quantized


def quantized(mode="int8"):
    model = smallest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says of each layer that it cannot
        model.quantize(mode)
    return model


def saved(model, path):
    model.save(path)
    return path


def weights_of(model, path):
    """Saves the weights in one file, or with `.json` in a file for each layer."""
    model.save_weights(path, **{"max_shard_size": 1e-5} if path.suffix == ".json" else {})
    return path


def exported(model, path, format):
    return keras_bit.export(model, path, format, image_size=40).max_abs_diff


# What is done to a model, in a folder; and how the sentence begins that says why not, or None.
FUNCTIONS = {
    "fuse": (lambda model, folder: np.testing.assert_array_equal(outputs(fuse(model)), outputs(model)), None),
    "freeze": (lambda model, folder: freeze(model), None),
    "rematerialize": (lambda model, folder: (rematerialize(model), model(IMAGES, training=True)), None),
    "evaluate": (lambda model, folder: evaluate(model, labeled([0, 1])), None),
    "BiTClassifier": (lambda model, folder: BiTClassifier(model, PROCESSOR).classify(PIXELS), None),
    "a classifier's file": (
        lambda model, folder: keras.saving.load_model(saved(BiTClassifier(model, PROCESSOR), folder / "c.keras")),
        None,
    ),
    "load_model": (
        lambda model, folder: np.testing.assert_array_equal(
            outputs(keras.saving.load_model(saved(model, folder / "m.keras"))), outputs(model)
        ),
        None,
    ),
    "save_pretrained": (lambda model, folder: save_pretrained(model, folder / "saved"), "`model` is quantized: "),
    "from_pretrained": (
        lambda model, folder: from_pretrained(saved(model, folder / "m.keras")),
        r".*m\.keras holds a quantized model: ",
    ),
    "from_pretrained of weights alone": (
        lambda model, folder: from_pretrained(weights_of(model, folder / "m.weights.h5"), config=model.config),
        r".*m\.weights\.h5 holds the weights of a quantized model: ",
    ),
    "from_pretrained of weights in several files": (
        lambda model, folder: from_pretrained(weights_of(model, folder / "m.weights.json"), config=model.config),
        r".*m\.weights\.json holds the weights of a quantized model: ",
    ),
    "BiTBackbone": (
        lambda model, folder: BiTBackbone(saved(model, folder / "m.keras")),
        r".*m\.keras holds a quantized model: ",
    ),
    "fine_tune": (
        lambda model, folder: fine_tune(model, labeled([0, 1]), rule=RULE, verbose=0),
        "`model` must have a trainable head",
    ),
    **{
        f"export to {format}": (
            lambda model, folder, format=format, suffix=suffix: exported(model, folder / f"m{suffix}", format),
            "`model` is quantized: ",
        )
        for format, suffix in (("saved_model", ""), ("tflite", ".tflite"), ("onnx", ".onnx"), ("openvino", ".xml"))
    },
    "export to huggingface": (
        lambda model, folder: keras_bit.export(model, folder / "hf", "huggingface"),
        "`model` is quantized: ",
    ),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_after_quantize_every_function_works_or_says_why_not(tmp_path, function):
    use, refusal = FUNCTIONS[function]
    if refusal is None:
        use(quantized(), tmp_path)
        return
    with pytest.raises(ValueError, match=refusal) as error:
        use(quantized(), tmp_path)
    assert "predictions (int8)" in str(error.value) or "quantized one (int8)" in str(error.value)
    assert re.search(r"before `quantize`|load_model|load_weights", str(error.value))


@pytest.mark.parametrize("mode", ["int4", "float8"])
def test_other_ways_to_quantize_are_fused_and_named(tmp_path, mode):
    model = quantized(mode)
    np.testing.assert_array_equal(outputs(fuse(model)), outputs(model))
    with pytest.raises(ValueError, match=rf"`model` is quantized: predictions \({mode}\)"):
        save_pretrained(model, tmp_path)
    with pytest.raises(ValueError, match=r"of a quantized model: predictions \((int8|float8)\)"):  # of int4 two a byte
        from_pretrained(weights_of(model, tmp_path / "m.weights.h5"), config=model.config)


def test_a_quantized_head_learns_by_low_rank_adaptation():
    model = quantized()
    model.get_layer("predictions").enable_lora(2, lora_alpha=6)
    fine_tune(model, labeled([0, 1]), rule=RULE, verbose=0)
    model.get_layer("predictions").lora_kernel_b.assign(np.ones((2, 5)))
    np.testing.assert_array_equal(outputs(fuse(model)), outputs(model))


# Frozen layers


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.parametrize("up_to", [None, "stem", "stage1"])
def test_frozen_layers_stay_frozen(tmp_path, name, up_to):
    model = smallest()
    freeze(model, up_to=up_to)
    model.save(tmp_path / name)
    trained = [weight.path.split("/")[-2:] for weight in model.trainable_weights]
    assert 0 < len(trained) < len(model.weights)
    for again in (
        keras.saving.load_model(tmp_path / name),
        from_pretrained(tmp_path / name),
        from_pretrained(tmp_path / name, fused=True),
        fuse(model),
    ):
        assert [weight.path.split("/")[-2:] for weight in again.trainable_weights] == trained


@pytest.mark.filterwarnings("ignore::UserWarning")  # a new head
def test_of_a_wholly_frozen_file_a_new_head_learns_and_a_backbone_does_not(tmp_path):
    model = smallest()
    model.trainable = False
    model.save(tmp_path / "m.keras")
    assert from_pretrained(tmp_path / "m.keras").trainable_weights == []
    new = from_pretrained(tmp_path / "m.keras", classes=3)
    assert {weight.path.split("/")[-2] for weight in new.trainable_weights} == {"predictions"}
    assert BiTBackbone(tmp_path / "m.keras").trainable_weights == []


@pytest.mark.parametrize(
    ("labels", "activation", "advice"), [(3, "sigmoid", "multi_label"), (3, "tanh", "linear head")]
)
def test_a_head_whose_activation_a_checkpoint_cannot_hold_is_refused(labels, activation, advice, tmp_path):
    model = BiT(BitConfig(**TINY | {"num_labels": labels}), classifier_activation=activation)
    with pytest.raises(ValueError, match=rf"ends in '{activation}'.*'softmax'.*{advice}.*`.keras` file"):
        save_pretrained(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    model.config = dataclasses.replace(model.config, problem_type="multi_label_classification")
    if activation == "sigmoid":
        save_pretrained(model, tmp_path / "saved")
        again = from_pretrained(tmp_path / "saved")
        assert again.get_layer("predictions").activation is keras.activations.sigmoid
