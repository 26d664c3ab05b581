"""Tests addresses.py: files on the web, from a server on 127.0.0.1, without any other network."""

import logging
import os
import threading

import huggingface_hub
import pytest

from keras_bit.hub import addresses, finding
from keras_bit.hub.finding import HubOptions, find_file
from keras_bit.hub.names import Address
from loopback_files import A_PAGE, CUT, FORBIDDEN, HALF_MD5, NO_RANGES, PAGE, SERVER_ERROR, LoopbackFiles
from loopback_hub import closed_url

WEIGHTS = bytes(range(256)) * 400
FILES = {
    "/bit/model.safetensors": WEIGHTS,
    "/bit/config.json": b'{"model_type": "bit"}',
    "/alone/bit.npz": WEIGHTS[:1000],
    "/page/bit.npz": PAGE,
    "/moved/bit.npz": "/alone/bit.npz",
    "/my files/bit 50.npz": WEIGHTS[:500],
    "/empty/bit.npz": b"",
}
PROCESSOR = ("preprocessor_config.json", "processor_config.json")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    huggingface_hub.close_session()  # another test's client may have one


@pytest.fixture
def server():
    with LoopbackFiles(FILES) as served:
        yield served


def options(tmp_path, **arguments):
    return HubOptions(cache_dir=tmp_path, **arguments)


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def test_a_file_is_downloaded_once_and_then_comes_from_the_cache(server, tmp_path):
    url = f"{server.url}/bit/model.safetensors"
    path = find_file(url, ("model.safetensors",), options(tmp_path))
    assert path.read_bytes() == WEIGHTS
    assert path.name == "model.safetensors"
    assert path.is_relative_to(tmp_path / addresses.FOLDER)
    server.requests.clear()
    assert find_file(url, ("model.safetensors",), options(tmp_path)) == path
    assert server.requests == ["GET /bit/model.safetensors bytes=0-0"]  # whether it is still the newest
    assert server.tokens == []


def test_a_files_configuration_is_looked_for_beside_it(server, tmp_path):
    url = f"{server.url}/bit/model.safetensors"
    assert find_file(url, ("config.json",), options(tmp_path)).read_bytes() == FILES["/bit/config.json"]
    assert find_file(url, PROCESSOR, options(tmp_path)) is None
    assert finding.named_file(url) == "model.safetensors"


@pytest.mark.parametrize("fault", [None, FORBIDDEN, A_PAGE])
def test_a_file_needs_no_other_files_next_to_it(server, tmp_path, fault):
    server.fault = fault
    assert find_file(f"{server.url}/alone/bit.npz", (*PROCESSOR, "config.json"), options(tmp_path)) is None


def test_offline_it_is_answered_at_once(server, tmp_path):
    url = f"{server.url}/alone/bit.npz"
    offline = options(tmp_path, local_files_only=True)
    with pytest.raises(FileNotFoundError, match=r"The cache .* does not have http.*forbids asking for it"):
        find_file(url, ("bit.npz",), offline)
    with pytest.raises(FileNotFoundError, match=r"does not have http.*/alone/bit\.npz"):
        find_file(url, ("config.json",), offline)  # what lacks is what was named
    assert server.requests == []
    path = find_file(url, ("bit.npz",), options(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"does not have http.*/alone/config\.json"):
        find_file(url, ("config.json",), offline)  # offline, it is unknown whether the file exists
    assert find_file(url, ("config.json",), options(tmp_path)) is None
    server.requests.clear()
    assert find_file(url, ("bit.npz",), offline) == path
    assert find_file(url, ("config.json",), offline) is None
    assert server.requests == []


def test_a_cached_file_needs_no_server(server, tmp_path):
    url = f"{server.url}/alone/bit.npz"
    path = find_file(url, ("bit.npz",), options(tmp_path))
    server.fault = SERVER_ERROR
    assert find_file(url, ("bit.npz",), options(tmp_path)) == path
    server.files.clear()
    assert find_file(url, ("bit.npz",), options(tmp_path)) == path


def test_a_file_that_is_known_to_be_absent_needs_no_server(server, tmp_path):
    url = f"{server.url}/alone/bit.npz"
    path = find_file(url, ("bit.npz",), options(tmp_path))
    assert find_file(url, ("config.json",), options(tmp_path)) is None
    server.fault = SERVER_ERROR
    assert find_file(url, ("config.json", "bit.npz"), options(tmp_path)) == path


def test_without_a_connection_the_error_is_about_the_file_that_was_named(tmp_path):
    with pytest.raises(ConnectionError, match=r"The connection for http.*/bit\.npz failed"):
        find_file(f"{closed_url()}/bit.npz", ("config.json",), options(tmp_path))


def test_a_file_that_changed_is_downloaded_again(server, tmp_path):
    url = f"{server.url}/alone/bit.npz"
    old = find_file(url, ("bit.npz",), options(tmp_path))
    server.files["/alone/bit.npz"] = b"new" * 100
    new = find_file(url, ("bit.npz",), options(tmp_path))
    assert (old.read_bytes(), new.read_bytes()) == (WEIGHTS[:1000], b"new" * 100)
    assert find_file(url, ("bit.npz",), options(tmp_path, local_files_only=True)) == new


def test_names_with_spaces_redirections_and_servers_without_ranges_work(server, tmp_path):
    spaced = find_file(f"{server.url}/my%20files/bit%2050.npz", ("bit 50.npz",), options(tmp_path))
    assert spaced.read_bytes() == WEIGHTS[:500]
    assert find_file(f"{server.url}/my files/bit 50.npz", ("bit 50.npz",), options(tmp_path)).name == "bit 50.npz"
    assert find_file(f"{server.url}/moved/bit.npz", ("bit.npz",), options(tmp_path)).read_bytes() == WEIGHTS[:1000]
    server.fault = NO_RANGES
    whole = find_file(f"{server.url}/bit/model.safetensors", ("model.safetensors",), options(tmp_path))
    assert whole.read_bytes() == WEIGHTS


def test_a_query_is_sent_and_never_shown(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    url = f"{server.url}/alone/bit.npz?signature=s3cret"
    assert find_file(url, ("bit.npz",), options(tmp_path)).read_bytes() == WEIGHTS[:1000]
    assert server.requests[1] == "GET /alone/bit.npz?signature=s3cret"
    with pytest.raises(FileNotFoundError) as error:
        find_file(f"{server.url}/nothing.npz?signature=s3cret", ("nothing.npz",), options(tmp_path))
    assert finding.shown(url) == f"{server.url}/alone/bit.npz?***"
    assert "s3cret" not in caplog.text + str(error.value)


REFUSED = {
    "a file that is not there": (
        "/nothing.npz",
        None,
        FileNotFoundError,
        "The file {url} does not exist: .* status 404",
    ),
    "a file that is forbidden": (
        "/nothing.npz",
        FORBIDDEN,
        PermissionError,
        "refuses it with status 403.*Tokens are sent to the Hub only",
    ),
    "a web page": ("/nothing.npz", A_PAGE, ValueError, "{url} answered with a web page.* in a browser"),
    "a page that calls itself a file": ("/page/bit.npz", None, ValueError, "bit.npz is a web page .HTML or XML."),
    "a broken server": ("/alone/bit.npz", SERVER_ERROR, OSError, "Could not get {url}: status 500"),
    "another checksum": ("/alone/bit.npz", HALF_MD5, ValueError, "The download of {url} is damaged: its MD5 is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_failed_download_is_reported_in_a_sentence(server, tmp_path, case):
    path, fault, kind, words = REFUSED[case]
    server.fault = fault
    url = server.url + path
    with pytest.raises(kind, match=words.format(url=url)) as error:
        find_file(url, (url.rpartition("/")[2],), options(tmp_path))
    assert "\n" not in str(error.value)
    if "page that calls" not in case:  # which is kept, for a person to look at
        assert files_below(tmp_path) == []


def test_a_redirection_to_an_address_that_is_not_encrypted_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_bit.hub.addresses.is_safe", lambda url: not url.endswith("/alone/bit.npz"))
    with pytest.raises(OSError, match=r"Could not get .*: it redirects to .*/alone/bit\.npz, which is not encrypted"):
        find_file(f"{server.url}/moved/bit.npz", ("bit.npz",), options(tmp_path))


def test_a_missing_server_is_reported_after_one_request(tmp_path, caplog):
    with pytest.raises(ConnectionError, match=r"^The connection for http://.*/bit\.npz failed \(.*refused"):
        find_file(f"{closed_url()}/bit.npz", ("bit.npz",), options(tmp_path))
    assert "Retrying" not in caplog.text  # huggingface_hub's words before it sleeps
    assert "resume" not in caplog.text


@pytest.mark.slow  # the client tries again for some seconds
def test_a_download_goes_on_where_it_broke_off(server, tmp_path, monkeypatch):
    # What huggingface_hub reads and writes at a time, which is more than this file.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.fault = CUT
    url = f"{server.url}/bit/model.safetensors"
    with pytest.raises(ConnectionError, match="The next try continues"):
        find_file(url, ("model.safetensors",), options(tmp_path))
    assert files_below(tmp_path) == ["model.safetensors.incomplete"]
    begun = next(tmp_path.rglob("*.incomplete")).stat().st_size
    assert begun == len(WEIGHTS) // 2 // 1000 * 1000
    server.fault = None
    server.requests.clear()
    assert find_file(url, ("model.safetensors",), options(tmp_path)).read_bytes() == WEIGHTS
    assert server.requests[1] == f"GET /bit/model.safetensors bytes={begun}-"
    assert files_below(tmp_path) == ["model.safetensors"]


def test_half_a_file_of_a_killed_process_is_completed(server, tmp_path):
    url = f"{server.url}/bit/model.safetensors"
    path = find_file(url, ("model.safetensors",), options(tmp_path))
    path.rename(path.with_name("model.safetensors.incomplete"))
    with path.with_name("model.safetensors.incomplete").open("r+b") as file:
        file.truncate(1000)
    server.requests.clear()
    assert find_file(url, ("model.safetensors",), options(tmp_path)).read_bytes() == WEIGHTS
    assert server.requests[1] == "GET /bit/model.safetensors bytes=1000-"


def test_two_threads_download_once(server, tmp_path):
    url = f"{server.url}/bit/model.safetensors"
    found = []
    huggingface_hub.get_session()  # of which version 1.0 would make two at once, and leave one open

    def fetch():
        found.append(find_file(url, ("model.safetensors",), options(tmp_path)))

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert found[0].read_bytes() == WEIGHTS
    assert len([request for request in server.requests if not request.endswith("bytes=0-0")]) == 1


def test_a_published_files_configuration_is_known(tmp_path):
    (tmp_path / "cache").mkdir()
    config = find_file("BiT-M-R50x1-ILSVRC2012", ("config.json",), options(tmp_path / "cache", local_files_only=True))
    values = finding.read_json(config)
    assert values["architecture"] == "resnetv2_50x1_bit"
    assert values["pretrained_cfg"]["input_size"] == [3, 448, 448]
    again = find_file("BiT-M-R50x1-ILSVRC2012", ("config.json",), options(tmp_path / "cache"))
    assert again == config
    assert find_file("BiT-M-R50x1-ILSVRC2012", PROCESSOR, options(tmp_path / "cache")) is None


def test_an_empty_file_is_downloaded_as_a_file(server, tmp_path):
    path = find_file(f"{server.url}/empty/bit.npz", ("bit.npz",), options(tmp_path))
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "source", ["https://tfhub.dev/google/bit/m-r50x1/1", "https://example.org/", "https://example.org/bit.zip"]
)
def test_an_address_of_no_file_of_weights_is_refused(source):
    with pytest.raises(ValueError, match=r"is not the address of a file of weights, which would end in \.safetensors"):
        find_file(source, ("config.json",))


def test_an_address_has_no_revisions():
    with pytest.raises(ValueError, match="is a file on the web and has no revisions"):
        find_file("https://example.org/bit.npz", ("bit.npz",), HubOptions(revision="v1"))
    assert Address("https://example.org/bit.npz").config is None
