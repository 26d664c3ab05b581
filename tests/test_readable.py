"""Tests that unreadable images are found before anything is computed, and that they are those the processor refuses."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from image_files import PROCESSOR, encoded, pixels
from keras_bit import image_dataset
from keras_bit.data import parts, readable
from keras_bit.data.skipped import ImagesLeftOut

IMAGES = {
    "right.jpg": encoded(pixels(0)),
    "right.png": encoded(pixels(1), "PNG"),
    "cmyk.jpg": encoded(Image.fromarray(pixels(2)).convert("CMYK")),
    "right.tif": encoded(pixels(3), "TIFF"),
    "empty.jpg": b"",
    "text.png": b"no image",
    "cut.jpg": encoded(pixels(4))[:-300],
    "cut.png": encoded(pixels(5), "PNG")[:-900],
    "16 bits.png": encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"),
    "floats.tif": encoded(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"),
}
HEADERS_ARE_WRONG = ["empty.jpg", "text.png", "16 bits.png", "floats.tif"]


@pytest.fixture
def part(tmp_path):
    for name, contents in IMAGES.items():
        (tmp_path / name).write_bytes(contents)
    names = [*IMAGES, "gone.jpg"]
    return parts.of_files([os.fsencode(tmp_path / name) for name in names], np.zeros(len(names), np.int32))


def names_of(part, found):
    assert all(line.startswith(f"{part.names[number]} ") for number, line in found.items())
    return [os.path.basename(part.names[number]) for number in found]


def test_a_whole_check_finds_the_images_that_the_processor_cannot_read(part):
    def is_read(name):
        try:
            PROCESSOR(name)
        except (OSError, ValueError):
            return False
        return True

    found = readable.unreadable(part, whole=True, shown="read")
    assert names_of(part, found) == [os.path.basename(name) for name in part.names if not is_read(name)]
    for number, words in (
        (4, "is empty. Replace or remove it."),
        (5, "is not an image file that Pillow can read. Convert it to JPEG or PNG, or remove it."),
        (8, "if it has 16."),
        (10, "cannot be read: there is no such file. Check the path and its permissions."),
    ):
        assert found[number].endswith(words)


def test_the_messages_are_those_of_the_readers(part):
    found = readable.unreadable(part, whole=True, shown="read")
    data = image_dataset(part.everything, processor=PROCESSOR, batch_size=4, on_error="skip")
    with pytest.warns(ImagesLeftOut):
        list(data)
    assert data.skipped == list(found.values())
    headers = readable.unreadable(part, whole=False, shown="check")
    assert headers == {number: found[number] for number in headers}


def test_a_whole_check_finds_a_jpeg_of_too_many_scans(tmp_path, monkeypatch):
    contents = encoded(pixels(0), progressive=True)
    start = contents.rindex(b"\xff\xda")
    (tmp_path / "many.jpg").write_bytes(contents[:-2] + contents[start:-2] * 40 + b"\xff\xd9")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels(0)[..., 0].size)  # twice as many are allowed, in 40 scans
    part = parts.of_files([os.fsencode(tmp_path / "many.jpg")], np.zeros(1, np.int32))
    (line,) = readable.unreadable(part, whole=True, shown="read").values()
    assert "many.jpg is a JPEG of more than 40 scans" in line


def test_a_check_of_headers_finds_files_that_are_not_images(part):
    found = readable.unreadable(part, whole=False, shown="check")
    assert names_of(part, found) == [*HEADERS_ARE_WRONG, "gone.jpg"]


def test_large_parts_are_looked_at_once_until_a_file_changes(part, tmp_path, monkeypatch):
    noted = tmp_path / "noted.json"
    readable.unreadable(part, whole=False, shown="check", noted=noted)
    assert not noted.exists()  # it is small
    monkeypatch.setattr(readable, "LARGE", 1)
    looked = []
    problem = readable.problem
    monkeypatch.setattr(readable, "problem", lambda name, *other: looked.append(name) or problem(name, *other))
    found = [readable.unreadable(part, whole=False, shown="check", noted=noted) for _ in range(2)]
    assert found[0] == found[1]
    assert len(looked) == len(part)
    (tmp_path / "empty.jpg").write_bytes(IMAGES["right.jpg"])
    assert 4 not in readable.unreadable(part, whole=False, shown="check", noted=noted)
    assert len(looked) == 2 * len(part)
    noted.write_text("{")
    assert 4 not in readable.unreadable(part, whole=False, shown="check", noted=noted)
    assert len(json.loads(noted.read_text())) == 1


DAMAGED = [
    "null",
    "[]",
    "[" * 5000 + "]" * 5000,
    *({"99": "x"}, {"-1": "x"}, {"²": "x"}, {"9" * 5000: "x"}, {"4": None}),
]


@pytest.mark.parametrize("damage", [*DAMAGED, None, 5, ["x"]])
def test_a_note_of_other_values_is_looked_at_again(part, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(readable, "LARGE", 1)
    noted = tmp_path / "noted.json"
    found = readable.unreadable(part, whole=False, shown="check", noted=noted)
    [key] = json.loads(noted.read_text())
    noted.write_text(damage if isinstance(damage, str) else json.dumps({key: damage}))
    assert readable.unreadable(part, whole=False, shown="check", noted=noted) == found
    assert list(json.loads(noted.read_text())) == [key]
