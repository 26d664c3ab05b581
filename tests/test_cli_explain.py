"""Tests `keras-bit explain` as a user runs it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import TINY, open_tiny_once, tiny, tiny_processor
from command_line import run as run_command
from image_files import pixels


@pytest.fixture(autouse=True)
def once(monkeypatch):
    open_tiny_once(monkeypatch)


@pytest.fixture
def image(tmp_path) -> str:
    Image.fromarray(pixels(0, 60, 90)).save(tmp_path / "an image.png")
    return str(tmp_path / "an image.png")


def run(capsys, *arguments):
    return run_command(capsys, "explain", *arguments)


def test_the_most_probable_class_is_drawn_and_printed(capsys, image, tmp_path):
    out = tmp_path / "heat.png"
    code, told, _ = run(capsys, image, "--out", str(out), "--weights", str(TINY))
    assert code == 0
    scores = np.asarray(tiny()(tiny_processor()(image)))[0]
    label = tiny().config.id2label[int(scores.argmax())]
    assert told == f"{out}: {label}: {scores.max():.1%}\n"
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) > 448
    assert sorted(file.name for file in tmp_path.iterdir()) == ["an image.png", "heat.png"]


def test_another_class_is_printed_with_the_answer_and_has_another_map(capsys, image, tmp_path):
    scores = np.asarray(tiny()(tiny_processor()(image)))[0]
    worst = int(scores.argmin())
    label = tiny().config.id2label[worst]
    sheets = []
    for number, name in enumerate((label.upper(), str(worst), str(int(scores.argmax())))):
        out = tmp_path / f"{number}.png"
        code, told, _ = run(capsys, image, "--out", str(out), "--weights", str(TINY), "--class", name)
        assert code == 0
        assert ("the model says" in told) == (number < 2)
        sheets.append(np.asarray(Image.open(out)))
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert sheets[0].shape != sheets[2].shape or (sheets[0] != sheets[2]).any()


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--class", "truk"), ("--class", "'truk'", "9 (truck)")),
        (("--class", "10"), ("--class", "0 to 9", "10")),
        (("--out", "no such folder/heat.png"), ("--out", "no such folder")),
        (("--weights", "./nowhere"), ("nowhere",)),
    ],
)
def test_wrong_arguments_give_one_line_and_write_nothing(capsys, image, tmp_path, arguments, facts):
    code, told, error = run(capsys, image, "--out", str(tmp_path / "heat.png"), "--weights", str(TINY), *arguments)
    assert (code, told) == (1, "")
    (line,) = error.splitlines()
    assert all(fact in line for fact in facts)
    assert [file.name for file in tmp_path.iterdir()] == ["an image.png"]


def test_the_image_itself_is_not_overwritten(capsys, image):
    before = Path(image).read_bytes()
    code, _, error = run(capsys, image, "--out", image, "--weights", str(TINY))
    assert code == 2
    assert "--out must be another file than IMAGE" in error
    assert Path(image).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.png", "'missing.png' does not exist"), (".", "is a directory"), (__file__, "is not an image file")],
)
def test_a_file_that_is_not_an_image_is_reported(capsys, tmp_path, name, message):
    (tmp_path / "heat.png").write_bytes(b"of another run")
    code, _, error = run(capsys, name, "--out", str(tmp_path / "heat.png"), "--weights", str(TINY))
    assert code == 1
    assert message in error
    assert (tmp_path / "heat.png").read_bytes() == b"of another run"


def test_a_checkpoint_without_a_head_is_refused(capsys, image, tmp_path):
    import safetensors.numpy

    folder = tmp_path / "headless"
    folder.mkdir()
    for file in ("config.json", "preprocessor_config.json"):
        (folder / file).write_bytes((TINY / file).read_bytes())
    tensors = safetensors.numpy.load_file(TINY / "model.safetensors")
    kept = {name: values for name, values in tensors.items() if not name.startswith("classifier")}
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(kept))
    code, _, error = run(capsys, image, "--out", str(tmp_path / "heat.png"), "--weights", str(folder))
    assert code == 1
    assert "head" in error
    assert not (tmp_path / "heat.png").exists()
