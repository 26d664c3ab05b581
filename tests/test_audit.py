"""Tests the parts of an audit by comparison with cleanlab, scikit-learn, scipy and Pillow."""

import hashlib
import importlib.util

import numpy as np
import pytest
from PIL import Image, ImageOps

from audit_images import scene
from conftest import absent
from image_files import encoded
from keras_bit.examining import duplicates, label_errors, neighbors, oddities
from keras_bit.examining.collecting import Collection
from keras_bit.examining.image_facts import Facts, facts_of


@pytest.fixture(autouse=True)
def needs_cleanlab():
    for package in ("cleanlab", "sklearn"):
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install 'keras_bit[audit]'")


def clusters(count=300, classes=3, width=16, seed=0):
    """Returns features around a center for each class, and the classes."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.int32)
    centers = np.random.default_rng(7).normal(0, 1, (classes, width))
    return (centers[labels] + generator.normal(0, 0.7, (count, width))).astype(np.float32), labels


def alone(labels):
    """Returns the groups if no image looks like another."""
    return np.arange(len(labels))


# Labels


def test_folds_keep_groups_together_and_spread_every_class():
    classes = np.array([0] * 20 + [1] * 10 + [2] * 2)
    groups = np.arange(32)
    groups[[0, 3, 25]] = 0
    folds = label_errors.folds_of(classes, groups, seed=3)
    assert len(set(folds[[0, 3, 25]])) == 1
    assert np.bincount(folds[4:20], minlength=5).min() >= 2
    assert folds[30] != folds[31]
    np.testing.assert_array_equal(folds, label_errors.folds_of(classes, groups, seed=3))


def test_answers_come_from_a_ridge_regression_on_the_other_folds():
    from sklearn.linear_model import Ridge

    features, labels = clusters()
    folds = label_errors.folds_of(labels, alone(labels), 0)
    scores, known = label_errors.out_of_fold(features, labels, folds)
    assert known.all()
    values = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-5)
    rows = np.pad(values.astype(np.float64), ((0, 0), (0, 1)), constant_values=100.0)
    for fold in range(5):
        inside = folds == fold
        model = Ridge(alpha=4096.0, fit_intercept=False, solver="cholesky")
        model.fit(rows[~inside], 2.0 * np.eye(3)[labels[~inside]] - 1)
        # Float32 features, whose means are rounded.
        np.testing.assert_allclose(scores[inside], model.predict(rows[inside]), rtol=1e-4, atol=1e-6)


def test_planted_errors_are_ranked_first_and_listed_as_cleanlab_does():
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.metrics import roc_auc_score

    features, labels = clusters()
    wrong = np.zeros(len(labels), bool)
    wrong[::20] = True
    given = np.where(wrong, (labels + 1) % 3, labels).astype(np.int32)
    found = label_errors.label_quality(features, given, alone(given))
    assert roc_auc_score(wrong, -found.quality) > 0.99
    np.testing.assert_array_equal(found.suggested[wrong], labels[wrong])
    assert wrong[found.wrong].mean() > 0.8
    scores, _ = label_errors.out_of_fold(features, given, label_errors.folds_of(given, alone(given), 0))
    probable = label_errors.probabilities(scores, given, 0)
    np.testing.assert_allclose(probable.sum(axis=1), 1)
    np.testing.assert_array_equal(found.quality, get_label_quality_scores(given, probable, method="self_confidence"))
    issues = find_label_issues(
        given, probable, filter_by="low_self_confidence", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert found.wrong.tolist() == [one for one in issues.tolist() if found.suggested[one] != given[one]]


def test_copies_in_one_fold_do_not_vouch_for_each_other():
    features, labels = clusters(60)
    # Five copies of an image of class 0, all with the label 1.
    features = np.concatenate([features, features[[0] * 5]])
    classes = np.append(labels, [1] * 5)
    folds = np.arange(60) % 5
    together, _ = label_errors.out_of_fold(features, classes, np.append(folds, [0] * 5))
    apart, _ = label_errors.out_of_fold(features, classes, np.append(folds, range(5)))
    # The same model of fold 0, but that it has seen four of the copies.
    assert together[60, 1] < apart[60, 1]


def test_a_class_of_one_image_is_not_judged():
    features, labels = clusters(61)
    labels[60] = 3
    found = label_errors.label_quality(features, labels, alone(labels))
    assert np.flatnonzero(np.isnan(found.quality)).tolist() == [60]
    assert found.suggested[60] == 3
    assert 60 not in found.wrong
    assert found.suggested[:60].max() == 2


def test_two_classes_and_numbers_that_no_image_has():
    features, labels = clusters(80, classes=2)
    labels = np.where(labels == 1, 4, 1).astype(np.int32)
    labels[0] = 4 if labels[0] == 1 else 1
    found = label_errors.label_quality(features, labels, alone(labels))
    assert np.argmin(found.quality) == 0
    assert set(found.suggested) == {1, 4}


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 1]])
def test_too_few_images_give_no_error_and_no_finding(labels):
    found = label_errors.label_quality(clusters(4)[0], np.array(labels, np.int32), np.arange(4))
    assert np.isnan(found.quality).all()
    assert not len(found.wrong)


# Neighbors


@pytest.mark.parametrize("block", [2**24, 100])
def test_pairs_and_distances_are_those_of_all_pairs(monkeypatch, block):
    from sklearn.neighbors import NearestNeighbors

    monkeypatch.setattr(neighbors, "BLOCK", block)
    thumbnails = np.stack([np.asarray(Image.fromarray(scene(seed)).resize((16, 16))) for seed in range(40)])
    features = np.random.default_rng(0).normal(1, 1, (40, 24)).astype(np.float32)
    thumbnails[7] = np.clip(thumbnails[3].astype(int) + 3, 0, 255)
    thumbnails[30] = thumbnails[12]
    features[7] = features[3] + 0.01
    features[30] = -features[12]  # the same pixels by chance: the network does not agree
    done = []
    found = neighbors.neighbors(features, thumbnails, advance=done.append)
    assert sum(done) == 40
    assert found.pairs.tolist() == [[3, 7]]
    shapes = [one.astype(float) - one.mean(axis=(0, 1)) for one in thumbnails[[3, 7]]]
    assert found.correlations[0] == pytest.approx(np.corrcoef(shapes[0].ravel(), shapes[1].ravel())[0, 1], abs=1e-4)
    model = NearestNeighbors(n_neighbors=11, metric="cosine", algorithm="brute").fit(features)
    expected = model.kneighbors(features)[0][:, 1:].mean(axis=1)
    np.testing.assert_allclose(found.distances, expected, atol=1e-5)  # float32 sums


def test_many_that_look_the_same_are_joined_by_a_few_pairs_of_each():
    same = np.repeat(np.asarray(Image.fromarray(scene(1)).resize((16, 16)))[None], 50, axis=0)
    found = neighbors.neighbors(np.ones((50, 8), np.float32), same)
    assert len(found.pairs) <= 50 * neighbors.PARTNERS
    assert set(duplicates.groups_of(50, found.pairs)) == {0}
    np.testing.assert_allclose(found.distances, 0, atol=1e-6)


def test_one_image_has_no_neighbor():
    found = neighbors.neighbors(np.ones((1, 8), np.float32), np.zeros((1, 16, 16, 3), np.uint8))
    assert (len(found.pairs), found.distances.tolist()) == (0, [0])


def test_groups_are_connected_components():
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = np.random.default_rng(0).integers(0, 60, (40, 2))
    _, expected = connected_components(coo_matrix((np.ones(40), pairs.T), (60, 60)), directed=False)
    found = duplicates.groups_of(60, pairs)
    np.testing.assert_array_equal(found[:, None] == found, expected[:, None] == expected)
    assert all(found[image] <= image for image in range(60))


# Files


def turned_file(folder, tag):
    exif = Image.Exif()
    exif[274] = tag
    file = folder / f"{tag}.jpg"
    file.write_bytes(encoded(Image.fromarray(scene(1)[:, :40]), exif=exif))
    return file


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("orientation", ["upright", "ignore"])
def test_pixels_are_hashed_as_the_processor_sees_them(tmp_path, tag, orientation):
    file = turned_file(tmp_path, tag)
    facts, thumbnail = facts_of(str(file), orientation)
    with Image.open(file) as image:
        expected = ImageOps.exif_transpose(image) if orientation == "upright" else image.copy()
    size = f"{expected.height}x{expected.width} ".encode()
    assert facts.pixels_sha256 == hashlib.sha256(size + expected.tobytes()).hexdigest()
    assert facts.file_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (facts.orientation, facts.height, facts.width) == (tag, expected.height, expected.width)
    np.testing.assert_array_equal(thumbnail, np.asarray(expected.resize((16, 16), Image.Resampling.BOX)))


def saved(folder, name, image, **options):
    image.save(folder / name, **options)
    return facts_of(str(folder / name), "upright")[0]


def test_odd_files_are_found(tmp_path):
    image = Image.fromarray(scene(2))
    plain = saved(tmp_path, "plain.png", image)
    assert (plain.is_gray, plain.is_blank, plain.is_transparent, plain.frames, plain.mode) == (False,) * 3 + (1, "RGB")
    assert saved(tmp_path, "gray.jpg", image.convert("L")).is_gray
    assert saved(tmp_path, "grayish.jpg", image.convert("L").convert("RGB")).is_gray
    assert saved(tmp_path, "print.jpg", image.convert("CMYK")).mode == "CMYK"
    assert saved(tmp_path, "blank.jpg", Image.new("RGB", (40, 30), (200, 10, 10))).is_blank
    opaque, clear = image.convert("RGBA"), image.convert("RGBA")
    clear.putpixel((3, 3), (0, 0, 0, 0))
    assert not saved(tmp_path, "opaque.png", opaque).is_transparent
    assert saved(tmp_path, "clear.png", clear).is_transparent
    assert saved(tmp_path, "film.gif", image, save_all=True, append_images=[Image.fromarray(scene(3))]).frames == 2
    assert saved(tmp_path, "palette.gif", clear).is_transparent


@pytest.mark.parametrize("contents", [b"", b"no image", encoded(scene(1))[:700]])
def test_a_file_that_cannot_be_read_says_why(tmp_path, contents):
    (tmp_path / "broken.jpg").write_bytes(contents)
    facts, thumbnail = facts_of(str(tmp_path / "broken.jpg"), "upright")
    assert "broken.jpg" in facts.problem
    assert not thumbnail.any()


def collection(facts, parts=None, labels=None):
    count = len(facts)
    return Collection(
        tuple(f"{number}.jpg" for number in range(count)),
        tuple(parts or ["train"] * count),
        np.array(labels or [0] * count, np.int32),
        tuple(facts),
        np.zeros((count, 4), np.float32),
        np.zeros((count, 16, 16, 3), np.uint8),
    )


def usual(number=0, **different):
    return Facts(**{"file_sha256": f"f{number}", "pixels_sha256": f"p{number}", "height": 60, "width": 80, **different})


@pytest.mark.parametrize(
    ("different", "kind", "detail"),
    [
        ({"orientation": 6}, "orientation_tag", "on its side"),
        ({"height": 12, "width": 16}, "tiny", "16 x 12 px"),
        ({"mode": "L", "is_gray": True}, "gray", "mode L"),
        ({"mode": "CMYK"}, "cmyk", "CMYK"),
        ({"mode": "RGBA", "is_transparent": True}, "transparent", "RGBA"),
        ({"frames": 7}, "frames", "7 images"),
        ({"height": 60, "width": 400}, "unusual_shape", "400 x 60 px"),
        ({"height": 400, "width": 60}, "unusual_shape", "60 x 400 px"),
        ({"is_blank": True, "is_gray": True}, "blank", "one color"),
        ({"problem": "no image"}, "unreadable", "no image"),
    ],
)
def test_an_odd_file_among_many_is_a_finding_and_many_are_a_property(different, kind, detail):
    found, notes = oddities.oddities(collection([usual(one) for one in range(20)] + [usual(20, **different)]))
    assert [(one.image, one.kind, one.exclude) for one in found] == [(20, kind, kind == "unreadable")]
    assert detail in found[0].detail
    assert not notes
    if kind in ("orientation_tag", "gray", "cmyk", "transparent", "frames"):
        found, notes = oddities.oddities(collection([usual(one, **different) for one in range(20)] + [usual(20)]))
        assert not found
        assert [note.startswith("20 of 21 images: ") for note in notes] == [True]


def test_outliers_are_far_from_what_is_usual_the_farthest_first():
    distances = np.linspace(0.1, 0.2, 50).astype(np.float32)
    distances[[4, 9]] = 0.8, 0.9
    found = oddities.outliers(np.arange(50) + 100, distances)
    assert [(one.image, round(one.score, 3), one.exclude) for one in found] == [(109, 0.9, False), (104, 0.8, False)]


def test_far_smaller_classes_are_reported():
    images = collection([usual(one) for one in range(25)], ["train"] * 23 + ["test"] * 2, [0] * 22 + [1] + [0, 1])
    counts = oddities.class_counts(images, ["cat", "dog"])
    assert counts == {"train": [22, 1], "test": [1, 1]}
    assert [note[:40] for note in oddities.about_balance(counts, ["cat", "dog"])] == [
        "train: 22 images of cat, and 1 of dog. Ac"[:40]
    ]


# Duplicates


def judged(facts, parts, labels, quality, similar=()):
    images = collection(facts, parts, labels)
    pairs = np.array([*duplicates.exact_pairs(images).tolist(), *[pair for pair, _ in similar]]).reshape(-1, 2)
    groups = duplicates.groups_of(len(facts), pairs)
    found = duplicates.duplicates(images, groups, dict(similar), np.array(quality), ["cat", "dog"])
    return [(one.image, one.kind, one.other, one.detail, one.exclude) for one in found]


def test_the_first_of_equal_images_is_kept():
    facts = [usual(0), usual(1), usual(0), usual(3, pixels_sha256="p0")]
    assert judged(facts, None, None, [1.0] * 4) == [
        (2, "exact_duplicate", 0, "same file", True),
        (3, "exact_duplicate", 0, "same pixels", True),
    ]


def test_of_equal_images_with_two_labels_the_more_probable_one_is_kept():
    assert judged([usual(0), usual(0)], None, [0, 1], [0.1, 0.8]) == [
        (0, "exact_duplicate", 1, "same file; labels differ: cat, dog", True)
    ]


def test_near_duplicates_are_excluded_only_if_their_labels_differ():
    facts = [usual(one) for one in range(4)]
    similar = [((0, 1), 0.97), ((2, 3), 0.98)]
    assert judged(facts, None, [0, 0, 0, 1], [0.9] * 4, similar) == [
        (1, "near_duplicate", 0, "looks the same", False),
        (3, "near_duplicate", 2, "looks the same; labels differ: cat, dog", True),
    ]


def test_a_training_image_in_the_test_is_a_leak_and_the_test_image_stays():
    facts = [usual(0), usual(1), usual(2), usual(2), usual(0), usual(5)]
    parts = ["train"] * 4 + ["test"] * 2
    assert judged(facts, parts, None, [0.9] * 6, [((1, 5), 0.99)]) == [
        (0, "leak", 4, "same file", True),
        (1, "leak", 5, "looks the same", True),
        (3, "exact_duplicate", 2, "same file", True),
    ]


def test_two_copies_that_look_the_same_as_a_third_are_not_each_other_s():
    facts = [usual(0), usual(1), usual(1)]
    assert judged(facts, None, None, [0.9] * 3, [((0, 1), 0.97), ((0, 2), 0.97)]) == [
        (1, "near_duplicate", 0, "looks the same", False),
        (2, "exact_duplicate", 1, "same file", True),
    ]


def test_unreadable_files_do_not_count_as_duplicates():
    assert judged([Facts(problem="broken"), Facts(problem="broken")], None, None, [np.nan] * 2) == []
