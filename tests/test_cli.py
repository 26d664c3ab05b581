"""The commands, run as a person runs them: output, exit codes, and what happens to files that cannot be read."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_bit import BiT, BitConfig, BitImageProcessor, from_pretrained
from keras_bit.cli import main
from picture_files import encoded, make_folders, pixels

TINY = Path(__file__).parent / "checkpoints" / "bit-tiny-cifar10"


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    generator = np.random.default_rng(0)
    paths = []
    for name, shape in (("wide.png", (80, 120, 3)), ("high.jpg", (150, 70, 3)), ("grey.png", (64, 64))):
        path = tmp_path / name
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    code = main.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_classify_prints_a_table_with_every_picture(capsys, pictures):
    code, out, _ = run(capsys, "classify", *pictures, "--weights", str(TINY), "--top", "2")
    assert code == 0
    labels = from_pretrained(TINY).config.id2label.values()
    assert sum(any(f" {label} " in line for label in labels) for line in out.splitlines()) == 6
    assert all(Path(picture).name in out.replace("\n", "") for picture in pictures)


def test_classify_as_json_says_what_the_model_says(capsys, pictures):
    code, out, _ = run(capsys, "classify", *pictures, "--weights", str(TINY), "--json")
    assert code == 0
    results = json.loads(out)
    assert [result["file"] for result in results] == pictures
    model, processor = from_pretrained(TINY), BitImageProcessor.from_pretrained(TINY)
    for picture, result in zip(pictures, results, strict=True):
        scores = np.asarray(model(processor(picture)))[0]
        assert [int(found["id"]) for found in result["predictions"]] == np.argsort(-scores)[:5].tolist()
        found = [prediction["score"] for prediction in result["predictions"]]
        np.testing.assert_allclose(found, np.sort(scores)[::-1][:5], atol=1e-6)  # the graph sums in another order
        assert result["predictions"][0]["label"] == model.config.id2label[int(scores.argmax())]


def test_unreadable_files_get_a_line_each_and_the_others_are_classified(capsys, pictures, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(pictures[1]).read_bytes()[:300])
    empty = tmp_path / "empty.png"
    empty.touch()
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(deep)
    bad = [str(text), str(broken), str(empty), str(deep), str(tmp_path / "missing.png"), str(tmp_path)]
    code, out, err = run(capsys, "classify", bad[0], pictures[0], *bad[1:], "--weights", str(TINY), "--json")
    assert code == 1
    results = json.loads(out)
    assert [("error" in result) for result in results] == [True, False, True, True, True, True, True]
    lines = err.strip().splitlines()
    assert len(lines) == len(bad)
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith("keras-bit classify: ")
        assert path in line
    for words, line in zip(
        ("cannot be read as an image", "cannot be", "cannot be read", "16", "does not exist", "is a directory"),
        lines,
        strict=True,
    ):
        assert words in line


def test_names_are_printed_as_they_are(capsys, pictures, tmp_path):
    names = ["[bold]cat.png", ":dog:.png", os.fsdecode(b"caf\xe9.png"), "two\nlines.png", "\x1b[31mred.png"]
    paths = [str(tmp_path / name) for name in names]
    for path in paths:
        Path(path).write_bytes(Path(pictures[0]).read_bytes())
    code, out, _ = run(capsys, "classify", *paths, "--weights", str(TINY), "--top", "1")
    assert code == 0
    table = "".join(line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│"))
    for name in ("[bold]cat.png", ":dog:.png", r"caf\udce9.png", r"two\nlines.png", r"\x1b[31mred.png"):
        assert name in table
    code, out, _ = run(capsys, "classify", *paths, "--weights", str(TINY), "--top", "1", "--json")
    assert [result["file"] for result in json.loads(out)] == paths


def test_classify_turns_a_picture_upright_first(capsys, tmp_path):
    pixels = np.zeros((90, 60, 3), np.uint8)
    pixels[:30] = (250, 40, 20)
    upright, turned = tmp_path / "upright.png", tmp_path / "turned.png"
    Image.fromarray(pixels).save(upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: rotate by 90 degrees clockwise to see it
    Image.fromarray(np.rot90(pixels).copy()).save(turned, exif=exif)
    _, out, _ = run(capsys, "classify", str(upright), str(turned), "--weights", str(TINY), "--json")
    first, second = json.loads(out)
    assert first["predictions"] == second["predictions"]


def test_one_picture_named_twice_is_classified_twice(capsys, pictures):
    _, out, _ = run(capsys, "classify", pictures[0], pictures[0], "--weights", str(TINY), "--json")
    assert [result["file"] for result in json.loads(out)] == [pictures[0], pictures[0]]


def test_more_pictures_than_a_batch_come_out_in_order(capsys, pictures):
    many = pictures * 7
    _, out, _ = run(capsys, "classify", *many, "--weights", str(TINY), "--json", "--top", "1")
    results = json.loads(out)
    assert [result["file"] for result in results] == many
    assert all(result["predictions"] == results[index % 3]["predictions"] for index, result in enumerate(results))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("classify", "x.png", "--weights", "./nowhere"), "nowhere"),
        (("info", "./nowhere"), "nowhere"),
        (("info", "not a hub id!"), "`source`"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_one_line_and_exit_code_1(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 1
    assert not out
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("classify",),
        ("classify", "x.png", "--top", "0"),
        ("info",),
        ("paint", "x.png"),
        ("plot", "pictures"),
        ("plot", "pictures", "--out", "x.png", "--image-size", "500"),
        ("plot", "pictures", "--out", "x.png", "--image-size", "0x5"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["classify", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "Examples: keras-bit classify" in out
    assert "google/bit-50" in out


def test_info_tells_what_the_files_hold(capsys):
    code, out, _ = run(capsys, "info", str(TINY))
    assert code == 0
    parameters = from_pretrained(TINY).count_params()
    size = (TINY / "model.safetensors").stat().st_size / 1e6
    for words in (f"{parameters:,}", "64x64 px", "airplane", "10 (", "(2, 2, 2)", f"model.safetensors, {size:.1f} MB"):
        assert words in out


def test_a_model_that_shrinks_pictures_below_32_px_is_refused(capsys, pictures, tmp_path):
    directory = tmp_path / "small"
    directory.mkdir()
    for file in ("config.json", "model.safetensors"):
        (directory / file).write_bytes((TINY / file).read_bytes())
    BitImageProcessor(size=16, crop_size=16).save_pretrained(directory)
    code, _, err = run(capsys, "classify", pictures[0], "--weights", str(directory))
    assert code == 1
    assert "at least 32 px" in err
    assert "16x16" in err


@pytest.fixture
def unresized(tmp_path) -> str:
    """A checkpoint whose processor leaves the images' sizes as they are."""
    directory = tmp_path / "unresized"
    directory.mkdir()
    for file in ("config.json", "model.safetensors"):
        (directory / file).write_bytes((TINY / file).read_bytes())
    BitImageProcessor(do_resize=False, do_center_crop=False).save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_picture_under_32_px_gets_its_line_wherever_it_stands(capsys, tmp_path, unresized, order):
    sizes = [(80, 90), (64, 70), (20, 20)]
    paths = []
    for width, height in sizes:
        paths.append(str(tmp_path / f"{width}x{height}.png"))
        Image.new("RGB", (width, height)).save(paths[-1])
    named = [paths[index] for index in order]
    code, out, err = run(capsys, "classify", *named, "--weights", unresized, "--json")
    assert code == 1
    assert [result["file"] for result in json.loads(out) if "error" in result] == [paths[2]]
    assert err.splitlines() == [
        f"keras-bit classify: {paths[2]}: `pixel_values` must be at least 32 px high and wide, got 20x20. Enlarge the "
        "images first, as `BitImageProcessor` does."
    ]


@pytest.mark.parametrize(
    "error", [RuntimeError, NotImplementedError, SyntaxError, MemoryError, Image.DecompressionBombError]
)
def test_whatever_pillow_raises_on_a_file_is_its_line(capsys, pictures, monkeypatch, error):
    opened = Image.open

    def failing(name, *arguments):
        if name == pictures[1]:
            raise error("no such frame")
        return opened(name, *arguments)

    monkeypatch.setattr(Image, "open", failing)
    code, out, err = run(capsys, "classify", *pictures, "--weights", str(TINY), "--json")
    assert code == 1
    assert ["error" in result for result in json.loads(out)] == [False, True, False]
    assert err.count("\n") == 1
    assert pictures[1] in err
    assert "no such frame" in err


def test_info_reads_names_and_shapes_and_not_the_numbers(capsys, monkeypatch):
    import safetensors

    opened = safetensors.safe_open

    class Shapes:
        def __init__(self, *arguments, **options):
            self.handle = opened(*arguments, **options)

        def __getattr__(self, name):
            assert name != "get_tensor"
            return getattr(self.handle, name)

    monkeypatch.setattr(safetensors, "safe_open", Shapes)
    code, out, _ = run(capsys, "info", str(TINY))
    assert code == 0
    assert "870,314 in 62 tensors" in out


def test_info_of_one_class_and_of_a_processor_without_a_crop(capsys, tmp_path):
    config = BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(1,), num_groups=4, id2label={0: "age"})
    BiT(config).save(tmp_path / "one.keras")
    BitImageProcessor(size=96, do_center_crop=False).save_pretrained(tmp_path)
    code, out, _ = run(capsys, "info", str(tmp_path / "one.keras"))
    assert code == 0
    for words in ("1 (age)", "short edge 96 px", "one.keras", "preprocessor_config.json"):
        assert words in out


@pytest.fixture
def folders(tmp_path) -> Path:
    make_folders(tmp_path / "pictures", {"cat": 5, "dog": 4})
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    "options",
    [(), ("--num-examples", "20000"), ("--random-resized-crop",), ("--evaluation", "--weights", str(TINY))],
)
def test_plot_draws_a_batch_and_the_same_one_for_the_same_seed(capsys, folders, options):
    sheets = []
    for name in ("1.png", "2.png"):
        out = folders.parent / name
        code, printed, _ = run(
            capsys, "plot", str(folders), "--out", str(out), "--seed", "3", "--batch-size", "6", *options
        )
        assert code == 0
        with Image.open(out) as image:
            assert image.format == "PNG"
            assert printed == f"{out}: 6 images, {image.width}x{image.height} px\n"
            sheets.append(np.asarray(image))
    np.testing.assert_array_equal(*sheets)
    assert sorted(path.name for path in folders.parent.iterdir()) == ["1.png", "2.png", "pictures"]


def test_plot_names_broken_pictures_and_draws_the_others(capsys, folders):
    broken = folders / "cat" / "000.jpg"
    broken.write_bytes(b"no picture")
    out = folders.parent / "sheet.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a line each, and not a second time
        code, printed, err = run(capsys, "plot", str(folders), "--out", str(out), "--seed", "0")
    assert code == 1
    assert "8 images" in printed
    assert f"keras-bit plot: {broken} is no JPEG, PNG, GIF, BMP or WebP file." in err
    assert out.exists()


@pytest.mark.parametrize(
    ("data", "out", "message"),
    [
        ("nowhere", "sheet.png", "`source` must be an existing directory or TFRecord files, got 'nowhere'"),
        (".", "sheet.jpg", "`--out` must be a file name that ends in .png, got 'sheet.jpg'."),
        (".", "nowhere/sheet.png", "`--out`: there is no directory"),
    ],
)
def test_plot_without_data_or_a_place_is_one_line_and_exit_code_1(capsys, data, out, message):
    code, printed, err = run(capsys, "plot", data, "--out", out)
    assert (code, printed) == (1, "")
    assert message in err
    assert "Traceback" not in err


def records(path: Path, labels: list) -> str:
    """A TFRecord file of images with these labels, whole numbers or floats."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, label in enumerate(labels):
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(encoded(pixels(number)))
            stored = example.features.feature["image/class/label"]
            (stored.float_list if isinstance(label, float) else stored.int64_list).value.append(label)
            writer.write(example.SerializeToString())
    return str(path)


@pytest.mark.parametrize("in_a_file", [False, True])
def test_plot_mixes_records_up_with_class_names(capsys, tmp_path, in_a_file):
    data, names = records(tmp_path / "a.tfrecord", [0, 1, 1]), "cat, dog"
    if in_a_file:
        (tmp_path / "names.txt").write_text("cat\ndog\n\n")
        names = str(tmp_path / "names.txt")
    out = tmp_path / "sheet.png"
    options = ("--num-examples", "20000", "--out", str(out))
    code, printed, err = run(capsys, "plot", data, "--class-names", names, *options)
    assert (code, err) == (0, "")
    assert f"{out}: 3 images" in printed
    code, _, err = run(capsys, "plot", data, *options)
    assert code == 1
    assert "`class_names` must be given for MixUp" in err


@pytest.mark.parametrize("options", [(), ("--evaluation",)])
def test_plot_takes_the_named_folders_of_a_directory_and_one_is_enough(capsys, folders, options):
    out = folders.parent / "sheet.png"
    with warnings.catch_warnings(action="error", category=UserWarning):
        code, printed, err = run(capsys, "plot", str(folders), "--class-names", "dog", "--out", str(out), *options)
    assert (code, err) == (0, "")
    assert "4 images" in printed


def no_picture(tmp_path: Path) -> str:
    for name in ("cät", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "1.jpg").write_bytes(b"")
    return str(tmp_path / "pictures")


# What makes the data, options, what the line says.
FAILING = {
    "no image": (
        no_picture,
        ("--num-examples", "2", "--image-size", "9x9"),
        "plot: 2 of 2 images were left out; the data",
    ),
    "no image in the first place": (no_picture, (), "cät/1.jpg is empty."),
    "float labels": (lambda folder: records(folder / "a.tfrecord", [0.5]), (), "(1 float), 'image/encoded' (1 bytes)"),
    "no record": (lambda folder: records(folder / "a.tfrecord", []), (), "got no record in "),
    "records of no number": (
        lambda folder: records(folder / "a.tfrecord", [0]),
        (),
        "`--num-examples` must be given for TFRecord files, which do not tell their number.",
    ),
    "a random crop of an evaluation": (
        lambda folder: records(folder / "a.tfrecord", [0]),
        ("--evaluation", "--random-resized-crop"),
        "`random_resized_crop` is for training",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_what_goes_wrong_while_plot_runs_is_one_line_and_exit_code_1(capsys, caplog, tmp_path, case):
    make, options, message = FAILING[case]
    code, printed, err = run(capsys, "plot", make(tmp_path), "--out", str(tmp_path / "sheet.png"), *options)
    assert (code, printed) == (1, "")
    [line] = err.splitlines()
    assert line.startswith("keras-bit plot: ")
    assert message in line
    assert "AutoGraph" not in caplog.text
    assert not any(noise in line for noise in ("Traceback", "{{", "assertion failed", "Op:"))
    assert not (tmp_path / "sheet.png").exists()


def test_the_sentence_in_an_error_of_a_graph_is_found():
    import tensorflow as tf

    text = "/a [1] 'x'\\n\t\N{GREEK SMALL LETTER ALPHA}/日.jpg is empty. [2]"

    def fail(number):
        with tf.control_dependencies([tf.debugging.Assert(number > 0, [text])]):
            return tf.identity(number)

    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        list(tf.data.Dataset.from_tensors(0).map(fail))
    assert main._sentence(error.value) == text.replace("\t", " ")
