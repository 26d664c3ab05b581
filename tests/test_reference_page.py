"""Tests what transformers' page of BiT promises about the models. test_transformers_shape.py compares numbers."""

import doctest
import inspect

import keras
import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from keras_bit import BitBackbone, BitConfig, BitForImageClassification, BitModel
from keras_bit.transformers_shape.losses import loss_of
from reference_models import TINY

CHECKPOINT = ROOT / "tests" / "checkpoints" / "bit-tiny-cifar10"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")


@pytest.fixture(scope="module")
def features():
    return BitModel(BitConfig(**TINY))


@pytest.fixture(scope="module")
def classifier():
    return BitForImageClassification.from_pretrained(CHECKPOINT)


# BitConfig


@pytest.mark.slow
def test_initializing_a_model_from_a_bit_configuration():
    configuration = BitConfig()
    model = BitModel(configuration)
    assert model.config == configuration
    # transformers' example has [1, 2048, 7, 7] for 224 px.
    assert list(model.compute_output_shape((1, 224, 224, 3))["last_hidden_state"]) == [1, 7, 7, 2048]


# BitModel, BitForImageClassification


@pytest.mark.live
@pytest.mark.parametrize("ours", [BitModel, BitForImageClassification, BitBackbone], ids=lambda kind: kind.__name__)
def test_a_call_has_the_arguments_of_forward_in_their_order(ours):
    import transformers

    def named(function):
        parameters = inspect.signature(function).parameters.values()
        return [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]

    assert named(ours.__call__) == [*named(getattr(transformers, ours.__name__).forward), "training"]


def test_the_model_gives_the_last_hidden_state_and_its_pooled_form(features):
    outputs = features(IMAGES)
    assert list(outputs) == ["last_hidden_state", "pooler_output"]
    assert list(outputs.last_hidden_state.shape) == [2, 2, 2, 128]
    assert list(outputs.pooler_output.shape) == [2, 128]


def test_hidden_states_are_the_stem_and_every_stage(features):
    found = features(IMAGES, output_hidden_states=True).hidden_states
    assert [list(values.shape) for values in found] == [
        [2, 16, 16, 16],
        [2, 16, 16, 32],
        [2, 8, 8, 64],
        [2, 4, 4, 96],
        [2, 2, 2, 128],
    ]


def test_without_return_dict_it_is_a_tuple_of_what_there_is(features, classifier):
    assert [type(value) for value in features(IMAGES, True, False)[2:]] == [tuple]
    assert len(features(IMAGES, return_dict=False)) == 2
    assert len(classifier(IMAGES, return_dict=False)) == 1
    assert len(classifier(IMAGES, np.array([1, 2]), True, False)) == 3


@pytest.mark.parametrize(
    ("config", "labels", "same"),
    [
        ({"num_labels": 3}, np.array([0, 2]), {"problem_type": "single_label_classification"}),
        ({"num_labels": 3}, np.eye(3, dtype=np.float32)[:2], {"problem_type": "multi_label_classification"}),
        ({"num_labels": 1}, np.array([0.5, 2.0], np.float32), {"problem_type": "regression"}),
    ],
)
def test_labels_give_the_loss_of_their_kind_and_one_label_is_a_regression(config, labels, same):
    outputs = BitForImageClassification(BitConfig(**TINY | config))(IMAGES, labels=labels)
    assert list(outputs) == ["loss", "logits"]
    assert float(outputs.loss) == float(loss_of(outputs.logits, labels, BitConfig(**TINY | config | same)))


def test_the_largest_logit_has_a_name(classifier):
    logits = classifier(IMAGES).logits
    assert classifier.config.id2label[int(keras.ops.argmax(logits, -1)[0])] in classifier.config.label2id


@pytest.mark.parametrize("ours", [BitModel, BitForImageClassification], ids=lambda kind: kind.__name__)
def test_the_pages_example_runs(ours, tmp_path, monkeypatch, capsys):
    """It is in the class' docstring, which says what differs from transformers'. Here it reads a small checkpoint."""
    PICTURE.save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    for example in doctest.DocTestParser().get_examples(ours.__doc__):
        exec(example.source.replace('"google/bit-50"', repr(str(CHECKPOINT))), names)
    assert type(names["model"]) is ours
    if ours is BitModel:
        assert list(names["outputs"].last_hidden_state.shape)[::3] == [1, 512]
    else:
        assert capsys.readouterr().out.strip() in names["model"].config.label2id
