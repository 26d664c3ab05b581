"""Tests what is found in a directory before it is read: images of every kind, parts, classes, and what is left out."""

import os
import re
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from image_files import PROCESSOR, collect, encoded, make_folders, pixels
from keras_bit import image_dataset
from keras_bit.cli import images
from keras_bit.data import folders, split_names, splits, walk
from keras_bit.embedding import lists

COUNTS = {"cat": 3, "dog": 2}
COMPOSED, DECOMPOSED = "caf\xe9", "cafe\u0301"


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def named(root, found):
    return [os.path.relpath(os.fsdecode(path), root) for path in found]


def by_every_way(root, tmp_path):
    """Returns the images that fine-tuning, evaluation, embedding and classifying find, relative to the directory."""
    classes = folders.class_names_in(root)
    listed = lists.list_images(root, tmp_path / "list", 1000)
    return {
        "finetune": named(root, folders.class_folders(root).paths),
        "evaluate": named(root, folders.scan(root, classes, walk.LeftOut())[0]),
        "embed": list(map(os.fsdecode, listed.names(0))),
        "classify": named(root, [name for name, _ in images.listed([str(root)])]),
    }


# Which files are images


def test_the_suffixes_are_those_that_pillow_decodes_by_itself():
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    undecoded = {".eps", ".ps", ".wmf", ".emf", ".h5", ".hdf", ".grib", ".bufr", ".mpg", ".mpeg", ".fit", ".fits"}
    # Without libavif or OpenJPEG Pillow does not register them.
    optional = {".avif", ".avifs", ".webp", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx", ".mpo", ".qoi"}
    assert known - undecoded - {".pfm"} - optional == set(walk.SUFFIXES) - optional
    assert list(walk.SUFFIXES) == sorted(walk.SUFFIXES)


@pytest.mark.filterwarnings("ignore::keras_bit.data.walk.DirectoryWarning")
def test_every_way_reads_the_same_files(tmp_path):
    root = tmp_path / "data"
    for kind, name in (
        ("JPEG", "a/1.JPG"),
        ("JPEG", "a/2.jfif"),
        ("TIFF", "a/deep/er/3.tif"),
        ("PNG", "b/without_suffix"),
        ("GIF", "b/x.gif"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(pixels(1), kind))
    touch(root, "a/notes.txt", "a/README", "b/clip.mp4", "b/other.MP4", "b/document.pdf")
    found = by_every_way(root, tmp_path)
    expected = ["a/1.JPG", "a/2.jfif", "a/deep/er/3.tif", "b/without_suffix", "b/x.gif"]
    assert found == dict.fromkeys(found, expected)
    with pytest.warns(walk.DirectoryWarning, match=r"': 2 \.mp4, 1 \.pdf, 1 \.txt, 1 without a suffix\."):
        data = image_dataset(root, processor=PROCESSOR, batch_size=2)
    assert data.class_names == ["a", "b"]


@pytest.mark.filterwarnings("ignore::keras_bit.data.walk.DirectoryWarning")
def test_folders_of_operating_systems_are_left_out_and_reported(tmp_path):
    root = tmp_path / "data"
    make_folders(root, COUNTS)
    touch(root, "__MACOSX/cat/._000.jpg", "@eaDir/cat.jpg", ".ipynb_checkpoints/x.jpg", "lost+found/y.jpg", "loose.txt")
    touch(
        root,
        "$RECYCLE.BIN/z.jpg",
        "cat/Thumbs.db",
        "cat/._000.jpg",
        "loose.jpg",
        "dog/@eaDir/000.jpg/SYNOPHOTO_THUMB_M.jpg",
    )
    (root / "empty").mkdir()
    expected = ["cat/000.jpg", "cat/001.jpg", "cat/002.jpg", "dog/000.jpg", "dog/001.jpg"]
    found = by_every_way(root, tmp_path)
    assert sorted(found.pop("embed")) == sorted(found.pop("classify")) == [*expected, "loose.jpg"]
    assert found == dict.fromkeys(found, expected)
    said = folders.class_folders(root)
    assert said.class_names == ("cat", "dog")
    assert said.left_out.hidden == 2
    assert said.left_out.empty == ["empty"]
    assert set(said.left_out.system) == {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "Thumbs.db"}
    assert said.notes == (
        f"Left out in {str(root)!r}: 2 hidden, $RECYCLE.BIN, 2 @eaDir, Thumbs.db, __MACOSX, lost+found, 1 image "
        "next to the folders, without an image: empty.",
    )


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not walk.is_image(str(tmp_path / "pipe"))


def test_links_to_folders_are_followed_unless_they_are_read_anyway(tmp_path):
    root = tmp_path / "data"
    make_folders(root, COUNTS)
    touch(tmp_path / "pool", "1.jpg", "deep/2.jpg")
    (tmp_path / "pool" / "back").symlink_to(root)
    (tmp_path / "pool" / "self").symlink_to(tmp_path / "pool")
    (root / "cat" / "more").symlink_to(tmp_path / "pool")
    (root / "cat" / "dogs").symlink_to(root / "dog")
    (root / "fox").symlink_to(tmp_path / "pool")  # a class may be a link
    left_out = walk.LeftOut()
    found = list(walk.images_below(root, left_out))
    assert found == [
        *(f"cat/00{number}.jpg" for number in range(3)),
        *("cat/more/1.jpg", "cat/more/deep/2.jpg"),
        *("dog/000.jpg", "dog/001.jpg"),
        *("fox/1.jpg", "fox/deep/2.jpg"),
    ]
    assert sorted(left_out.links) == ["cat/dogs", "cat/more/back", "cat/more/self", "fox/back", "fox/self"]


# Which folders are classes


def parts_of(data):
    found = splits.open_splits(data, validation_share=0.2, seed=0)
    counts = [None if part is None else len(part) for part in (found.train, found.validation, found.test)]
    return found.class_names, counts, found.notes


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("TRAINING", "dev", "testing"),
        ("training", "validation", "eval"),
        ("seg_train", "seg_val", "seg_test"),
        ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
        ("train_images", "val_images", "test_images"),
        ("pets-train", None, "pets-test"),
        ("training_set", None, "test_set"),
        ("TrainData", "ValData", "TestData"),
        ("train2017", "val2017", None),
        ("01 - Training", "02 - Validation", "03 - Test"),
        ("train ", "Valid.", "test"),
        ("train", "val images", "testset"),
        ("images_train", "images_val", "images_test"),
        ("dogs vs cats train", None, "dogs vs cats test1"),
    ],
)
def test_parts_are_known_by_their_names(tmp_path, train, validation, test):
    sizes = {train: {"cat": 4, "dog": 3}, validation: {"cat": 2, "dog": 1}, test: {"dog": 1}}
    for name, counts in sizes.items():
        if name:
            make_folders(tmp_path / name, counts)
    classes, counts, _ = parts_of(tmp_path)
    assert classes == ("cat", "dog")
    assert counts == [7, 3 if validation else 1, 1 if test else None]
    # As one data set it would have the parts as its classes.
    with pytest.raises(split_names.NotClassesError) as error:
        image_dataset(tmp_path, processor=PROCESSOR, batch_size=2)
    assert str(tmp_path / train) in str(error.value)
    assert "pass `class_names`" in str(error.value)


def test_folders_next_to_the_parts_are_left_out_and_reported(tmp_path):
    make_folders(tmp_path / "seg_train", COUNTS), make_folders(tmp_path / "seg_test", COUNTS)
    touch(tmp_path, "seg_pred/1.jpg", "__MACOSX/1.jpg")
    _, counts, notes = parts_of(tmp_path)
    assert counts == [5, 5, 5]
    assert any(note.startswith("Left out: the folder seg_pred") for note in notes)
    assert any("__MACOSX" in note for note in notes)


def test_two_folders_for_the_same_part_are_refused(tmp_path):
    for part in ("train", "Train", "val"):
        make_folders(tmp_path / part, COUNTS)
    if len(os.listdir(tmp_path)) == 3:  # the disk tells them apart
        with pytest.raises(split_names.NotClassesError, match="has several folders for train: Train, train"):
            parts_of(tmp_path)


def test_folders_of_classes_that_were_not_named_are_left_out_and_said(tmp_path):
    for part in ("train", "val"):
        make_folders(tmp_path / part, {**COUNTS, "fox": 1})
    for data in (tmp_path, tmp_path / "train"):
        found = splits.open_splits(data, validation_share=0, seed=0, class_names=["dog", "cat"])
        assert found.class_names == ("dog", "cat")
        assert np.bincount(found.train.labels).tolist() == [2, 3]
        said = [note for note in found.notes if note.endswith("the folders of other classes, fox.")]
        assert len(said) == (2 if data == tmp_path else 1)


@pytest.mark.parametrize("names", [("train", "train1"), ("valid", "invalid"), ("test", "control"), ("Val", "Tom")])
def test_classes_may_have_a_word_of_a_part_in_their_names(tmp_path, names):
    for name in (*names, "other"):
        make_folders(tmp_path, {name: 2})
    assert folders.class_folders(tmp_path).class_names == tuple(sorted((*names, "other")))


def test_of_several_folders_for_a_part_the_plain_name_wins_with_a_message(tmp_path):
    for part in ("train", "test", "test_images"):
        make_folders(tmp_path / part, COUNTS)
    _, counts, notes = parts_of(tmp_path)
    assert counts == [5, 5, 5]
    assert any(note.startswith("Left out: the folder test_images in") for note in notes)


def class_first_in_one(root):
    make_folders(root / "cat", {"train": 2, "Test": 1}), make_folders(root, {"dog": 3})


def class_first(root):
    for name in ("cat", "dog"):
        make_folders(root / name, {"train": 2, "test": 1})


def folds(root):
    for name in ("fold1", "fold2"):
        make_folders(root / name, COUNTS)


# What makes the folders, and what the error says.
NOT_CLASSES = {
    "parts without classes": (
        lambda root: make_folders(root, {"train": 2, "test": 2}),
        ("test, train", "without a folder per class"),
    ),
    "classes first": (class_first, ("cat, dog", "test, train", "Make a folder for each part")),
    "parts of digits and words without classes": (
        lambda root: make_folders(root, {"train": 2, "test1": 2}),
        ("test1, train", "without a folder per class"),
    ),
    "parts with something shared, without classes": (
        lambda root: make_folders(root, {"seg_train": 2, "seg_test": 2, "seg_pred": 2}),
        ("seg_test, seg_train", "without a folder per class"),
    ),
    "parts and another, without classes": (
        lambda root: make_folders(root, {"train": 2, "test": 2, "unlabeled": 2}),
        ("without a folder per class",),
    ),
    "one class first": (class_first_in_one, ("(cat)", "Test, train", "Make a folder for each part")),
    "the same folders in each": (folds, ("fold1, fold2", "cat, dog", "not clear which are the classes")),
    "a folder around": (
        lambda root: make_folders(root / "flower_photos", COUNTS),
        ("one folder, 'flower_photos'", "Did you mean"),
    ),
    "folders around": (
        lambda root: make_folders(root / "flowers" / "flower_photos" / "flower_photos", COUNTS),
        ("one folder, 'flowers/flower_photos/flower_photos'", "Did you mean"),
    ),
    "a folder around, and an empty one": (
        lambda root: [make_folders(root / "flower_photos", COUNTS), (root / "docs").mkdir()],
        ("one folder, 'flower_photos'", "Did you mean"),
    ),
    "a folder around parts, beside one without images": (
        lambda root: (
            [make_folders(root / "images" / part, COUNTS) for part in ("train", "val")]
            + [(root / "labels" / "train").mkdir(parents=True)]
        ),
        ("one folder, 'images'", "Did you mean"),
    ),
    "a folder around parts": (
        lambda root: [make_folders(root / "pets" / part, COUNTS) for part in ("train", "val")],
        ("one folder, 'pets'", "Did you mean"),
    ),
}


@pytest.mark.parametrize("case", NOT_CLASSES)
def test_folders_that_are_not_the_classes_are_refused_unless_named(tmp_path, case):
    make, facts = NOT_CLASSES[case]
    make(tmp_path)
    for opened in (lambda **names: folders.class_folders(tmp_path, **names), lambda: parts_of(tmp_path)):
        with pytest.raises(split_names.NotClassesError) as error:
            opened()
        assert all(fact in str(error.value) for fact in facts)
    names = tuple(walk.folders_in(tmp_path))
    assert folders.class_folders(tmp_path, names).class_names == names


def test_one_folder_of_the_same_name_in_each_class_is_where_its_images_are(tmp_path):
    for name in COUNTS:  # as in Tiny ImageNet
        make_folders(tmp_path / name, {"images": 3})
    assert folders.class_folders(tmp_path).class_names == ("cat", "dog")


def test_parts_as_labels_of_embeddings_are_said(tmp_path):
    for part in ("Train", "Test"):
        make_folders(tmp_path / "data" / part, COUNTS)
    with pytest.warns(walk.DirectoryWarning, match=r"so their names become the labels: Test, Train\. Pass one of them"):
        assert lists.list_images(tmp_path / "data", tmp_path / "list", 10).count == 10


# Names


@pytest.fixture
def distinguishes(tmp_path):
    """Skips where the disk takes both spellings, or both cases, for one name."""
    for name in (COMPOSED, DECOMPOSED, "A", "a"):
        (tmp_path / name).mkdir(exist_ok=True)
    if len(os.listdir(tmp_path)) != 4:
        pytest.skip("this disk takes names that look the same for one")
    for name in os.listdir(tmp_path):
        shutil.rmtree(tmp_path / name)


@pytest.mark.usefixtures("distinguishes")
def test_names_that_look_the_same_are_one_class(tmp_path):
    assert unicodedata.normalize("NFC", DECOMPOSED) == COMPOSED
    make_folders(tmp_path / "train", {COMPOSED: 2, "tea": 2}), make_folders(tmp_path / "val", {DECOMPOSED: 1, "tea": 1})
    classes, counts, _ = parts_of(tmp_path)
    assert (classes, counts) == ((COMPOSED, "tea") if COMPOSED < "tea" else ("tea", COMPOSED), [4, 2, None])
    found = folders.class_folders(tmp_path / "val", ("tea", COMPOSED))
    assert (found.class_names, found.labels.tolist()) == (("tea", COMPOSED), [0, 1])
    (tmp_path / "train" / DECOMPOSED).mkdir()
    with pytest.raises(ValueError, match="two folders whose names look the same") as error:
        parts_of(tmp_path)
    assert r"caf\xe9" in str(error.value)
    assert r"cafe\u0301" in str(error.value)


@pytest.mark.usefixtures("distinguishes")
def test_names_that_differ_in_case_are_different_classes_and_are_reported(tmp_path):
    make_folders(tmp_path / "one", {"Cat": 1, "cat": 1})
    assert folders.class_folders(tmp_path / "one").notes == (
        f"Cat and cat in {str(tmp_path / 'one')!r} differ only in case, but are 2 classes.",
    )
    make_folders(tmp_path / "two" / "train", COUNTS), make_folders(tmp_path / "two" / "val", {"Cat": 1})
    with pytest.raises(
        ValueError,
        match=r"lacks: Cat\. The training images have cat: names that differ in case or spaces are different classes\.",
    ):
        parts_of(tmp_path / "two")


@pytest.mark.parametrize("other", ["cat ", "c at", "cat_", "cat\u200b", "cat\u00a0", "\uff43at"])
def test_names_that_look_alike_are_different_classes_and_are_reported(tmp_path, other):
    make_folders(tmp_path / "one", {"cat": 1, other: 1, "dog": 1})
    (note,) = folders.class_folders(tmp_path / "one").notes
    assert note.endswith("look alike, but are 2 classes.")
    assert folders.shown(other) in note
    make_folders(tmp_path / "two" / "train", COUNTS), make_folders(tmp_path / "two" / "val", {other: 1})
    with pytest.raises(ValueError, match="differ in case or spaces are different classes") as error:
        parts_of(tmp_path / "two")
    assert f"lacks: {folders.shown(other)}. The training images have cat: " in str(error.value)


def test_a_class_that_links_to_another_one_is_reported(tmp_path):
    make_folders(tmp_path, COUNTS)
    (tmp_path / "puma").symlink_to(tmp_path / "cat")
    found = folders.class_folders(tmp_path)
    assert found.class_names == ("cat", "dog", "puma")
    assert found.notes == (f"puma in {str(tmp_path)!r} is a link to cat: its images count twice.",)


def test_missing_and_extra_folders_of_a_part_are_reported(tmp_path):
    make_folders(tmp_path / "train", COUNTS), make_folders(tmp_path / "val", {"cat": 2})
    (tmp_path / "val" / "fox").mkdir()
    _, counts, notes = parts_of(tmp_path)
    assert counts == [5, 2, None]
    assert "The data set has no image of dog to validate with." in notes
    assert f"Left out in {str(tmp_path / 'val')!r}: without an image: fox." in notes


def test_archives_that_were_not_unpacked_are_named(tmp_path):
    make_folders(tmp_path, COUNTS)
    touch(tmp_path, "fox.zip", "cat/more.tar.gz", "cat/notes.txt")
    (note,) = folders.class_folders(tmp_path).notes
    assert note.endswith("1 .txt, not unpacked: fox.zip, more.tar.gz.")


def test_a_sum_of_what_is_left_out_names_the_most_frequent():
    left_out = walk.LeftOut()
    assert not left_out
    for number in range(10):
        left_out.suffixes[f".x{number}"] = 10 - number
    assert str(left_out) == "10 .x0, 9 .x1, 8 .x2, 7 .x3, 6 .x4, 5 .x5, 4 .x6, 3 .x7, 3 other files"


# Subsets


def test_subsets_are_disjoint_and_complete_and_those_of_fine_tuning(tmp_path):
    make_folders(tmp_path, {"ant": 1, "bee": 5, "cat": 10})
    both = [splits.subset_of(tmp_path, None, splits.Subset(0.2, which, seed=3)) for which in ("training", "validation")]
    whole = folders.class_folders(tmp_path)
    assert sorted(both[0].paths + both[1].paths) == sorted(whole.paths)
    # The labels stay those of the whole, also where a class has no image for validation.
    assert [np.bincount(part.labels, minlength=3).tolist() for part in both] == [[1, 4, 8], [0, 1, 2]]
    as_finetune = splits.open_splits(tmp_path, validation_share=0.2, seed=3)
    assert list(map(os.fsdecode, both[1].paths)) == as_finetune.validation.names


def test_a_data_set_of_a_subset_has_the_classes_of_the_whole(tmp_path):
    make_folders(tmp_path, {"ant": 1, "bee": 2})
    options = {"processor": PROCESSOR, "batch_size": 4, "validation_split": 0.5, "seed": 0}
    data = image_dataset(tmp_path, subset="validation", **options)
    assert data.class_names == ["ant", "bee"]
    assert collect(data)[1].tolist() == [1]
    assert len(collect(image_dataset(tmp_path, subset="training", **options))[1]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"subset": None},
            "`subset` must be one of 'training', 'validation', with a `validation_split`, got subset=None",
        ),
        ({"subset": "both"}, "got subset='both' and validation_split=0.2"),
        ({"validation_split": None}, "got subset='training' and validation_split=None"),
        ({"validation_split": 1.0}, "`validation_split` must be between 0 and 1, got 1.0"),
        ({"validation_split": "a"}, "`validation_split` must be a number between 0 and 1, got 'a'"),
        ({"seed": None}, "`seed` must be a whole number of at least 0 with `validation_split`"),
        ({"source": (["a.jpg"], [0])}, "`validation_split` is for a directory with a folder per class"),
    ],
)
def test_an_unknown_subset_is_refused(tmp_path, options, message):
    make_folders(tmp_path, COUNTS)
    given = {"source": tmp_path, "validation_split": 0.2, "subset": "training", "seed": 0} | options
    with pytest.raises(ValueError, match=re.escape(message)):
        image_dataset(**given, processor=PROCESSOR, batch_size=2)
