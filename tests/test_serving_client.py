"""Tests `keras-bit classify --server` with a loopback server of both protocols; `serving_probe.py` uses a real one."""

import importlib.util
import json
from concurrent import futures

import pytest
from PIL import Image

import loopback_serving
import serving_probe
from conftest import absent
from image_files import encoded, pixels
from keras_bit import BiT, BitConfig, BitImageProcessor, export
from keras_bit.cli import main
from keras_bit.exporters import serving_client
from keras_bit.exporters.serving_client import ImageError, classify_each, connect
from store import TRAINED, served


@pytest.fixture(scope="module")
def version(finished):
    return served(finished).path


@pytest.fixture(scope="module", params=["grpc", "rest"])
def server(request, version):
    if request.param == "grpc" and importlib.util.find_spec("tensorflow_serving") is None:
        absent("tensorflow-serving-api is not installed: pip install -e '.[serving]'")
    with getattr(loopback_serving, f"over_{request.param}")(str(version)) as address:
        yield address


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Writes nine images, one more than a request takes. The third lies on its side, by its tag."""
    folder = tmp_path_factory.mktemp("images")
    names = []
    for number in range(9):
        names.append(folder / f"{number}.jpg")
        exif = Image.Exif()
        if number == 2:
            exif[0x0112] = 6
        Image.fromarray(pixels(number, 40, 70)).save(names[-1], quality=95, exif=exif)
    return [str(name) for name in names]


def run(capsys, *arguments):
    code = main.main(["classify", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_server_answers_as_the_weights_do(server, files, capsys):
    code, out, _ = run(capsys, *files, "--server", server, "--json", "--top", "3")
    assert code == 0
    _, expected, _ = run(capsys, *files, "--weights", str(TRAINED), "--json", "--top", "3")
    for found, one in zip(json.loads(out), json.loads(expected), strict=True):
        assert found["file"] == one["file"]
        assert [row["label"] for row in found["predictions"]] == [row["label"] for row in one["predictions"]]
        scores = [row["score"] for row in one["predictions"]]
        # The turned image is the same pixels; the rest is float32's order of operations.
        assert [row["score"] for row in found["predictions"]] == pytest.approx(scores, abs=1e-5)


def test_the_probe_of_a_real_server_reports_the_largest_difference(server, capsys):
    serving_probe.main([server])
    assert capsys.readouterr().out == f"{server} answers as the weights do, to within 1e-05\n"
    with pytest.raises(SystemExit, match="differ"):
        serving_probe.main([server, "--tolerance", "-1"])


def test_unreadable_images_are_named_and_the_server_answers_the_others(server, files, tmp_path, capsys):
    (tmp_path / "half.jpg").write_bytes(encoded(pixels(0, 200, 300))[:2000])
    (tmp_path / "text.jpg").write_text("no image")
    four = []
    for number in range(4):  # more than one answer tells
        four.append(tmp_path / f"cut{number}.jpg")
        four[-1].write_bytes(encoded(pixels(number, 200, 300))[:2500])
    names = [files[0], str(tmp_path / "half.jpg"), str(tmp_path / "text.jpg"), *map(str, four), files[1], "missing.jpg"]
    code, out, err = run(capsys, *names, "--server", server)
    assert code == 1
    assert "0.jpg" in out
    assert "1.jpg" in out
    assert f"{tmp_path}/half.jpg is a truncated JPEG" in err
    assert f"{tmp_path}/text.jpg is not a JPEG, PNG" in err
    assert all(f"{name} is a truncated JPEG" in err for name in four)
    assert "'missing.jpg' does not exist" in err


def test_the_problems_of_a_request_have_their_places(server):
    classify = connect(server, "bit")
    good = encoded(pixels(0))
    with pytest.raises(ImageError) as caught:
        classify([good, b"", good, b"no image"])
    assert set(caught.value.problems) == {1, 3}
    assert caught.value.problems[1] == "is empty. Replace or remove it."
    assert len(classify([good])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_with_batching_another_clients_corrupt_image_does_not_fail_ours(protocol, version):
    if protocol == "grpc" and importlib.util.find_spec("tensorflow_serving") is None:
        absent("tensorflow-serving-api is not installed: pip install -e '.[serving]'")
    good = [encoded(pixels(seed)) for seed in range(3)]
    with getattr(loopback_serving, f"over_{protocol}")(str(version), merging=True) as address:
        with futures.ThreadPoolExecutor(2) as pool:
            requests = [good, [good[0], b"no image"]]
            ours, other = pool.map(lambda images: classify_each(connect(address, "bit"), images), requests)
        alone = [connect(address, "bit")([image])[0] for image in good]
    for found, expected in zip([*ours, other[0]], [*alone, alone[0]], strict=True):
        assert [label for label, _ in found] == [label for label, _ in expected]
        # Several images at a time are added up in another order.
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert other[1].startswith("is not a JPEG")


def regression(folder):
    config = BitConfig(
        embedding_size=8, hidden_sizes=(16,), depths=(1,), num_groups=4, num_labels=1, problem_type="regression"
    )
    return export(BiT(config), folder / "bit", processor=BitImageProcessor.from_pretrained(TRAINED))


@pytest.mark.slow
def test_a_served_regression_is_refused(server, finished):
    path = finished("SavedModel of a regression with its processor", regression).path
    protocol = "rest" if server.startswith("http") else "grpc"
    message = r"answers with (logits|values without names), not with a row of labels and scores for each image"
    with getattr(loopback_serving, f"over_{protocol}")(str(path)) as address, pytest.raises(ValueError, match=message):
        connect(address, "bit")([encoded(pixels(0))])


def test_more_labels_than_the_server_gives_are_reported_as_missing(server, files, capsys):
    code, out, err = run(capsys, files[0], "--server", server, "--json", "--top", "10")
    assert code == 0
    assert len(json.loads(out)[0]["predictions"]) == 5
    assert "the server returns 5 labels, fewer than --top 10" in err


def test_a_model_that_the_server_does_not_have_is_reported(server, files, capsys):
    code, _, err = run(capsys, files[0], "--server", server, "--server-model", "other")
    assert code == 1
    assert "refuses: Servable not found for request: " in err
    assert "Check that it serves a model named 'other' that was exported with its processor" in err


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_missing_server_is_reported(scheme, files, capsys):
    if scheme == "grpc" and importlib.util.find_spec("tensorflow_serving") is None:
        absent("tensorflow-serving-api is not installed: pip install -e '.[serving]'")
    code, _, err = run(capsys, files[0], "--server", f"{scheme}://127.0.0.1:9")
    assert code == 1
    assert f"The server {scheme}://127.0.0.1:9 does not answer" in err
    assert "Check that it is running and ready." in err


@pytest.mark.parametrize("address", ["127.0.0.1:8500", "ftp://host", "grpc://", "http://host/v1/models/bit"])
def test_another_address_is_refused(address):
    with pytest.raises(ValueError, match="`address`") as caught:
        connect(address, "bit")
    assert all(word in str(caught.value) for word in ("grpc://HOST:PORT", "http://HOST:PORT", repr(address)))


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b"no json",
        b"\xff\xfe",
        b'{"predictions": [{"other": 1}]}',
        b'{"predictions": {"other": 1}}',
        b'{"predictions": []}',
        b'{"predictions": [[0.3]]}',
        b'{"predictions": [{"labels": "a", "scores": 0.5}]}',
        b'{"predictions": [{"labels": ["a", "b"], "scores": [0.5]}]}',
        b'{"predictions": [{"labels": ["a"], "scores": [0.5]}, {"labels": ["a"], "scores": [0.5]}]}',
    ],
)
def test_a_server_other_than_tf_serving_is_reported(content):
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises((ConnectionError, ValueError), match="labels and scores") as caught:
            connect(address, "bit")([encoded(pixels(0))])
    assert address in str(caught.value)


REFUSALS = {
    "assertion failed: [the image at index 3 is empty.]\n\t [[{{node a}}]]": {3: "is empty."},
    "assertion failed: [the image at index 1 is [odd] the image at index 12 is empty.]  [[{{node a}}]]": {
        1: "is [odd]",
        12: "is empty.",
    },
    "assertion failed: [the image at index 0 is a JPEG] of 3 scans]": {0: "is a JPEG] of 3 scans"},
    "the image at index 7 is empty.": {7: "is empty."},
    "the image at index 4 is cut off, assertion failed: [": {4: "is cut off, assertion failed: ["},
}


@pytest.mark.parametrize(("text", "problems"), REFUSALS.items())
def test_the_message_of_the_graph_is_found_in_the_answer_of_the_server(text, problems):
    error = serving_client._refusal("http://a", "bit", text, lost=False)
    assert isinstance(error, ImageError)
    assert error.problems == problems


@pytest.mark.parametrize(
    "text",
    [
        "assertion failed: [" * 16_000,
        "assertion failed: [ ] " * 16_000,
        "assertion failed: [" + "] \v" * 100_000 + "x",
        "the image at index " * 16_000,
        "the image at index " + "1" * 100_000,
        "the image at index 1 " + " the image at index" * 16_000,
    ],
)
@pytest.mark.parametrize("lost", [True, False])
def test_a_long_answer_takes_linear_time_and_is_not_repeated_whole(text, lost):
    error = serving_client._refusal("http://a", "bit", text, lost)  # which took minutes
    assert isinstance(error, ImageError) or len(str(error)) < 3000
