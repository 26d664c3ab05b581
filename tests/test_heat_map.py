"""Tests the sheet of a class activation map: the part that the model saw, colors by sign, the scale."""

import numpy as np
import pytest
from PIL import Image

from image_files import pixels
from keras_bit import BitImageProcessor
from keras_bit.drawing import colors, heat_map


@pytest.mark.parametrize(
    ("options", "size", "part"),
    [
        ({"size": 64, "crop_size": 64}, (100, 60), "the middle 60x60 of 100x60 px, which the model sees"),
        ({"size": 80, "crop_size": 64}, (40, 80), "the middle 32x32 of 40x80 px, which the model sees"),
        ({"size": (64, 96), "do_center_crop": False}, (50, 50), "the whole image"),
        ({"do_resize": False, "do_center_crop": False}, (70, 40), "the whole image"),
        ({"do_resize": False, "crop_size": 48}, (40, 40), "the middle 48x48 of 40x40 px, which the model sees"),
    ],
)
def test_the_drawing_shows_the_pixels_of_the_model_at_their_places(options, size, part):
    # Brightness rises along both axes, so the value of a pixel shows its position.
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.linspace(60, 250, width), np.linspace(60, 250, height)[:, None]
    processor = BitImageProcessor(do_rescale=False, do_normalize=False, resample=2, **options)
    found = heat_map.seen(Image.fromarray(ramp), processor)
    assert found.part == part
    given = processor(ramp)[0]
    assert found.image.size == (len(found.columns), len(found.rows))
    assert max(found.image.size) == heat_map.SIDE
    shown = np.asarray(found.image, float)
    rows, columns = (np.rint(places).astype(int).clip(0) for places in (found.rows, found.columns))
    expected = given[rows.clip(max=given.shape[0] - 1)][:, columns.clip(max=given.shape[1] - 1)]
    inside = (expected[..., 0] > 0) & (shown[..., 0] > 0)
    # An image's own pixel, and half a pixel of the model's: the ramp rises by 5 of 255 with each.
    assert np.abs(shown - expected)[inside].max() <= 16
    assert inside.mean() > 0.6


def test_colors_say_for_or_against_and_nothing_where_there_is_neither():
    image = Image.fromarray(pixels(0, 200, 300))
    heat = np.zeros((200, 300))
    heat[:, :100], heat[:, 200:] = -2, 4
    sheet = np.asarray(heat_map.draw(image, heat, ["title"], "cat", ["note"]), int)
    top = next(
        row
        for row in range(len(sheet))
        if (sheet[row, heat_map.GAP : heat_map.GAP + 300] == np.asarray(image)[0]).all()
    )
    np.testing.assert_array_equal(sheet[top : top + 200, heat_map.GAP : heat_map.GAP + 300], np.asarray(image))
    over = sheet[top : top + 200, 2 * heat_map.GAP + 300 : 2 * heat_map.GAP + 600]
    against, neither, towards = over[:, :100], over[:, 100:200], over[:, 200:]
    assert (neither.max(axis=-1) == neither.min(axis=-1)).all()  # gray
    assert (against[..., 2] > against[..., 0]).all()
    assert (towards[..., 0] > towards[..., 2]).all()
    # Half as strong, half as much color.
    assert np.ptp(against.mean(axis=(0, 1))) < np.ptp(towards.mean(axis=(0, 1)))


@pytest.mark.parametrize("size", [(448, 40), (40, 448), (448, 448)])
def test_names_of_any_kind_and_images_of_any_shape_have_room(size):
    image = Image.new("RGB", size)
    heat = np.zeros((size[1], size[0]))  # an untrained head
    sheet = heat_map.draw(image, heat, ["two\nlines " * 40, "\udce9"], "日本\x1b" * 40, ["a note of many words " * 30])
    edge = np.asarray(sheet)[:, -heat_map.GAP + 1 :]
    assert (edge == colors.BACKGROUND).all()
