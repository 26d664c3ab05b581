"""Tests the contact sheet: it shows the images that the model sees, with any label."""

import numpy as np
import pytest

from image_files import pixels
from keras_bit import BitImageProcessor
from keras_bit.drawing import colors, contact_sheet, lettering

NAMES = ["cat", "dog", "fox"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_mean": 0.5, "image_std": 0.5},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
    ],
)
def test_denormalizing_gives_the_pixels_back(options):
    image = pixels(0, 20, 30)
    processor = BitImageProcessor(do_resize=False, do_center_crop=False, **options)
    np.testing.assert_array_equal(contact_sheet.denormalize(processor(image), processor)[0], image)


@pytest.mark.parametrize(
    ("label", "names", "expected"),
    [
        (np.int32(1), NAMES, ["dog"]),
        (np.int32(1), None, ["1"]),
        (np.array([0.27, 0.73, 0], np.float32), NAMES, ["0.73 dog", "+ 0.27 cat"]),
        (np.array([0.2, 0.2, 0.6]), NAMES, ["0.60 fox", "+ 0.20 cat", "+ 0.20 dog"]),
        (np.array([0, 0.999, 0.001]), NAMES, ["dog"]),
        (np.array([1.0, 0, 1.0]), None, ["1.00 0", "+ 1.00 2"]),
        (np.zeros(3), NAMES, ["no label"]),
        (np.int32(0), ["two\nlines\x1b[31m\udce9"], ["two lines [31m "]),
    ],
)
def test_a_label_is_written_in_words(label, names, expected):
    assert contact_sheet.label_text(label, names) == expected


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (6, 3), (24, 6)])
def test_every_image_stands_on_the_sheet_in_order_with_room_for_its_label(count, columns):
    # Colors from dark to light, and none of them the sheet's own.
    images = np.stack([np.full((50, 100, 3), 10 + 8 * index, np.uint8) for index in range(count)])
    sheet = np.asarray(contact_sheet.draw(images, [["a"]] * count, ["title"]))
    height, step = contact_sheet.TILE // 2, contact_sheet.TILE + contact_sheet.GAP
    for index in range(count):
        left = contact_sheet.GAP + index % columns * step
        tile = sheet[:, left : left + contact_sheet.TILE]
        rows = np.flatnonzero((tile == images[index, 0, 0]).all(axis=(1, 2)))
        assert len(rows) == height
        label = tile[rows[-1] + 1 : rows[-1] + 1 + contact_sheet.GAP // 2 + contact_sheet.LINE]
        assert (label < 100).any()


def test_long_lists_of_labels_are_shortened():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    many = [[f"label {index}" for index in range(9)], ["one"]]
    few = [["label 0", "label 1", f"{lettering.ELLIPSIS} 7 more"], ["one"]]
    np.testing.assert_array_equal(contact_sheet.draw(images, many, ["t"]), contact_sheet.draw(images, few, ["t"]))


def test_a_title_that_is_too_long_is_wrapped_within_the_sheet():
    images = np.zeros((1, 8, 8, 3), np.uint8)
    short = contact_sheet.draw(images, [["a"]], ["one line"])
    long = contact_sheet.draw(images, [["a"]], ["a title of many words " * 6, "x" * 500])
    assert long.width == short.width == 2 * contact_sheet.TILE
    assert long.height > short.height
    edge = np.asarray(long)[: long.height - short.height, -contact_sheet.GAP + 1 :]
    assert (edge == colors.BACKGROUND).all()


def test_a_character_missing_in_all_fonts_is_escaped(monkeypatch):
    monkeypatch.setattr(lettering, "FONTS", ("no such font.ttf",))
    names = ["cat", "日本 cat", "\N{GRINNING FACE}"]
    assert [contact_sheet.label_text(np.int32(number), names)[0] for number in range(3)] == [
        "cat",
        r"1: \u65e5\u672c cat",
        r"2: \U0001f600",
    ]
    assert contact_sheet.label_text(np.array([0.5, 0.5, 0]), names) == ["0.50 cat", r"+ 0.50 1: \u65e5\u672c cat"]
    sheets = [contact_sheet.draw(np.zeros((1, 8, 8, 3), np.uint8), [["日"]], [title]) for title in ("日", r"\u65e5")]
    np.testing.assert_array_equal(*sheets)
