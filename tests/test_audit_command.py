"""Tests `keras-bit audit` as a user runs it, the files that it writes, and `finetune --exclude` with these."""

import base64
import csv
import html.parser
import importlib.util
import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from audit_images import scene
from browser import chromium, needs_browser
from command_line import TINY, copy_of_tiny, run
from conftest import absent
from image_files import encoded, write_records
from keras_bit.data import exclusions, splits
from keras_bit.examining import collecting

NAMES = ["plain.jpg", "<b>bold & 'quoted' \"twice\".jpg", "with space,comma;and = sign.jpg", "=1+2.jpg", "@at.jpg"]
NAMES += ["-dash.jpg", "+plus.jpg", "Grün 漢字.jpg", "'apostrophe.jpg"]
if os.name != "nt":
    NAMES += ["two\nlines.jpg", "tab\there.jpg", os.fsdecode(b"not-utf-8-\xff.jpg")]


@pytest.fixture(autouse=True)
def needs_cleanlab():
    for package in ("cleanlab", "sklearn"):
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install 'keras_bit[audit]'")


def make_scenes(folder, counts, first=0):
    """Writes a folder for each class with that number of images; returns their paths."""
    files = []
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            files.append(folder / name / f"{number:02d}.png")
            files[-1].write_bytes(encoded(scene(first), "PNG"))
            first += 1
    return files


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Writes a data set with one of each fault, whose classes and files have names of all kinds."""
    folder = tmp_path_factory.mktemp("audit") / "data & <more>"
    make_scenes(folder / "train", {"=cat": 12, "dog": 12})
    make_scenes(folder / "test", {"=cat": 4, "dog": 4}, first=100)
    for number, name in enumerate(NAMES):
        (folder / "train" / "=cat" / name).write_bytes(encoded(scene(200 + number)))
        (folder / "train" / "dog" / f"copy{number}.jpg").write_bytes(encoded(scene(200 + number)))
    (folder / "train" / "dog" / "again.jpg").write_bytes(encoded(scene(15), quality=70))
    (folder / "train" / "dog" / "leaked.png").write_bytes((folder / "test" / "dog" / "01.png").read_bytes())
    (folder / "train" / "dog" / "broken.jpg").write_bytes(b"no image")
    (folder / "test" / "dog" / "cut.jpg").write_bytes(encoded(scene(300))[:500])
    (folder / "train" / "=cat" / "print.jpg").write_bytes(encoded(Image.fromarray(scene(301)).convert("CMYK")))
    return folder


@pytest.fixture(scope="module")
def audited(data, tmp_path_factory):
    """Returns the directory of an audit, what it printed, and its exit code."""
    from keras_bit.cli import main

    out = tmp_path_factory.mktemp("audited") / "out"
    shown, sys.stdout = sys.stdout, io.StringIO()
    try:
        code = main.main(["audit", str(data), "--out", str(out), "--weights", str(TINY)])
        printed = sys.stdout.getvalue()
    finally:
        sys.stdout = shown
    return out, printed, code


def audit(capsys, *arguments):
    return run(capsys, "audit", *arguments, "--weights", TINY)


def rows_of(out):
    with open(out / "audit.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_every_planted_fault_is_a_row(audited):
    out, printed, code = audited
    assert code == 1  # two files cannot be read
    rows = {(row["image"], row["kind"]): row for row in rows_of(out)}
    assert rows["train/dog/broken.jpg", "unreadable"]["exclude"] == "yes"
    assert rows["test/dog/cut.jpg", "unreadable"]["part"] == "test"
    leak = rows["train/dog/leaked.png", "leak"]
    assert (leak["other_image"], leak["score"], leak["exclude"]) == ("test/dog/01.png", "1.0", "yes")
    near = rows["train/dog/again.jpg", "near_duplicate"]
    assert (near["other_image"], near["exclude"]) == ("train/dog/03.png", "no")
    assert float(near["score"]) >= 0.95
    assert rows["train/=cat/print.jpg", "cmyk"]["exclude"] == "no"
    copies = [row for row in rows.values() if row["kind"] == "exact_duplicate"]
    assert len(copies) == len(NAMES)
    assert all("labels differ: =cat, dog" in row["detail"] and row["exclude"] == "yes" for row in copies)
    assert {row["label"] for row in copies} <= {"'=cat", "dog"}
    assert all(word in printed for word in ("Exact duplicates", "Files that cannot be read", "audit.csv"))


def test_json_and_csv_say_the_same(capsys, data, audited):
    out, _, _ = audited
    report = json.loads((out / "audit.json").read_text())
    assert report["images"] == {"train": 27 + 2 * len(NAMES) + 1, "test": 9}
    rows = rows_of(out)
    assert len(rows) == len(report["findings"]) == sum(report["kinds"].values())
    for row, found in zip(rows, report["findings"], strict=True):
        assert exclusions.text_of(row["image"]) == found["image"]
        assert exclusions.text_of(row["label"]) == found["label"]
        assert (row["kind"], row["exclude"] == "yes") == (found["kind"], found["exclude"])
    code, printed, err = audit(capsys, data, "--out", out, "--json")
    assert code == 1
    assert json.loads(printed) == report
    assert str(out / "audit.html") in err


def test_no_cell_begins_as_a_formula(audited):
    for row in rows_of(audited[0]):
        for name, value in row.items():
            assert name == "score" or not value.startswith(("=", "+", "-", "@", "\t", "\r")), row


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "'", "''x", "\tx", "\rx", "plain", "", "a=b"])
def test_csv_cells_are_read_back_unchanged(text):
    assert exclusions.text_of(exclusions.cell(text)) == text


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, its text, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_its_images_and_asks_for_nothing(audited):
    page = Page((audited[0] / "audit.html").read_text(encoding="utf-8"))
    assert page.open == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "b"}
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    for attributes in images:
        kind, contents = attributes["src"].removeprefix("data:image/").split(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(contents))) as image:
            assert image.format.lower() == kind
            assert image.size == (int(attributes["width"]), int(attributes["height"]))
        assert "labeled" in attributes["alt"]
    addresses = [value for tag, one in page.tags for key, value in one.items() if key in ("src", "href")]
    assert all(value.startswith(("data:", "#")) for value in addresses)
    identities = {one["id"] for _, one in page.tags if "id" in one}
    assert {value[1:] for value in addresses if value.startswith("#")} <= identities


def test_names_of_all_kinds_are_shown_as_they_are(audited):
    page = Page((audited[0] / "audit.html").read_text(encoding="utf-8"))
    for name in NAMES:
        assert "".join(one if one.isprintable() else repr(one)[1:-1] for one in name) in page.text
    assert "data & <more>" in page.text


def test_the_page_in_a_browser(audited, tmp_path):
    needs_browser()
    with chromium(tmp_path) as driver:
        for width in (390, 1280):
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
            )
            driver.get((audited[0] / "audit.html").as_uri())
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            # Lazy images load when they come into view.
            script = "for (const one of document.images) one.loading = 'eager'; return document.images.length"
            assert driver.execute_script(script) > 10
            broken = "return [...document.images].filter(one => one.complete && !one.naturalWidth).length"
            assert driver.execute_script(broken) == 0
        assert driver.get_log("browser") == []


def test_a_second_audit_computes_nothing_anew(capsys, data, audited, monkeypatch):
    def no_more(*arguments):
        raise AssertionError("computed anew")

    before = {file.name for file in (audited[0] / "features").glob("*.npz")}
    monkeypatch.setattr(collecting, "_computed", no_more)
    code, out, err = audit(capsys, data, "--out", audited[0])
    assert code == 1  # as before: two files cannot be read
    assert "audit.csv" in out
    assert "computed anew" not in err
    assert {file.name for file in (audited[0] / "features").glob("*.npz")} == before


def test_an_audit_goes_on_with_the_shards_that_are_missing_damaged_or_old(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "SHARD", 3)
    files = make_scenes(tmp_path / "data", {"cat": 5, "dog": 6})
    computed = []
    real = collecting._computed

    def counted(paths, network, advance):
        computed.append([os.path.basename(os.path.dirname(path)) + os.path.basename(path) for path in paths])
        if len(computed) == ends_after:
            raise KeyboardInterrupt
        return real(paths, network, advance)

    monkeypatch.setattr(collecting, "_computed", counted)
    ends_after = 3
    code, _, _ = audit(capsys, tmp_path / "data", "--out", tmp_path / "out")
    assert code == 130
    assert len(computed) == 3
    ends_after = 0
    code, _, _ = audit(capsys, tmp_path / "data", "--out", tmp_path / "out")
    assert code == 0
    assert len(computed) == 5  # the third again, and the fourth
    first = (tmp_path / "out" / "audit.json").read_text()
    shard = sorted((tmp_path / "out" / "features").glob("*.npz"))[0]
    shard.write_bytes(shard.read_bytes()[:100])
    audit(capsys, tmp_path / "data", "--out", tmp_path / "out")
    assert len(computed) == 6
    assert (tmp_path / "out" / "audit.json").read_text() == first
    files[0].write_bytes(encoded(scene(77), "PNG"))
    audit(capsys, tmp_path / "data", "--out", tmp_path / "out")
    assert computed[6:] == [["cat00.png", "cat01.png", "cat02.png"]]
    assert len(list((tmp_path / "out" / "features").iterdir())) == 4


def test_without_a_test_part_and_with_a_class_of_one_image(capsys, tmp_path):
    make_scenes(tmp_path / "data", {"cat": 15, "dog": 15, "owl": 1})
    code, out, _ = audit(capsys, tmp_path / "data", "--out", tmp_path / "out", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["images"] == {"train": 31}
    assert any(note.startswith("1 label is not judged") for note in report["notes"])
    assert any(note.startswith("train: 15 images of cat, and 1 of owl.") for note in report["notes"])
    assert not any(row["label"] == "owl" and row["kind"] == "label_error" for row in report["findings"])


def test_data_that_cannot_be_audited_are_refused(capsys, tmp_path):
    make_scenes(tmp_path / "data", {"cat": 2, "dog": 2})
    code, _, err = audit(capsys, tmp_path / "data", "--out", tmp_path / "data" / "out")
    assert code == 1
    assert "--out must not be inside the data" in err
    write_records(tmp_path / "train.tfrecord", [encoded(scene(1))] * 2, [0, 1])
    code, _, err = audit(capsys, tmp_path / "train.tfrecord", "--out", tmp_path / "out")
    assert code == 1
    assert "TFRecord files" in err
    (tmp_path / "file").write_bytes(b"")
    code, _, err = audit(capsys, tmp_path / "data", "--out", tmp_path / "file")
    assert code == 1
    assert str(tmp_path / "file") in err
    for file in (tmp_path / "data").rglob("*.png"):
        file.write_bytes(b"no image")
    code, _, err = audit(capsys, tmp_path / "data", "--out", tmp_path / "out")
    assert code == 1
    assert "No image can be read" in err
    assert audit(capsys, tmp_path / "data")[0] == 2


def test_a_checkpoint_without_a_processor_is_prepared_as_bit(capsys, tmp_path):
    make_scenes(tmp_path / "data", {"cat": 3, "dog": 3})
    copy = copy_of_tiny(tmp_path / "bare")
    code, _, err = run(
        capsys, "audit", tmp_path / "data", "--out", tmp_path / "out", "--weights", copy, "--batch-size", 2
    )
    assert code == 0
    assert "no preprocessor_config.json" in err


# finetune --exclude


def finetune(capsys, data, out, *arguments):
    recipe = ["--steps", 2, "--batch-size", 4, "--evaluate-every", 1, "--image-size", 32, "--weights", TINY]
    return run(capsys, "finetune", data, "--out", out, *recipe, *arguments)


def test_the_audit_s_csv_leaves_its_images_out(data, audited):
    whole = splits.open_splits(data, validation_share=0, seed=0)
    found = splits.open_splits(data, validation_share=0, seed=0, exclude=audited[0] / "audit.csv")
    gone = {exclusions.relative(name, data) for name in set(whole.train.names) - set(found.train.names)}
    report = json.loads((audited[0] / "audit.json").read_text())
    expected = {row["image"] for row in report["findings"] if row["exclude"] and row["part"] == "train"}
    assert gone == expected
    assert len(whole.test.names) - len(found.test.names) == 1  # cut.jpg
    assert found.class_names == whole.class_names
    assert any(
        f"{len(gone)} of {len(whole.train)} images of train and 1 of 9 images of test" in note for note in found.notes
    )


@pytest.mark.slow
def test_fine_tuning_says_what_is_left_out_and_goes_on_only_with_the_same(capsys, tmp_path):
    files = make_scenes(tmp_path / "data", {"cat": 6, "dog": 6})
    files[1].write_bytes(b"no image")
    table = tmp_path / "audit.csv"
    table.write_text("image;exclude\ncat/01.png;yes\ncat/02.png;no\n", encoding="utf-8-sig")  # as Excel writes it
    code, _, err = finetune(capsys, tmp_path / "data", tmp_path / "out")
    assert code == 1
    assert "01.png" in err
    code, out, err = finetune(capsys, tmp_path / "data", tmp_path / "out", "--exclude", table)
    assert code == 0, err
    assert "Left out" in out
    assert out.index("1 of ") < out.index("a new head")
    table.rename(tmp_path / "renamed.csv")
    code, _, err = finetune(capsys, tmp_path / "data", tmp_path / "out", "--exclude", tmp_path / "renamed.csv")
    assert code == 0, err
    (tmp_path / "renamed.csv").write_text("image,exclude\ncat/01.png,yes\ncat/02.png,yes\n")
    code, _, err = finetune(capsys, tmp_path / "data", tmp_path / "out", "--exclude", tmp_path / "renamed.csv")
    assert code == 1
    assert "another run" in err


def test_exclusion_keeps_the_division_and_few_examples_come_from_the_rest(tmp_path):
    make_scenes(tmp_path / "data", {"cat": 10, "dog": 10})
    table = tmp_path / "audit.csv"
    whole = splits.open_splits(tmp_path / "data", validation_share=0.2, seed=0)
    table.write_text("image,exclude\n" + "".join(f"cat/{number:02d}.png,yes\n" for number in range(5)))
    found = splits.open_splits(tmp_path / "data", validation_share=0.2, seed=0, exclude=table)
    assert set(found.train.names) < set(whole.train.names)
    assert set(found.validation.names) <= set(whole.validation.names)
    few = splits.open_splits(tmp_path / "data", validation_share=0.2, seed=0, exclude=table, examples_per_class=2)
    assert np.bincount(few.train.labels).tolist() == [2, 2]
    assert set(few.train.names) <= set(found.train.names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no column image, exclude"]),
        ("name,label\na,b\n", ["no column image, exclude", "name,label"]),
        ("image,exclude\ncat/00.png,yes\ncat/01.png,maybe\n", ["line 3", "maybe", "yes or no"]),
        ("image,exclude\nbird/00.png,yes\n", ["none of the images that", "bird/00.png"]),
        ("image,exclude\n" + "".join(f"cat/0{n}.png,yes\ndog/0{n}.png,yes\n" for n in range(3)), ["all training"]),
    ],
)
def test_a_wrong_list_of_exclusions_raises_an_error(capsys, tmp_path, text, words):
    make_scenes(tmp_path / "data", {"cat": 3, "dog": 3})
    (tmp_path / "audit.csv").write_text(text)
    options = ["--exclude", tmp_path / "audit.csv", "--validation-share", 0]
    code, _, err = finetune(capsys, tmp_path / "data", tmp_path / "out", *options)
    assert code == 1
    assert all(word in err for word in [*words, "audit.csv"]), err


def test_records_have_no_names_to_exclude(tmp_path):
    write_records(tmp_path / "train.tfrecord", [encoded(scene(1)), encoded(scene(2))], [0, 1])
    (tmp_path / "audit.csv").write_text("image,exclude\na,yes\n")
    with pytest.raises(ValueError, match="`exclude` is for images in folders, got TFRecord files"):
        splits.open_splits(tmp_path / "train.tfrecord", validation_share=0, seed=0, exclude=tmp_path / "audit.csv")


def test_missing_names_are_counted(tmp_path):
    make_scenes(tmp_path / "data", {"cat": 3, "dog": 3})
    (tmp_path / "audit.csv").write_text("image,exclude\ncat/00.png,yes\ncat/99.png,YES\ncat/01.png,\n")
    found = splits.open_splits(tmp_path / "data", validation_share=0, seed=0, exclude=tmp_path / "audit.csv")
    assert len(found.train) == 5
    assert any("are not in" in note and "cat/99.png" in note for note in found.notes)


def test_the_option_is_in_the_options_of_a_run(tmp_path):
    from keras_bit.training.planning import Options

    assert Options("d", "w", exclude="audit.csv").described["exclude"] == "audit.csv"
