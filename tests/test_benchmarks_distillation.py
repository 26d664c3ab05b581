"""Tests `python -m benchmarks distillation` with the smallest network."""

import numpy as np
import pytest

from benchmarks import checkpoints, distillation, report
from image_files import make_folders, pixels
from keras_bit import BitConfig

pytestmark = [
    pytest.mark.usefixtures("eagerly"),  # few steps, and a graph for each model
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option"),
]
TINY = BitConfig(embedding_size=32, hidden_sizes=(64, 128), depths=(1, 1), num_groups=4, num_labels=3)


@pytest.mark.slow
def test_each_way_is_trained_and_reported_with_its_spread(tmp_path):
    for part in ("train", "test"):
        make_folders(tmp_path / part, dict.fromkeys("abc", 4))
    weights = str(checkpoints.write(tmp_path / "bit", TINY, image_size=32))
    setting = distillation.Setting(labeled=4, unlabeled=6, test_images=8, steps=2, batch_size=4)
    found = distillation.measure(tmp_path, weights, setting, seeds=(0, 1))
    rows = {row.name: row for row in found.rows}
    for way in distillation.WAYS:
        for name in ("accuracy", "agreement"):
            values = [100 * one[name] for one in found.measurements[way]]
            assert len(values) == 2
            assert rows[f"{way}: {name}"].ours == pytest.approx(np.mean(values))
            assert f"spread {np.std(values, ddof=1):.2f}, {min(values):.2f} to " in rows[f"{way}: {name}"].details
    gained = [
        100 * (taught["agreement"] - plain["agreement"])
        for taught, plain in zip(found.measurements["teacher"], found.measurements["labels"], strict=True)
    ]
    least = rows["teacher: smallest gain in agreement over labels, of all seeds"]
    assert (least.ours, least.met) == (pytest.approx(min(gained)), min(gained) >= 0)
    assert len(report.cells(found)) == 9
    with pytest.raises(ValueError, match=r"must hold a folder named test, and 13 images in train"):
        distillation.measure(tmp_path, weights, distillation.Setting(labeled=7, unlabeled=6), seeds=(0,))


def test_a_student_has_a_quarter_of_the_widths():
    config = distillation.narrower(TINY)
    assert (config.embedding_size, config.hidden_sizes, config.depths) == (8, (16, 32), (1, 1))
    assert config.id2label == TINY.id2label


@pytest.mark.parametrize("labels", [None, np.array([0, 2, 1, 2])], ids=["images alone", "labels"])
def test_the_images_are_moved_and_mixed_alike_with_labels_and_without(labels):
    images = np.stack([pixels(seed, 32, 32) for seed in range(4)]).astype(np.float32)
    (batch,) = distillation._batches(images, labels, 3, 4, seed=5).take(1)
    (other,) = distillation._batches(images, np.array([0, 2, 1, 2]), 3, 4, seed=5).take(1)
    taken = batch if labels is None else batch[0]
    np.testing.assert_array_equal(taken, other[0])
    assert taken.shape == images.shape
    np.testing.assert_allclose(np.sum(other[1], axis=1), 1, rtol=1e-6)
