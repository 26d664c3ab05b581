"""Tests embeddings in Parquet files: rows hold the model's outputs; a killed run resumes, another one is refused."""

import base64
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import namedtuple
from pathlib import Path

import keras
import numpy as np
import pytest

from conftest import ROOT, absent
from image_files import encoded, pixels
from keras_bit import (
    BiT,
    BitConfig,
    BitImageProcessor,
    from_pretrained,
    save_pretrained,
)
from keras_bit.cli import main
from keras_bit.embedding import embed, lists, ray, shard_files, shards, writer
from keras_bit.files import claims
from keras_bit.hub.finding import HubOptions

# The folder of pets also has a text file and a hidden file.
pytestmark = pytest.mark.filterwarnings("ignore::keras_bit.data.walk.DirectoryWarning")
SMALL = BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(1,), num_groups=4)
PROCESSOR = BitImageProcessor(size=32, crop_size=32, resample=2, image_mean=0.5, image_std=0.5)
# In the order of the rows: name, label.
IMAGES = (
    ("alone.png", None),
    ("cat/1.jpg", "cat"),
    ("cat/2.jpg", "cat"),
    ("cat/old/3.jpg", "cat"),
    ("dog/a b.JPEG", "dog"),
    ("dog/c.jpg", "dog"),
    ("zebra.png", None),
)
NAMES = [name for name, _ in IMAGES]


@pytest.fixture(autouse=True, scope="module")  # before the other fixtures of the module
def _pyarrow():
    if importlib.util.find_spec("pyarrow") is None:
        absent("pyarrow is not installed: pip install -e '.[parquet]'")


def needs(package, what):
    if importlib.util.find_spec(package) is None:
        absent(f"{package} is not installed: pip install {what}")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    keras.utils.set_random_seed(0)
    directory = tmp_path_factory.mktemp("small")
    save_pretrained(BiT(SMALL), directory, processor=PROCESSOR)
    return str(directory)


@pytest.fixture(scope="module")
def oracle(weights):
    """Returns a function from paths to features, which computes them one by one and without a graph."""
    model = from_pretrained(weights, include_top=False, pooling="avg")
    processor = BitImageProcessor.from_pretrained(weights)
    return lambda paths: np.concatenate([np.asarray(model(processor(str(path)))) for path in paths])


@pytest.fixture
def pets(tmp_path):
    return make_pets(tmp_path / "pets")


def make_pets(directory):
    for seed, name in enumerate(NAMES):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(encoded(pixels(seed), "PNG" if name.endswith("png") else "JPEG"))
    (directory / "cat" / ".hidden.jpg").write_bytes(b"")
    (directory / "cat" / "notes.txt").write_text("no image")
    return directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory, weights):
    """Embeds `pets` in batches of two, into shards of three images and into one file. Returns their directory."""
    directory = tmp_path_factory.mktemp("finished")
    pets = make_pets(directory / "pets")
    for name in ("out", "out.parquet"):
        embed(pets, directory / name, weights=weights, batch_size=2, shard_size=3)
    shutil.rmtree(pets)
    return directory


def read(path):
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return table["path"].to_pylist(), table["label"].to_pylist(), np.stack(table["features"].to_numpy())


def about(file):
    import pyarrow.parquet as pq

    return json.loads(pq.read_metadata(file).metadata[b"keras_bit"])


def contents(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_a_row_is_what_the_model_says_of_the_file(pets, tmp_path, weights, oracle):
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = tmp_path / "out"
    report = embed(pets, out, weights=weights, batch_size=2, shard_size=3)
    assert sorted(contents(out)) == [f"part-0000{shard}-of-00003.parquet" for shard in range(3)]
    assert report == shards.Report(sorted(out.iterdir()), 7, 32, [], 0)
    names, labels, features = read(out)
    assert list(zip(names, labels, strict=True)) == list(IMAGES)
    np.testing.assert_allclose(features, oracle(pets / name for name in NAMES), atol=1e-6)  # a graph sums otherwise
    for shard, file in enumerate(report.files):
        assert pq.read_schema(file).field("features").type == pa.list_(pa.float32(), 32)
        assert pq.read_metadata(file).num_rows == (3, 3, 1)[shard]
        said = about(file)
        assert (said["shard"], said["weights"], said["images"], said["shard_size"]) == (shard, weights, 7, 3)
        assert said["processor"] == PROCESSOR.to_dict()


@pytest.mark.parametrize("how", ["file", "stdin"])
@pytest.mark.slow
def test_a_list_keeps_its_order_and_its_repetitions(pets, tmp_path, weights, oracle, monkeypatch, how):
    listed = [str(pets / NAMES[place]) for place in (5, 0, 4, 5)]
    text = os.fsencode("\n".join(listed[:2]) + "\n\n" + "\r\n".join(listed[2:]))  # no line's end at the end
    data = tmp_path / "list.txt"
    data.write_bytes(text)
    if how == "stdin":
        data = "-"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    embed(data, tmp_path / "out", weights=weights, shard_size=3)
    names, labels, features = read(tmp_path / "out")
    assert (names, labels) == (listed, [None] * 4)
    np.testing.assert_allclose(features, oracle(listed), atol=1e-6)


@pytest.mark.slow
def test_a_name_that_is_not_utf8_is_read_and_written_with_escapes(pets, tmp_path, weights, oracle):
    odd = os.fsencode(pets) + b"/b\xff\xc3\xa4\n.jpg"
    os.rename(pets / "zebra.png", odd)
    os.rename(pets / "alone.png", pets / "b\\xffä\n.jpg")  # escaped, the other name looks exactly like this
    embed(pets, tmp_path / "out", weights=weights)
    names, labels, features = read(tmp_path / "out")
    assert (names[:2], labels[:2]) == (["b\\\\xffä\n.jpg", "b\\xffä\n.jpg"], [None, None])
    np.testing.assert_allclose(features[1:2], oracle([os.fsdecode(odd)]), atol=1e-6)


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.jpg\n\xef\xbb\xbfb.jpg\n")
    listed = lists.list_images(tmp_path / "list.txt", tmp_path / "list", 10)
    assert listed.names(0) == [b"a.jpg", b"\xef\xbb\xbfb.jpg"]


def test_a_link_that_leads_back_doubles_no_image(pets, tmp_path):
    (tmp_path / "elsewhere" / "old").mkdir(parents=True)
    (tmp_path / "elsewhere" / "old" / "1.jpg").touch()
    for name, target in (("self", pets), ("above", tmp_path), ("other", tmp_path / "elsewhere"), ("cat/up", pets)):
        (pets / name).symlink_to(target)
    (tmp_path / "here").symlink_to(pets)
    for data in (pets, tmp_path / "here"):
        with pytest.warns(UserWarning, match=r"links to folders that are read anyway: above, cat/up, self\."):
            listed = lists.list_images(data, tmp_path / "list", 10)
        assert sorted(map(os.fsdecode, listed.names(0))) == sorted([*NAMES, "other/old/1.jpg"])


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_run_that_was_ended_goes_on_to_the_same_files(pets, tmp_path, weights, finished, monkeypatch):
    out = tmp_path / "out"
    write = writer.Writer.write

    def killed_in_the_second(self, job, shard, advance):
        if shard == 1:
            unfinished = job.file(shard).with_name(".keras-bit-0123abcd")
            unfinished.mkdir()
            (unfinished / job.file(shard).name).write_bytes(b"PAR1 unfinis")
            raise Killed
        write(self, job, shard, advance)

    monkeypatch.setattr(writer.Writer, "write", killed_in_the_second)
    with pytest.raises(Killed):
        embed(pets, out, weights=weights, batch_size=2, shard_size=3)
    monkeypatch.setattr(writer.Writer, "write", write)
    assert len(list(out.glob("part-*"))) == 1
    first = out / "part-00000-of-00003.parquet"
    written = first.stat().st_mtime_ns
    report = embed(pets, out, weights=weights, batch_size=2, shard_size=3)
    assert (report.found, report.rows) == (3, 7)
    assert first.stat().st_mtime_ns == written
    assert contents(out) == contents(finished / "out")
    monkeypatch.setattr(writer.Writer, "write", None)  # nothing is left to be written
    assert embed(pets, out, weights=weights, batch_size=5, shard_size=3).found == 7


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_to_the_same_files(pets, tmp_path, weights):
    data = tmp_path / "list.txt"
    data.write_text("\n".join([str(pets / name) for name in NAMES] * 100))
    arguments = ["embed", data, "--weights", weights, "--shard-size", "100", "--out"]
    command = [sys.executable, "-m", "keras_bit.cli.main", *arguments]
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True, timeout=300)
    out = tmp_path / "out"
    running = subprocess.Popen([*command, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while len(list(out.glob("part-*"))) < 2:
        assert time.monotonic() < until
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert 2 <= len(list(out.glob("part-*"))) < 7
    done = subprocess.run([*command, out], check=True, capture_output=True, timeout=300, text=True)
    assert re.search(r"7 files, 700 rows of 32 features, [2-6]00 images by an earlier run", done.stdout)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_line_of_base64_text_is_reported_and_shortened(tmp_path, weights):
    (tmp_path / "list.txt").write_text(base64.b64encode(encoded(pixels(0, 200, 300), "PNG")).decode())
    with pytest.raises(ValueError, match=r"is a base64 string, not a path\. .* pass on_error='skip'") as raised:
        embed(tmp_path / "list.txt", tmp_path / "out", weights=weights)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_a_second_run_is_refused_before_it_writes_anything(pets, tmp_path, name):
    directory = tmp_path / ("out" if name == "out" else "out.parquet.shards")
    directory.mkdir()
    (directory / ".pictures-01234567").write_bytes(b"of the first")
    with claims.claimed(directory, argument="out"):
        before = contents(directory)
        with pytest.raises(
            BlockingIOError, match=rf"`out`: another process \({os.getpid()} on .+\) is writing to '{directory}'"
        ):
            embed(pets, tmp_path / name, weights="unused")
        assert contents(directory) == before
    assert [file.name for file in directory.iterdir()] == [".pictures-01234567"]


@pytest.mark.slow
def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(pets, tmp_path, weights, finished):
    out = tmp_path / "out"
    # Its list is the file that comes through the pipe, and does not end.
    first = subprocess.Popen(
        [sys.executable, "-m", "keras_bit.cli.main", "embed", "-", "--out", out, "--weights", weights],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 100
    while not list(out.glob(".pictures-*")):
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    before = contents(out)
    second = subprocess.run(
        [sys.executable, "-m", "keras_bit.cli.main", "embed", pets, "--out", out, "--weights", weights],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert re.search(
        rf"^keras-bit embed: .*another process \({first.pid} on .+\) is writing to '{out}'",
        second.stderr,
        re.MULTILINE,
    )
    assert contents(out) == before
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert contents(out) == before
    embed(pets, out, weights=weights, batch_size=2, shard_size=3)
    assert contents(out) == contents(finished / "out")


def test_a_damaged_byte_in_a_shard_is_noticed(pets, tmp_path, weights, finished):
    import pyarrow.parquet as pq

    shutil.copytree(finished / "out", tmp_path / "out")
    file = sorted((tmp_path / "out").iterdir())[1]
    whole, table = file.read_bytes(), pq.read_table(file)
    noticed = []
    for place in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")):  # up to the footer
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            shard_files.read_back(file)
        except ValueError:
            noticed.append(place)
        else:
            # A page's header has more than is needed to read it.
            assert pq.read_table(file).equals(table)
    assert len(noticed) > 3 * 32 * 4 * 0.8  # the features, which hardly compress
    place = noticed[len(noticed) // 2]
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ValueError, match=rf"`out`: '{file}' is damaged \([^)]*\)\. Remove it; the next run"):
        embed(pets, tmp_path / "out", weights=weights, shard_size=3)


def other_weights(pets, tmp_path, arguments):
    save_pretrained(BiT(SMALL), tmp_path / "other", processor=PROCESSOR)
    arguments["weights"] = str(tmp_path / "other")


def other_processor(pets, tmp_path, arguments):
    save_pretrained(from_pretrained(arguments["weights"]), tmp_path / "other", processor=PROCESSOR)
    BitImageProcessor(size=48, crop_size=48).save_pretrained(tmp_path / "other")
    arguments["weights"] = str(tmp_path / "other")


def other_names(pets, tmp_path, arguments):
    (pets / "zebra.png").rename(pets / "zorro.png")


def other_shards(pets, tmp_path, arguments):
    arguments["shard_size"] = 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_weights, r"`weights_sha256` is '\w+' there, but '\w+' now\. Choose"),
        (other_processor, r"`processor` is \{.*\} there, but \{.*48.*\} now\. Choose"),
        (other_names, r"`images_sha256` is '\w+' there, but '\w+' now\. Choose"),
        (other_shards, "`shard_size` is 3 there, but 4 now. Choose another `out`, or remove the files there"),
    ],
)
@pytest.mark.parametrize("name", ["out", "out.parquet"])
@pytest.mark.slow
def test_files_of_another_run_are_refused_with_what_is_different(
    pets, tmp_path, weights, finished, change, words, name
):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    arguments = {"weights": weights, "shard_size": 3}
    before = sorted(tmp_path.rglob("*.parquet"))
    change(pets, tmp_path, arguments)
    with pytest.raises(ValueError, match=rf"`out`: '.*\.parquet' belongs to another run: {words}"):
        embed(pets, tmp_path / name, **arguments)
    assert sorted(tmp_path.rglob("*.parquet")) == before


def test_the_same_weights_and_images_at_other_places_go_on(pets, tmp_path, weights, finished):
    shutil.copytree(weights, tmp_path / "moved")
    shutil.copytree(finished / "out", tmp_path / "out")
    import pyarrow.parquet as pq

    # The first file was written when the number of images was called `pictures`.
    first = min((tmp_path / "out").glob("*.parquet"))
    table = pq.read_table(first)
    about = json.loads(table.schema.metadata[shard_files.METADATA])
    about = {name.replace("images", "pictures"): value for name, value in about.items()}
    pq.write_table(table.replace_schema_metadata({shard_files.METADATA: json.dumps(about)}), first)
    assert embed(pets, tmp_path / "out", weights=str(tmp_path / "moved"), shard_size=3).found == 7


def truncated(first, second):
    first.write_bytes(first.read_bytes()[:100])


def renamed(first, second):
    second.rename(first)


def described(**changes):
    """Returns a function that makes a shard whose metadata has other values."""

    def change(first, second):
        import pyarrow.parquet as pq

        table = pq.read_table(first)
        about = json.loads(table.schema.metadata[shard_files.METADATA])
        text = json.dumps({key: value for key, value in (about | changes).items() if value != "nothing"})
        pq.write_table(table.replace_schema_metadata({shard_files.METADATA: text.replace('"deep"', DEEP)}), first)

    return change


DEEP = "[" * 5000 + "]" * 5000
DAMAGED_METADATA = r"has damaged metadata\. Remove it; the next run writes it again"


def foreign(first, second):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": ["a"]}), first)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (truncated, r"00000-of-00003\.parquet' is damaged or not a Parquet file \(.*\)\. Remove it"),
        (renamed, r"is not one of the 3 shards: it is shard 1 with 3 rows and 0 images left out\. Remove it"),
        (foreign, r"was not written by `embed`\. Choose another `out`"),
        (described(shard=[1]), DAMAGED_METADATA),
        (described(left_out="nothing"), DAMAGED_METADATA),
        (described(left_out=-1), DAMAGED_METADATA),
        (described(left_out=1, skipped=[]), DAMAGED_METADATA),
        (described(skipped=[5]), DAMAGED_METADATA),
        (described(labels="deep"), r"is damaged or not a Parquet file \(more than 100 nested objects and lists"),
    ],
)
@pytest.mark.slow
def test_a_file_that_is_not_a_shard_is_refused(pets, tmp_path, weights, finished, change, words):
    shutil.copytree(finished / "out", tmp_path / "out")
    change(*sorted((tmp_path / "out").iterdir())[:2])
    with pytest.raises(ValueError, match=words):
        embed(pets, tmp_path / "out", weights=weights, shard_size=3)


def test_other_parquet_files_are_neither_touched_nor_mixed_in(pets, tmp_path, weights, finished):
    shutil.copytree(finished / "out", tmp_path / "out")
    (tmp_path / "out" / "year=2026").mkdir()
    for name in ("mine.parquet", "year=2026/part-0.parquet", ".hidden.parquet", "notes.txt"):
        (tmp_path / "out" / name).write_bytes(b"mine")
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(
        ValueError, match=r"has other Parquet files \(mine\.parquet, year=2026/part-0\.parquet\), which a reader"
    ):
        embed(pets, tmp_path / "out", weights=weights, shard_size=3)
    assert sorted((tmp_path / "out").rglob("*")) == before


@pytest.mark.slow
def test_images_that_cannot_be_read_end_it_or_are_left_out(pets, tmp_path, weights, oracle):
    broken = [pets / "cat" / "1.jpg", pets / "dog" / "a b.JPEG", pets / "dog" / "c.jpg"]
    data = tmp_path / "list.txt"
    data.write_text("\n".join(str(pets / name) for name in NAMES))
    for file in broken[:2]:
        file.write_bytes(b"no image")
    broken[2].unlink()
    out = tmp_path / "out"
    with pytest.raises(
        ValueError, match=r"1\.jpg is not an image file .* To leave such images out, pass on_error='skip'"
    ):
        embed(data, out, weights=weights, shard_size=2)
    assert not out.exists()
    with warnings.catch_warnings(action="error", category=UserWarning):  # the lines say it
        report = embed(data, out, weights=weights, shard_size=2, on_error="skip")
    assert [line.startswith(f"{file} ") for line, file in zip(report.skipped, broken, strict=True)] == [True] * 3
    assert (
        report.skipped[2] == f"{broken[2]} cannot be read: there is no such file. Check the path and its permissions."
    )
    left = [pets / NAMES[place] for place in (0, 2, 3, 6)]
    names, _, features = read(out)
    assert names == list(map(str, left))
    np.testing.assert_allclose(features, oracle(left), atol=1e-6)
    assert [about(file)["left_out"] for file in report.files] == [1, 0, 2, 0]  # the third shard has no row
    again = embed(data, out, weights=weights, shard_size=2, on_error="skip")
    assert (again.found, again.skipped) == (7, report.skipped)
    with pytest.raises(ValueError, match=r"written with on_error='skip' and lacks an image\. .*1\.jpg is not an image"):
        embed(data, out, weights=weights, shard_size=2)


@pytest.mark.parametrize("name", ["out", "out.parquet"])
@pytest.mark.slow
def test_an_error_is_raised_if_no_image_can_be_read(pets, tmp_path, weights, name):
    data = tmp_path / "list.txt"
    data.write_text("".join(f"{tmp_path / str(number)}.jpg\n" for number in range(3)))
    arguments = {"weights": weights, "shard_size": 2, "on_error": "skip"}
    with pytest.raises(ValueError, match=r"None of 3 images can be read\. The first: .*/0\.jpg"):
        embed(data, tmp_path / name, **arguments)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["list.txt", "pets"]
    shutil.copy(pets / "cat" / "1.jpg", tmp_path / "1.jpg")
    assert embed(data, tmp_path / name, **arguments).rows == 1


@pytest.mark.slow
def test_the_joined_files_name_is_not_read_as_a_pattern(pets, tmp_path, weights):
    out = tmp_path / "a[1]*.parquet"
    (tmp_path / ".keras-bit-0123abcd").mkdir()  # of a process that was killed
    embed(pets, out, weights=weights)
    assert len(read(out)[0]) == 7
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a[1]*.parquet", "pets"]


@pytest.mark.slow
def test_a_tilde_is_the_home_directory(pets, tmp_path, weights, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    embed("~/pets", "~/out", weights=weights)
    assert len(read(tmp_path / "out")[0]) == 7


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_reported_before_anything_is_computed(pets, tmp_path, weights, monkeypatch):
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda path: Usage(1000, 553, 447))
    monkeypatch.setattr(writer.Writer, "write", None)
    # 7 rows of 32 numbers are 896 bytes, and Parquet may make 448 of them.
    with pytest.raises(
        OSError, match=r"`out`: '.*out' has 4\.47e-07 GB of free space, but 7 rows of 32 numbers need up to"
    ):
        embed(pets, tmp_path / "out", weights=weights)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("/proc/out", "`out`: nothing can be written to '/proc/out'"),
        ("/proc/out.parquet", "`out`: nothing can be written to '/proc/out.parquet"),
        # 255 bytes are a name; its shards' directory has 7 more.
        ("n" * 244 + ".parquet", r"`out`: .*File name too long"),
    ],
)
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="/proc is where nobody, not even root, writes")
def test_a_directory_that_cannot_be_written_is_reported_before_computing(pets, tmp_path, monkeypatch, out, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=words):
        embed(pets, out, weights="unused")
    assert sorted(tmp_path.iterdir()) == [pets]


@pytest.mark.slow
def test_one_file_is_its_shards_in_a_row(pets, tmp_path, weights):
    import pyarrow.parquet as pq

    (pets / "cat" / "1.jpg").write_bytes(b"no image")
    arguments = {"weights": weights, "shard_size": 3, "on_error": "skip"}
    shards = embed(pets, tmp_path / "out", **arguments)
    one = embed(pets, tmp_path / "one.parquet", **arguments)
    assert (one.files, one.rows, one.skipped) == ([tmp_path / "one.parquet"], 6, shards.skipped)
    assert pq.read_table(one.files[0]).equals(pq.read_table(tmp_path / "out"))
    assert pq.read_metadata(one.files[0]).num_row_groups == 3
    assert not (tmp_path / "one.parquet.shards").exists()
    said = about(one.files[0])
    assert (said["left_out"], said["skipped"]) == (1, shards.skipped)
    assert embed(pets, tmp_path / "one.parquet", **arguments).found == 7


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        (
            {"data": "nowhere"},
            FileNotFoundError,
            "`data` must be a directory or a text file with a path in each line, but",
        ),
        ({"data": "pets/alone.png"}, ValueError, r"got the image 'pets/alone.png'. Name its directory, or pass '-'"),
        (
            {"data": "empty"},
            ValueError,
            r"`data` must hold images, got 'empty', which has none at any depth \(\.jpg, ",
        ),
        (
            {"data": "empty.txt"},
            ValueError,
            "`data` must hold images, got 'empty.txt', which has no line with a path",
        ),
        ({"data": "zeros"}, ValueError, "must be text with a path in each line, got 'zeros', which has zero bytes"),
        (
            {"out": "empty.txt"},
            NotADirectoryError,
            "`out` must be a directory or end in .parquet, got the file 'empty.t",
        ),
        ({"out": "d.parquet"}, IsADirectoryError, "`out` must be a file if it ends in .parquet, got the directory"),
        ({"on_error": "ignore"}, ValueError, "`on_error` must be one of 'raise', 'skip', got 'ignore'"),
        ({"engine": "beam"}, ValueError, "`engine` must be one of 'local', 'ray', got 'beam'"),
        ({"workers": 2}, ValueError, "`workers` is for engine='ray', got 2 for 'local', which uses one process"),
        ({"shard_size": 0}, ValueError, "`shard_size`.* at least 1.* 0"),
        ({"batch_size": 1.5}, ValueError, "`batch_size`.* whole number.* 1.5"),
    ],
)
def test_wrong_arguments_are_errors_and_write_nothing(pets, tmp_path, weights, monkeypatch, changed, error, words):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("d.parquet").mkdir()
    Path("empty.txt").write_text("\n\n")
    Path("zeros").write_bytes(b"a\0b")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=words):
        embed(**{"data": "pets", "out": "out", "weights": weights} | changed)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("package", "extra", "engine"), [("pyarrow", "parquet", "local"), ("ray", "ray", "ray")])
def test_a_missing_package_is_named_with_its_command(pets, tmp_path, monkeypatch, package, extra, engine):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ImportError, match=rf"{package}.*keras_bit\[{extra}\]"):
        embed(pets, tmp_path / "out", weights="unused", engine=engine)


@pytest.mark.slow
def test_features_that_are_not_finite_are_an_error(pets, tmp_path, weights):
    model = from_pretrained(weights)
    gamma, beta = model.get_layer("norm").get_weights()
    model.get_layer("norm").set_weights([np.full_like(gamma, 3e38), np.full_like(beta, 3e38)])
    save_pretrained(model, tmp_path / "broken", processor=PROCESSOR)
    with pytest.raises(ArithmeticError, match=r"alone\.png has features that are not finite"):
        embed(pets, tmp_path / "out", weights=str(tmp_path / "broken"))


def run(capsys, *arguments):
    code = main.main(["embed", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, re.sub(r"\r.*\r", "", captured.err)


@pytest.mark.slow
def test_the_command_writes_the_features(pets, tmp_path, weights, capsys):
    out = tmp_path / "out"
    arguments = (pets, "--out", out, "--weights", weights, "--shard-size", 4, "--batch-size", 3)
    left_out = f"keras-bit embed: Left out in '{pets}': 1 .txt, 1 hidden.\n"
    assert run(capsys, *arguments) == (0, f"{out}: 2 files, 7 rows of 32 features\n", left_out)
    earlier = "7 images by an earlier run"
    assert run(capsys, *arguments) == (0, f"{out}: 2 files, 7 rows of 32 features, {earlier}\n", left_out)
    code, said, err = run(capsys, *arguments, "--shard-size", 5)
    assert (code, said) == (1, "")
    assert err.removeprefix(left_out).startswith("keras-bit embed: --out: ")

    (pets / "cat" / "1.jpg").write_bytes(b"no image")
    one = tmp_path / "one.parquet"
    code, said, err = run(capsys, pets, "--out", one, "--weights", weights)
    assert (code, said) == (1, "")
    assert "--on-error skip" in err
    assert "on_error" not in err
    code, said, err = run(capsys, pets, "--out", one, "--weights", weights, "--on-error", "skip")
    assert (code, said) == (1, f"{one}: 1 file, 6 rows of 32 features\n")
    assert err.removeprefix(left_out).startswith(f"keras-bit embed: {pets / 'cat' / '1.jpg'} is not an image")
    assert err.removeprefix(left_out).count("\n") == 1


def test_the_help_says_what_is_read_and_written(capsys):
    assert main.main(["embed", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("DATA", "part-00000-of-00012.parquet", "--engine [local|ray]", "continues with the missing ones"):
        assert words in text


@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore:`use_\w+` is deprecated:DeprecationWarning")  # of Ray's own options
def test_two_workers_of_ray_write_the_same_rows(pets, tmp_path, weights, capsys):
    needs("ray", "-e '.[ray]'")
    (pets / "cat" / "2.jpg").write_bytes(b"no image")
    arguments = (pets, "--weights", weights, "--shard-size", 2, "--batch-size", 2, "--on-error", "skip")
    local, spread = tmp_path / "local", tmp_path / "spread"
    assert run(capsys, *arguments, "--out", local)[0] == 1
    code, said, err = run(capsys, *arguments, "--out", spread, "--engine", "ray", "--workers", 2)
    assert (code, said) == (1, f"{spread}: 4 files, 6 rows of 32 features\n"), err
    assert f"keras-bit embed: {pets / 'cat' / '2.jpg'} is not an image" in err
    assert sorted(contents(spread)) == sorted(contents(local))
    expected, found = read(local), read(spread)
    assert found[:2] == expected[:2]
    np.testing.assert_allclose(found[2], expected[2], atol=1e-6)

    # A worker's messages appear as if they came from this process.
    code, _, err = run(capsys, *arguments[:-2], "--out", tmp_path / "raised", "--engine", "ray", "--workers", 2)
    assert code == 1
    assert "2.jpg is not an image" in err
    assert "Traceback" not in err

    import ray

    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_worker_with_another_model_writes_nothing(pets, tmp_path, weights):
    images = lists.list_images(pets, tmp_path / "list", 10)
    made_by = {**writer.Writer(weights, HubOptions(), 2).made_by, "images": 7, "images_sha256": "", "labels": True}
    job = shard_files.Job(images, tmp_path, weights, HubOptions(), 2, "raise", {**made_by, "shard_size": 10})
    assert writer.start_worker(job)(0) == ""
    job.file(0).unlink()
    other = shard_files.Job(images, tmp_path, weights, HubOptions(), 2, "raise", {**job.made_by, "weights_sha256": "1"})
    told = writer.start_worker(other)(0)
    assert told.startswith("A worker has another model than the process that started the run: `weights_sha256` is")
    assert not job.file(0).exists()


@pytest.mark.parametrize(
    ("workers", "cluster", "expected"),
    [
        (2, {"CPU": 2.0}, {"num_cpus": 1}),
        (2, {"CPU": 8.0, "GPU": 4.0}, {"num_cpus": 1, "num_gpus": 1}),
        (2, {"CPU": 8.0, "GPU": 1.0}, {"num_cpus": 1, "num_gpus": 0.5}),
    ],
)
def test_workers_share_the_gpus_that_ray_has(workers, cluster, expected):
    assert ray.resources(workers, cluster) == expected


@pytest.mark.slow
def test_the_probe_of_the_page(pets, tmp_path, weights, monkeypatch, capsys):
    needs("sklearn", "scikit-learn")
    for name in ("alone.png", "zebra.png"):
        (pets / name).unlink()
    for name in ("train", "test"):
        embed(pets, tmp_path / name, weights=weights)
    page = (ROOT / "docs" / "how-to" / "embeddings.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```py\n(.*?)```", page, flags=re.DOTALL)
    (block,) = (block for block in blocks if "LogisticRegression" in block)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert 0 <= float(capsys.readouterr().out) <= 1
