"""Tests `keras-bit classify` as a user runs it: possible images, output, and images that cannot be read."""

import base64
import contextlib
import csv
import http.server
import io
import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import TINY, copy_of_tiny, open_tiny_once, run, tiny, tiny_processor
from image_files import encoded, make_folders, pixels
from keras_bit import BitImageProcessor
from keras_bit.cli import images

ATOL = 1e-6  # of probabilities: in batches of other sizes, and on other processors, sums are in another order


@pytest.fixture(autouse=True)
def once(monkeypatch):
    open_tiny_once(monkeypatch)


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> list[str]:
    """Writes images of several shapes. The tests only read them."""
    directory = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    paths = []
    for name, shape in (("wide.png", (80, 120, 3)), ("high.jpg", (150, 70, 3)), ("gray.png", (64, 64))):
        paths.append(str(directory / name))
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(paths[-1])
    return paths


def classify(capsys, *arguments, weights=TINY):
    return run(capsys, "classify", *arguments, "--weights", weights)


def as_json(capsys, *arguments, weights=TINY):
    code, out, err = classify(capsys, *arguments, "--json", weights=weights)
    return code, json.loads(out), err


def assert_same(found, expected):
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    scores = [[row["score"] for row in predictions] for predictions in (found, expected)]
    np.testing.assert_allclose(*scores, atol=ATOL)


def test_a_table_has_every_image(capsys, three, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # a narrower terminal folds the names, whose folders are the machine's
    code, out, _ = classify(capsys, *three, "--top", "2")
    assert code == 0
    labels = tiny().config.id2label.values()
    assert sum(any(f" {label} " in line for label in labels) for line in out.splitlines()) == 6
    assert all(Path(image).name in out for image in three)


def test_json_says_what_the_model_says(capsys, three):
    code, results, _ = as_json(capsys, *three)
    assert code == 0
    assert [result["file"] for result in results] == three
    for image, result in zip(three, results, strict=True):
        scores = np.asarray(tiny()(tiny_processor()(image)))[0]
        assert [int(found["id"]) for found in result["predictions"]] == np.argsort(-scores)[:5].tolist()
        found = [prediction["score"] for prediction in result["predictions"]]
        np.testing.assert_allclose(found, np.sort(scores)[::-1][:5], atol=ATOL)
        assert result["predictions"][0]["label"] == tiny().config.id2label[int(scores.argmax())]


def test_csv_says_the_same_in_a_row_for_each_label(capsys, three):
    code, out, _ = classify(capsys, *three, "missing.png", "--csv", "--top", "2")
    assert code == 1
    _, results, _ = as_json(capsys, *three, "--top", "2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["file"], int(row["rank"])) for row in rows] == [(image, rank) for image in three for rank in (1, 2)]
    for start, result in enumerate(results):
        found = [row | {"score": float(row["score"])} for row in rows[2 * start : 2 * start + 2]]
        assert_same(found, result["predictions"])
        assert [row["id"] for row in found] == [row["id"] for row in result["predictions"]]


def test_unreadable_files_get_a_line_each_and_the_others_are_classified(capsys, three, tmp_path):
    bad = {
        "text.jpg": "is not an image file",
        "broken.jpg": "is a damaged image file",
        "empty.png": "is empty",
        "deep.png": "16",
        "missing.png": "does not exist",
        "folder": "holds no image",
    }
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "broken.jpg").write_bytes(Path(three[1]).read_bytes()[:300])
    (tmp_path / "empty.png").touch()
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "folder").mkdir()
    first, *others = (str(tmp_path / name) for name in bad)
    code, results, err = as_json(capsys, first, three[0], *others)
    assert code == 1
    assert [("error" in result) for result in results] == [True, False, True, True, True, True, True]
    lines = err.strip().splitlines()
    for path, words, line in zip((first, *others), bad.values(), lines, strict=True):
        assert line.startswith("keras-bit classify: ")
        assert path in line
        assert words in line


def test_names_are_printed_without_control_characters(capsys, three, tmp_path):
    names = ["[bold]cat.png", ":dog:.png", os.fsdecode(b"caf\xe9.png"), "two\nlines.png", "\x1b[31mred.png"]
    paths = [str(tmp_path / name) for name in names]
    for path in paths:
        Path(path).write_bytes(Path(three[0]).read_bytes())
    code, out, _ = classify(capsys, *paths, "--top", "1")
    assert code == 0
    table = "".join(line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│"))
    for name in ("[bold]cat.png", ":dog:.png", r"caf\udce9.png", r"two\nlines.png", r"\x1b[31mred.png"):
        assert name in table
    _, results, _ = as_json(capsys, *paths, "--top", "1")
    assert [result["file"] for result in results] == paths


@pytest.mark.parametrize("command", ["classify", "explain"])
def test_a_text_that_does_not_name_a_file_is_shortened_in_its_error(capsys, tmp_path, command):
    out = ["--out", tmp_path / "heat.png"] if command == "explain" else []
    text = base64.b64encode(np.random.default_rng(0).bytes(60_000)).decode()
    jpeg = base64.b64encode(encoded(pixels(0))).decode()
    for name, words in (
        (text, "is a base64 string, not a file"),
        (jpeg[:200], "is a base64 string, not a file"),
        (f"data:image/jpeg;base64,{jpeg}", "is a data URI, not a file"),
        (".".join(["photo"] * 4000), "cannot be read: File name too long"),
        ("photos/" * 100 + "cat.jpg", "does not exist"),
    ):
        code, printed, err = run(capsys, command, name, "--weights", TINY, *out)
        assert (code, printed) == (1, "")
        (line,) = err.splitlines()
        assert words in line
        assert len(line) < 400


def test_an_image_is_turned_upright_first(capsys, tmp_path):
    shown = np.zeros((90, 60, 3), np.uint8)
    shown[:30] = (250, 40, 20)
    upright, turned = tmp_path / "upright.png", tmp_path / "turned.png"
    Image.fromarray(shown).save(upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: rotate by 90 degrees clockwise to see it
    Image.fromarray(np.rot90(shown).copy()).save(turned, exif=exif)
    _, (first, second), _ = as_json(capsys, upright, turned)
    assert_same(first["predictions"], second["predictions"])


def test_one_image_named_twice_is_classified_twice(capsys, three):
    _, results, _ = as_json(capsys, three[0], three[0])
    assert [result["file"] for result in results] == [three[0], three[0]]


def test_many_images_come_in_order_and_are_read_batch_by_batch(capsys, three, monkeypatch):
    many = three * 7
    events = []
    opened, predict = images.opened, tiny(fused=True).predict_on_batch
    monkeypatch.setattr(images, "opened", lambda *passed: events.append("read") or opened(*passed))
    monkeypatch.setattr(
        tiny(fused=True), "predict_on_batch", lambda batch: events.append(len(batch)) or predict(batch), raising=False
    )
    _, results, _ = as_json(capsys, *many, "--top", "1")
    assert [result["file"] for result in results] == many
    for index, result in enumerate(results):
        assert_same(result["predictions"], results[index % 3]["predictions"])
    sizes = [event for event in events if event != "read"]
    assert sizes == [8, 8, 5]
    assert events.index(8) == 9  # one image more than the batch was opened


# What images may be


def listed(*arguments):
    return [name if problem is None else (name, problem) for name, problem in images.listed(arguments)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    directory = tmp_path_factory.mktemp("named") / "photos"
    make_folders(directory, {"cat": 2, "dog": 1})
    (directory / "note.txt").write_text("no image")
    (directory / "[1].jpg").write_bytes(b"")
    (directory / ".hidden.jpg").write_bytes(b"")
    return directory


def test_a_folder_is_its_images_at_any_depth(folders):
    below = [f"{folders}/{name}" for name in ("[1].jpg", "cat/000.jpg", "cat/001.jpg", "dog/000.jpg")]
    with pytest.warns(UserWarning, match=r"Left out in '.*photos': 1 \.txt, 1 hidden\."):
        assert listed(str(folders)) == below
    assert listed(f"{folders}/dog", f"{folders}/cat") == [below[3], *below[1:3]]


def test_a_pattern_is_the_files_that_it_matches(folders, monkeypatch):
    assert listed(f"{folders}/cat/*1.jpg") == [f"{folders}/cat/001.jpg"]
    assert listed(f"{folders}/**/*0.jpg") == [f"{folders}/cat/000.jpg", f"{folders}/dog/000.jpg"]
    assert listed(f"{folders}/[cd]*") == [f"{folders}/{name}" for name in ("cat/000.jpg", "cat/001.jpg", "dog/000.jpg")]
    assert listed(f"{folders}/*.txt") == [f"{folders}/note.txt"]  # the pattern asks for it
    assert listed(f"{folders}/[1].jpg") == [f"{folders}/[1].jpg"]  # there is a file of that very name
    monkeypatch.setenv("HOME", str(folders))
    assert listed("~/cat/*.jpg") == [f"{folders}/cat/000.jpg", f"{folders}/cat/001.jpg"]
    ((name, problem),) = listed(f"{folders}/*.webp")
    assert name == f"{folders}/*.webp"
    assert "matches no file" in problem


def test_a_list_comes_from_standard_input(capsys, folders, monkeypatch):
    lines = f"{folders}/dog\n\n{folders}/cat/000.jpg\r\nhttp://127.0.0.1:9/x.jpg\ncaf".encode() + b"\xe9.jpg"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert listed("first.jpg", "-", "last.jpg") == [
        "first.jpg",
        f"{folders}/dog/000.jpg",
        f"{folders}/cat/000.jpg",
        "http://127.0.0.1:9/x.jpg",
        os.fsdecode(b"caf\xe9.jpg"),
        "last.jpg",
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    code, out, err = classify(capsys, "-")
    assert (code, out) == (1, "")
    assert "Standard input" in err


def test_files_that_are_left_out_of_a_folder_are_reported_once(capsys, folders):
    code, results, err = as_json(capsys, f"{folders}", f"{folders}")
    assert code == 1  # one of its images is empty
    assert len(results) == 8
    assert err.count(f"keras-bit classify: Left out in {str(folders)!r}: 1 .txt, 1 hidden.\n") == 1


def test_folders_patterns_and_lists_are_classified(capsys, folders, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{folders}/cat/001.jpg".encode())))
    code, results, err = as_json(capsys, f"{folders}/dog", f"{folders}/cat/*0.jpg", "-")
    assert (code, err) == (0, "")
    names = ("dog/000.jpg", "cat/000.jpg", "cat/001.jpg")
    assert [result["file"] for result in results] == [f"{folders}/{name}" for name in names]


class Web(http.server.BaseHTTPRequestHandler):
    photo = encoded(pixels(0))

    def do_GET(self):
        if self.path == "/moved.jpg":
            self.send_response(302)
            self.send_header("Location", "/cat.jpg")
            self.end_headers()
        elif self.path in ("/cat.jpg", "/%20%C3%A4.jpg?size=1"):
            self.answer(self.photo)
        elif self.path == "/text.jpg":
            self.answer(b"no image")
        elif self.path == "/large.jpg":
            self.answer(self.photo * 200)
        elif self.path == "/silent.jpg":
            self.server.over.wait(30)
        elif self.path == "/slow.jpg":
            self.send_response(200)
            self.end_headers()
            while not self.server.over.wait(0.05):
                self.wfile.write(b"\xff")
        else:
            self.send_error(404)

    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def handle(self):
        with contextlib.suppress(OSError):  # the client has heard enough
            super().handle()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def web():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        server.over = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.over.set()
        server.shutdown()
        thread.join()


def test_addresses_are_read_from_the_web(capsys, web, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(Web.photo)
    addresses = [f"{web}/cat.jpg", f"{web}/moved.jpg", f"{web}/ ä.jpg?size=1"]
    code, results, err = as_json(capsys, tmp_path / "cat.jpg", *addresses)
    assert (code, err) == (0, "")
    assert [result["file"] for result in results[1:]] == addresses
    for result in results[1:]:
        assert_same(result["predictions"], results[0]["predictions"])


def test_an_address_that_gives_no_image_is_named_with_the_reason(capsys, web, monkeypatch):
    monkeypatch.setattr(images, "SILENCE", 0.5)
    monkeypatch.setattr(images, "PATIENCE", 0.5)
    monkeypatch.setattr(images, "MOST_BYTES", 100_000)
    cases = {
        f"{web}/missing.jpg": "404",
        f"{web}/text.jpg": "is not an image file",
        f"{web}/large.jpg": "more than 0 MB",
        f"{web}/silent.jpg": "does not answer",
        f"{web}/slow.jpg": "has not sent all after",
        "http://127.0.0.1:9/x.jpg": "does not answer",
        "http://": "does not answer",
        "http://[/x.jpg": "does not answer",
    }
    code, results, err = as_json(capsys, *cases, f"{web}/cat.jpg")
    assert code == 1
    assert ["error" in result for result in results] == [True] * len(cases) + [False]
    for (address, words), line in zip(cases.items(), err.splitlines(), strict=True):
        assert line.startswith("keras-bit classify: ")
        assert address in line
        assert words in line


@pytest.mark.parametrize("user", ["anna:s3cret", "anna:s3c@s3cret", "s3cret"])
@pytest.mark.parametrize("format", ["--json", "--csv", "--top=1"])
def test_no_password_of_an_address_is_shown(capsys, web, monkeypatch, user, format):
    open_tiny_once(monkeypatch)
    address = f"{web}/cat.jpg".replace("http://", f"http://{user}@")
    code, out, err = run(capsys, "classify", address, "--weights", TINY, format)
    assert code == 1
    assert "s3c" not in out + err
    assert "http://***@127.0.0.1:" in err
    assert "/cat.jpg has a user or a password, which are not sent. Download the image" in err
    _, out, err = run(capsys, "classify", "x.jpg", "--server", f"http://{user}@127.0.0.1:9", format)
    assert "s3c" not in out + err
    assert "without a user, got one with an '@'" in err


def test_an_at_sign_behind_the_host_stays():
    assert images.shown("https://example.org/@anna/cat.jpg?by=a@b") == "https://example.org/@anna/cat.jpg?by=a@b"
    assert images.shown("a@b://c@d.jpg") == "a@b://c@d.jpg"


# What a model, or Pillow, does not take


def test_a_model_whose_processor_makes_images_below_32_px_is_refused(capsys, three, tmp_path):
    directory = copy_of_tiny(tmp_path / "small", processor=BitImageProcessor(size=16, crop_size=16))
    code, _, err = classify(capsys, three[0], weights=directory)
    assert code == 1
    assert "at least 32 px" in err
    assert "16x16" in err


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_an_image_under_32_px_gets_its_line_wherever_it_stands(capsys, tmp_path, order):
    sizes = [(80, 90), (64, 70), (20, 20)]
    paths = []
    for width, height in sizes:
        paths.append(str(tmp_path / f"{width}x{height}.png"))
        Image.new("RGB", (width, height)).save(paths[-1])
    unresized = copy_of_tiny(tmp_path / "copy", processor=BitImageProcessor(do_resize=False, do_center_crop=False))
    code, results, err = as_json(capsys, *(paths[index] for index in order), weights=unresized)
    assert code == 1
    assert [result["file"] for result in results if "error" in result] == [paths[2]]
    (line,) = err.splitlines()
    assert line.startswith(f"keras-bit classify: {paths[2]}: ")
    assert "got 20x20" in line


@pytest.mark.parametrize(
    "error", [RuntimeError, NotImplementedError, SyntaxError, MemoryError, Image.DecompressionBombError]
)
def test_every_error_of_pillow_becomes_the_line_of_its_file(capsys, three, monkeypatch, error):
    opened, contents = Image.open, Path(three[1]).read_bytes()

    def failing(file, *arguments):
        if file.getvalue() == contents:
            raise error("no such frame")
        return opened(file, *arguments)

    monkeypatch.setattr(Image, "open", failing)
    code, results, err = as_json(capsys, *three)
    assert code == 1
    assert ["error" in result for result in results] == [False, True, False]
    (line,) = err.splitlines()
    assert three[1] in line
    assert "no such frame" in line
