"""Tests data sets of images without labels: the same images as with labels, and refusals."""

import re

import numpy as np
import pytest
import tensorflow as tf

from image_files import PROCESSOR, make_folders, pixels
from keras_bit import HyperRule, Recipe, image_dataset
from keras_bit.data import dataset as module

ARRAYS = [pixels(seed) for seed in range(5)]
MIXED = HyperRule(20_000, 32)
PLAIN = HyperRule(5, 32)


def dataset(source, **options):
    return image_dataset(source, **{"processor": PROCESSOR, "batch_size": 3, "label_mode": "unlabeled", **options})


@pytest.mark.parametrize("with_tensorflow", [True, False])
@pytest.mark.parametrize("rule", [None, PLAIN, MIXED], ids=["evaluation", "training", "MixUp"])
def test_images_are_those_of_a_labeled_data_set(rule, with_tensorflow, monkeypatch):
    monkeypatch.setattr(module, "has_tensorflow", lambda: with_tensorflow)
    options = {"training": rule is not None, "rule": rule, "seed": 3}
    data, labeled = dataset(ARRAYS, **options), dataset((ARRAYS, [0, 1, 0, 1, 1]), **options, label_mode=None)
    assert len(data) == len(labeled) == 2
    for images, (expected, _) in zip(data, labeled, strict=True):
        np.testing.assert_array_equal(images, expected)
    assert (data.class_names, data.class_counts) == (None, None)
    assert data.processor == labeled.processor


def test_a_directory_stands_for_the_images_in_it_at_any_depth(tmp_path):
    inside = make_folders(tmp_path / "folder", {"a": 2, "b": 1})
    (tmp_path / "folder" / "b" / "deeper").mkdir()
    inside.append(inside[0].rename(tmp_path / "folder" / "b" / "deeper" / "x.jpg"))
    (beside,) = make_folders(tmp_path / "beside", {"c": 1})
    expected = [np.squeeze(PROCESSOR(path), axis=0) for path in (*inside[1:], beside)]
    found = np.concatenate(list(dataset([tmp_path / "folder", str(beside)]).as_numpy_iterator()))
    # In the order of folders and names: b/000.jpg before b/deeper/x.jpg.
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.concatenate(list(dataset(str(tmp_path / "folder")))), expected[:3])


@pytest.mark.parametrize(
    ("source", "options", "facts"),
    [
        (ARRAYS, {"class_names": ["a"]}, ("`class_names`", "no classes")),
        (
            ARRAYS,
            {"training": True, "recipe": Recipe(PLAIN, sampling="balanced")},
            ("`sampling`", "'balanced'", "no classes"),
        ),
        ((ARRAYS, [0] * 5), {}, ("`source`", "tuple", "without labels")),
        (tf.data.Dataset.range(3), {}, ("`source`", "without labels")),
        (["a.jpg", ARRAYS[0]], {}, ("`source[0]`", "only paths")),
        ([], {}, ("at least one image",)),
    ],
    ids=["class names", "sampling", "a pair", "a stream", "a mixture", "nothing"],
)
def test_sources_with_labels_or_without_images_are_refused(source, options, facts):
    with pytest.raises(ValueError, match=re.escape(facts[0])) as caught:
        dataset(source, **options)
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)


def test_a_missing_or_empty_directory_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        dataset(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no image"):
        dataset(tmp_path)
