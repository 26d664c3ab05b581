"""Tests model cards with huggingface_hub's `ModelCard`: the Hub shows what this reads from the text."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest

import keras_bit
from keras_bit import BiT, BitConfig, BitImageProcessor
from tiny_bit import CLASSES, CONFIG

RUN = Path(__file__).with_name("checkpoints") / "commit-88449c7" / "run"
PROCESSOR = BitImageProcessor(size=40, crop_size=32)
ONE_LABEL = {"images": 1200, "top_1_accuracy": 0.8592, "log_loss": 0.4}
SEVERAL = {"images": 3, "mean_average_precision": 0.5, "micro_f1": 0.25, "problem_type": "multi_label_classification"}
NUMBERS = {"images": 3, "mean_absolute_error": 1.5, "r2": None, "problem_type": "regression"}


def model_of(include_top=True, **changed):
    return BiT(BitConfig.from_dict(CONFIG | changed), include_top=include_top)


@pytest.fixture
def run(tmp_path):
    """Makes the directory of a run without a report."""
    shutil.copytree(RUN, tmp_path / "run")
    return tmp_path / "run"


def change(run, group, **values):
    file = run / "training" / "run.json"
    noted = json.loads(file.read_text())
    noted[group] |= values
    file.write_text(json.dumps(noted))


def read(card):
    """Reads the metadata as huggingface_hub parses it from the text."""
    return huggingface_hub.ModelCard(str(card)).data


@pytest.mark.parametrize(
    ("report", "metrics"),
    [
        (ONE_LABEL, {"accuracy": 0.8592}),
        ({"pictures": 1200, "top_1_accuracy": 0.8592}, {"accuracy": 0.8592}),  # of an earlier version
        (SEVERAL, {"mean_average_precision": 0.5, "f1": 0.25}),
        (NUMBERS, {"mae": 1.5}),
    ],
)
def test_the_facts_of_a_run_are_what_the_hub_reads(run, report, metrics):
    change(run, "options", data="/home/me/secret/flowers", weights="google/bit-50")
    (run / "report.json").write_text(json.dumps(report))
    card = keras_bit.model_card(model_of(), "me/flowers", processor=PROCESSOR, run=run, license="cc-by-4.0")
    data = read(card)
    assert (data.license, data.base_model, data.library_name) == ("cc-by-4.0", "google/bit-50", "transformers")
    assert data.datasets is None  # a folder of this machine is not on the Hub
    assert {result.metric_type: result.metric_value for result in data.eval_results} == metrics
    assert {(one.dataset_name, one.dataset_type) for one in data.eval_results} == {("flowers", "imagefolder")}
    assert data.model_name == "flowers"
    text = str(card)
    for fact in (
        "15 for training, 3 for validation",
        "ant, bee, cat",
        "6 steps of 8 images at 128 x 128 px",
        "32 x 32 px",
    ):
        assert fact in text
    images = next(iter(report.values()))
    assert f"{images:,} images that it was not trained on" in text
    assert "secret" not in text


def test_the_size_is_the_number_of_parameters():
    model = model_of()
    assert f"{model.count_params():,} parameters in float32" in str(keras_bit.model_card(model, "me/bit"))


def test_arguments_take_the_place_of_the_run(run):
    (run / "report.json").write_text(json.dumps(ONE_LABEL))
    card = keras_bit.model_card(
        model_of(), "me/bit", run=run, base_model="timm/mine", dataset="cifar10", metrics={"accuracy": 0.5}
    )
    data = read(card)
    assert (data.base_model, data.datasets) == ("timm/mine", ["cifar10"])
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_name, result.metric_value) == ("cifar10", "cifar10", 0.5)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("hf://google/bit-50", "google/bit-50"),
        ("resnetv2_50x1_bit.goog_in21k", "timm/resnetv2_50x1_bit.goog_in21k"),
        ("https://storage.googleapis.com/bit_models/BiT-M-R50x1.npz", None),
        ("/home/me/secret/saved", None),
    ],
)
def test_the_base_model_is_an_id_of_the_hub_or_a_name_without_a_path(run, weights, expected):
    change(run, "options", weights=weights)
    card = keras_bit.model_card(model_of(), "me/bit", run=run)
    assert read(card).base_model in (expected, Path(weights).name)
    assert "secret" not in str(card)
    assert expected is None or read(card).base_model == expected


def test_a_card_only_holds_what_is_known():
    data = read(keras_bit.model_card(model_of(), "me/bit"))
    assert (data.license, data.base_model, data.datasets, data.eval_results) == (None,) * 4
    assert "trained on" not in str(keras_bit.model_card(model_of(), "me/bit"))


@pytest.mark.parametrize("layout", ["transformers", "timm"])
@pytest.mark.parametrize("include_top", [True, False])
def test_the_code_blocks_are_python_that_loads_the_model_by_its_name(layout, include_top):
    card = str(keras_bit.model_card(model_of(include_top), "me/bit", processor=PROCESSOR, layout=layout))
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2
    for block, library in zip(blocks, ("keras_bit", layout), strict=True):
        compile(block, "README.md", "exec")
        assert f"import {library}" in block or f"from {library} import" in block
        assert "me/bit" in block


def test_the_code_for_keras_bit_runs(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40)).save("image.jpg")
    model = model_of()
    card = keras_bit.model_card(model, "saved", processor=PROCESSOR)
    keras_bit.save_pretrained(model, "saved", PROCESSOR, model_card=card)
    assert Path("saved/README.md").read_text(encoding="utf-8") == str(card)
    found = {}
    exec(re.findall(r"```python\n(.*?)```", str(card), re.DOTALL)[0], found)
    assert found["outputs"].shape == (1, CLASSES)


@pytest.mark.live
@pytest.mark.slow
def test_the_code_for_transformers_runs(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40)).save("image.jpg")
    model = model_of()
    card = keras_bit.model_card(model, "saved", processor=PROCESSOR)
    keras_bit.save_pretrained(model, "saved", PROCESSOR)
    found = {}
    exec(re.findall(r"```python\n(.*?)```", str(card), re.DOTALL)[1], found)
    assert found["outputs"].logits.shape == (1, CLASSES)


def test_a_card_is_kept_if_none_is_given(tmp_path):
    keras_bit.save_pretrained(model_of(), tmp_path / "saved", model_card="# Mine\n")
    keras_bit.save_pretrained(model_of(), tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").read_text() == "# Mine\n"


@pytest.mark.parametrize(
    ("arguments", "error", "facts"),
    [
        ({"metrics": {"accuracy": 1.0}}, ValueError, "`metrics` must come with the `dataset`"),
        ({"license": 3}, TypeError, "`license` must be a string, got int: 3"),
        ({"layout": "tf"}, ValueError, "`layout` must be one of .*, got 'tf'"),
        (
            {"run": "nothing"},
            FileNotFoundError,
            "`run` must be the directory .*, got 'nothing', which has no training/run.json",
        ),
    ],
)
def test_arguments_that_make_no_card(arguments, error, facts):
    with pytest.raises(error, match=facts):
        keras_bit.model_card(model_of(), "me/bit", **arguments)
    with pytest.raises(TypeError, match="`model_card` must be a text"):
        keras_bit.save_pretrained(model_of(), "nowhere", model_card=3)


@pytest.mark.parametrize(("name", "text"), [("training/run.json", "[]"), ("report.json", '{"images": "many"}')])
def test_a_damaged_run_is_an_error_that_names_the_file(run, name, text):
    (run / name).write_text(text)
    with pytest.raises(ValueError, match=f"`run`: .*{name} is damaged"):
        keras_bit.model_card(model_of(), "me/bit", run=run)
