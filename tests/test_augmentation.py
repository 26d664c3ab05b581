"""Compares BiT's augmentation with Pillow and numpy, and its random numbers with their distributions."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from image_files import HALF, PROCESSOR, collect, encoded, pixels
from keras_bit import BitImageProcessor, HyperRule, image_dataset
from keras_bit.data import geometry
from keras_bit.data.geometry import AREAS, ASPECT_RATIOS, random_part, random_place
from keras_bit.data.graph_augmentation import augment, uniform_numbers
from keras_bit.data.mixing import beta, mix_up

RULE = HyperRule(100, 32)  # 160, cropped to 128
PIXELS = pixels(0, 90, 140)
ROOM = 160 - 128


def seeds(count):
    return np.stack([np.arange(count), np.full(count, 5)], axis=1)


def uniform(count, random_resized_crop=False):
    """Returns the random choices for `count` images, a row for each."""
    return np.random.default_rng(0).random((count, geometry.numbers_needed(random_resized_crop)))


def in_graph(function):
    return tf.function(lambda values: tf.map_fn(function, values, fn_output_signature=tf.float32))


def find(crop, resized):
    """Finds where `crop`, or its mirror image, lies in `resized`: (top, left, flipped)."""
    for flipped, candidate in ((False, crop), (True, crop[:, ::-1])):
        for top, left in np.ndindex(ROOM + 1, ROOM + 1):
            if np.array_equal(resized[top : top + 128, left : left + 128], candidate):
                return top, left, flipped
    raise AssertionError("the crop is not part of Pillow's image")


@pytest.mark.parametrize(("resample", "encode"), [(2, True), (3, True), (2, False)])
def test_a_training_image_is_a_crop_of_pillows_resized_one_flipped_or_not(resample, encode):
    plain = BitImageProcessor(resample=resample, do_rescale=False, do_normalize=False)
    contents = tf.constant(encoded(PIXELS, "PNG")) if encode else tf.constant(PIXELS)
    augmented = in_graph(lambda numbers: augment(contents, numbers, plain, RULE, False, None))
    resized = np.asarray(Image.fromarray(PIXELS).resize((160, 160), resample))  # whatever the aspect ratio
    found = [find(crop.astype(np.uint8), resized) for crop in augmented(uniform(20)).numpy()]
    assert len(set(found)) > 15
    assert {flipped for _, _, flipped in found} == {False, True}


def test_the_images_are_rescaled_and_normalized_as_the_processor_does():
    processor = BitImageProcessor()
    plain = BitImageProcessor(resample=3, do_rescale=False, do_normalize=False)
    contents = tf.constant(encoded(PIXELS, "PNG"))
    raw, normal = (
        in_graph(lambda s, p=p: augment(contents, s, p, RULE, False, None))(uniform(3)) for p in (plain, processor)
    )
    expected = processor(raw.numpy().astype(np.uint8), do_resize=False, do_center_crop=False)
    np.testing.assert_array_equal(normal, expected)


@pytest.mark.slow
def test_half_of_the_images_are_flipped_and_every_place_is_as_probable():
    count = 20_000
    places = np.array([random_place(ROOM, numbers, np) for numbers in uniform(count)], np.float32)
    for axis in range(2):
        found = np.bincount(places[:, axis].astype(int), minlength=ROOM + 1)
        assert len(found) == ROOM + 1
        expected = count / (ROOM + 1)
        assert ((found - expected) ** 2 / expected).sum() < 63  # chi square of 32 degrees: above in 0.1 % of runs
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.03
    # Dark on the left: what is dark on the right was flipped.
    slope = np.repeat(np.linspace(0, 255, 14)[None, :, None], 3, axis=2).repeat(9, axis=0).astype(np.uint8)
    arrays = np.stack([slope] * 2000)
    data = image_dataset((arrays, [0] * 2000), processor=PROCESSOR, batch_size=100, training=True, rule=RULE, seed=0)
    flipped = np.concatenate([images[:, 0, 0, 0] > images[:, 0, -1, 0] for images, _ in data.as_numpy_iterator()])
    print(f"{flipped.mean():.3f} of {flipped.size} flipped")
    assert abs(flipped.mean() - 0.5) < 0.04  # 3.5 standard deviations


def test_the_inception_crop_has_its_areas_shapes_and_pillows_values():
    height, width = 300, 400
    parts = np.array([random_part(height, width, numbers, np) for numbers in uniform(3000, True)], np.float32)
    top, left, high, wide = parts.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + high <= height).all()
    assert (left + wide <= width).all()
    areas, ratios = high * wide / (height * width), wide / high
    print(f"areas {areas.min():.3f} to {areas.max():.3f}, ratios {ratios.min():.2f} to {ratios.max():.2f}")
    assert areas.min() > AREAS[0] - 0.002  # sides are rounded
    assert areas.min() < 0.07
    assert areas.max() > 0.9
    assert ratios.min() > ASPECT_RATIOS[0] - 0.02
    assert ratios.max() < ASPECT_RATIOS[1] + 0.02

    plain = BitImageProcessor(resample=2, do_rescale=False, do_normalize=False)
    for contents in (tf.constant(encoded(PIXELS, "JPEG")), tf.constant(PIXELS)):
        source = Image.fromarray(
            PIXELS if contents.dtype == tf.uint8 else tf.io.decode_jpeg(contents, dct_method="INTEGER_ACCURATE").numpy()
        )
        numbers = uniform(8, True)
        crops = in_graph(lambda one, image=contents: augment(image, one, plain, RULE, True, None))(numbers).numpy()
        for row, found in zip(numbers, crops, strict=True):
            top, left, high, wide = map(int, random_part(90, 140, row, np))
            part = source.crop((left, top, left + wide, top + high)).resize((128, 128), 2)
            assert any(np.array_equal(candidate, np.asarray(part)) for candidate in (found, found[:, ::-1]))


def test_the_graph_cuts_at_the_same_pixel_as_numpy():
    spec = [tf.TensorSpec([], tf.int32)] * 2 + [tf.TensorSpec([geometry.numbers_needed(True)], tf.float64)]
    of_graph = tf.function(
        lambda height, width, row: random_part(height, width, row, tf.experimental.numpy), spec, autograph=False
    )
    sides = np.exp(np.random.default_rng(1).uniform(0, 8.5, (300, 2))).astype(int)
    for (height, width), row in zip(sides.tolist(), uniform(300, True), strict=True):
        top, left, high, wide = part = list(map(int, random_part(height, width, row, np)))
        assert list(map(int, of_graph(height, width, row))) == part
        assert min(top, left) >= 0
        assert min(high, wide) > 0
        assert top + high <= height
        assert left + wide <= width


def test_the_inception_crops_areas_are_those_of_tensorflows_own():
    areas = []
    for seed in seeds(400):
        _, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            [300, 400, 3],
            tf.zeros([1, 0, 4]),
            seed,
            min_object_covered=0.0,
            aspect_ratio_range=ASPECT_RATIOS,
            area_range=AREAS,
            use_image_if_no_bounding_boxes=True,
        )
        areas.append(np.prod(size[:2].numpy()) / 120_000)
    parts = [random_part(300, 400, row, np) for row in uniform(4000, True)]
    own = [int(part.height) * int(part.width) / 120_000 for part in parts]
    points = np.linspace(0.05, 1, 25)
    shares = [np.searchsorted(np.sort(some), points) / len(some) for some in (areas, own)]
    distance = np.abs(shares[0] - shares[1]).max()
    print(f"largest distance of the distributions {distance:.4f}")
    assert distance < 0.102  # Kolmogorov and Smirnov's: above in 0.1 % of runs of 400 and 4,000


def test_a_seed_gives_the_same_numbers_again():
    rows = [uniform_numbers(tf.constant([1, number], tf.int64), 3).numpy() for number in (1, 1, 2)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])


def test_mixup_is_one_weight_for_the_batch_and_another_image_of_it():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(6, 4, 5, 3)).astype(np.float32)
    labels = np.eye(6, dtype=np.float32)  # each image a class: the mixed labels tell the weight and the order
    seen = []
    for seed in seeds(30):
        mixed, rows = (part.numpy() for part in mix_up(tf.constant(images), tf.constant(labels), seed, 1.0))
        weights = [rows[place, place] for place in range(6)]
        # The place of the other image, which is the image's own where the order leaves it there.
        others = np.where(np.eye(6) == 1, 0, rows)
        order = [int(row.argmax()) if row.any() else place for place, row in enumerate(others)]
        weight = min(weights)
        assert sorted(order) == list(range(6))
        expected = np.float32(weight) * images + (1 - np.float32(weight)) * images[order]
        np.testing.assert_allclose(mixed, expected, atol=2e-6)
        np.testing.assert_allclose(rows, weight * labels + (1 - weight) * labels[order], atol=1e-6)
        seen.append((round(float(weight), 4), *order))
    assert len(set(seen)) == 30


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_the_weights_have_the_beta_distribution(alpha):
    weights = np.sort(in_graph(lambda seed: beta(seed, alpha))(seeds(20_000)).numpy())
    assert np.isfinite(weights).all()
    expected = np.sort(np.random.default_rng(0).beta(alpha, alpha, 400_000))
    points = np.linspace(0.02, 0.98, 25)
    distance = np.abs(
        np.searchsorted(weights, points) / len(weights) - np.searchsorted(expected, points) / len(expected)
    )
    print(f"alpha {alpha}: largest distance of the distributions {distance.max():.4f}")
    assert distance.max() < 0.0138  # Kolmogorov and Smirnov's: above in 0.1 % of runs of 20,000


@pytest.mark.slow
def test_the_pipeline_mixes_images_if_the_rule_says_so():
    arrays = [pixels(index) for index in range(8)]
    options = {"processor": PROCESSOR, "batch_size": 4, "training": True, "seed": 1, "class_names": list("abcdefgh")}
    images, labels = collect(image_dataset((arrays, range(8)), rule=HyperRule(20_000, 32), **options))
    assert labels.dtype == np.float32
    assert labels.shape == (8, 8)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    plain_images, plain = collect(image_dataset((arrays, range(8)), rule=HyperRule(19_999, 32), **options))
    assert plain.dtype == np.int32
    # The same images before they are mixed, so the labels say what has to come out.
    for start in (0, 4):
        batch, rows = plain_images[start : start + 4], labels[start : start + 4][:, plain[start : start + 4]]
        np.testing.assert_allclose(images[start : start + 4], np.tensordot(rows, batch, 1), atol=1e-5)
    rows = np.eye(8, dtype=np.float32)[:, :5]
    assert collect(image_dataset((arrays, rows), rule=HyperRule(20_000, 32), **{**options, "class_names": None}))[
        1
    ].shape == (8, 5)
    assert HALF["resample"] == PROCESSOR.resample
