"""Tests the subpackage hub with directories, a loopback Hub, and hand-made caches, without network."""

import json
import re
from pathlib import Path

import huggingface_hub
import pytest

import keras_bit
from keras_bit import versions
from keras_bit.hub import finding
from keras_bit.hub.finding import HubOptions, find_file, read_json
from keras_bit.hub.names import Repository
from loopback_hub import (
    BAD_TOKEN,
    BUSY,
    CUT,
    HANG_UP,
    NOT_A_HUB,
    PLAIN_404,
    SERVER_ERROR,
    SHORT,
    LoopbackHub,
    closed_url,
    commit_of,
    make_cache,
    run_against_hub,
)

ID = "google/bit-50"
CONFIG = b'{"model_type": "bit"}'
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
PREPROCESSOR = ("preprocessor_config.json", "processor_config.json")
REPOSITORIES = {
    ID: {
        "main": {"config.json": CONFIG, "pytorch_model.bin": bytes(range(256)) * 40},
        "v1": {"config.json": b'{"model_type": "bit", "version": 1}'},
    },
    "someone/private": {"main": {"config.json": CONFIG}},
    "someone/gated": {"main": {"config.json": CONFIG}},
    "bare": {"main": {"config.json": CONFIG}},
}

ASK = """
import json, sys
from keras_bit.hub import finding
heavy = sorted(set(sys.modules) & {{"huggingface_hub", "numpy"}})
answers = []
for arguments in json.loads({calls!r}):
    source, names = arguments.pop("source"), arguments.pop("names")
    try:
        path = finding.find_file(source, names, finding.HubOptions(**arguments))
        answers.append(dict(path=path and str(path)))
    except Exception as error:
        answers.append(dict(error=type(error).__name__, text=str(error), cause=type(error.__cause__).__name__))
heavy += sorted(set(sys.modules) & {{"keras", "tensorflow", "torch", "jax"}})
print(json.dumps(dict(answers=answers, heavy=heavy)))
"""


def ask(server, tmp_path, *calls, **env):
    """Calls find_file(**call) for each of `calls`, in one process. Returns a list of {path} or {error, text, cause}."""
    code = ASK.format(calls=json.dumps(calls))
    process = run_against_hub(code, server, tmp_path, **env)
    assert process.returncode == 0, process.stderr
    assert "Retrying in" not in process.stderr  # huggingface_hub's words before it sleeps
    answer = json.loads(process.stdout)
    assert answer["heavy"] == []  # huggingface_hub is imported by the first question
    return answer["answers"]


def call(source=ID, names=("config.json",), **arguments):
    return {"source": source, "names": names, **arguments}


def downloads_below(cache):
    """Lists all files in the cache that could be files of a repository, unfinished ones included."""
    return [path for path in cache.rglob("*") if path.is_file() and {"blobs", "snapshots"} & set(path.parts)]


# Local sources


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "bit-50"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        (folder / name).touch()
    (folder / "model.safetensors.index.json").mkdir()  # not a file: never an answer
    return folder


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_directory_gives_the_first_name_it_has(checkpoint, as_type):
    assert find_file(as_type(checkpoint), WEIGHTS) == checkpoint / "model.safetensors"
    assert find_file(as_type(checkpoint), WEIGHTS[1:]) == checkpoint / "pytorch_model.bin"
    assert find_file(as_type(checkpoint), PREPROCESSOR) is None


def test_a_file_stands_for_its_directory(checkpoint):
    assert find_file(checkpoint / "model.safetensors", ("config.json",)) == checkpoint / "config.json"


def test_a_relative_path_and_a_home_directory_are_found(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    assert find_file("bit-50", ("config.json",)) == Path("bit-50/config.json")  # though it could be a Hub id
    assert find_file("~/bit-50", ("config.json",)) == checkpoint / "config.json"
    monkeypatch.chdir(checkpoint)
    assert find_file("model.safetensors", ("config.json",)) == Path("config.json")


@pytest.mark.parametrize(
    "source",
    [
        "/no/such/directory",
        "./bit-50",
        "../bit-50",
        "~/no/such/bit-50",
        "runs/1/bit-50",
        "runs/",
        r"runs\bit-50",
        "C:bit-50",
        "bit-50.safetensors",
        "runs/weights.NPZ",
        "weights.h5",
        "model.keras",
        "pytorch_model.bin",
        "config.json",
        Path("google/bit-50"),
    ],
)
def test_a_name_that_can_only_be_a_path_is_not_searched_on_the_hub(source):
    with pytest.raises(FileNotFoundError, match=r"^No such file or directory: .* was not searched on the Hub") as e:
        find_file(source, ("config.json",))
    assert repr(str(source)) in str(e.value)


@pytest.mark.parametrize(
    "name",
    ["google/bit-50", "timm/resnetv2_50x1_bit.goog_in21k", "BiT-M-R50x1", "resnetv2_50x1_bit.goog_in21k", "runs/first"],
)
def test_a_directory_that_hides_what_is_published_is_named_with_its_path(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_file(name, ("config.json",)) is None
    assert finding.named_file(name) is None
    there = f"hf://{name}" if "/" in name else keras_bit.list_checkpoints(name)[0].source
    # It is unknown whether a repository exists whose name is in no table.
    hides = ", which hides the published checkpoint of that name. For that, pass"
    known = ". For a repository of the Hub, pass" if name == "runs/first" else hides
    assert finding.remark(name) == f" '{name}' is the local directory {folder}{known} '{there}'."
    assert finding.remark(f"./{name}") == finding.remark(folder) == ""


def test_the_place_of_a_source_is_known_without_a_request(checkpoint, monkeypatch):
    assert finding.place_of(checkpoint) == checkpoint
    assert finding.place_of(str(checkpoint / "config.json")) == checkpoint / "config.json"
    assert finding.named_file(checkpoint / "config.json") == "config.json"
    assert finding.place_of(ID) == Repository(ID, explicit=False)
    assert finding.place_of(f"hf://{ID}") == Repository(ID)
    assert finding.named_file(f"https://huggingface.co/{ID}/blob/main/model.safetensors") == "model.safetensors"
    assert finding.remark(ID) == finding.remark("https://example.org/bit.npz") == finding.remark("no/such/path") == ""
    monkeypatch.setenv("HF_ENDPOINT", "https://user:password@hub.example/mirror/")
    assert finding.place_of(f"https://hub.example/mirror/{ID}/tree/v1") == Repository(ID, "v1")


@pytest.mark.parametrize("source", [f"hf://{ID}@v1", f"https://huggingface.co/{ID}/tree/v1"])
def test_a_revision_is_named_once(source):
    with pytest.raises(ValueError, match=r"`revision` 'v2' was given, but `source` .* names the revision 'v1'\. Le"):
        find_file(source, ("config.json",), HubOptions(revision="v2"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": ""}, ValueError, "`source` must not be empty. Pass a path or a Hub id such as 'google/bit-50'"),
        ({"source": None}, TypeError, "`source` must be a path or a Hub id such as 'google/bit-50', got NoneType"),
        ({"source": b"google/bit-50"}, TypeError, "got bytes: b'google/bit-50'"),
        (
            {"source": "google/bit--50"},
            ValueError,
            "`source` 'google/bit--50' is not a local file or directory, and it",
        ),
        ({"source": "google bit"}, ValueError, "it cannot be a Hub id (`name` or `owner/name`, such as"),
        ({"source": "nul\0"}, ValueError, "it cannot be a Hub id"),
        ({"source": "x" * 5000}, ValueError, "it cannot be a Hub id"),
        (
            {"source": ID, "revision": ""},
            ValueError,
            "`revision` must not be empty. Pass a branch, a tag, a full commit hash",
        ),
        ({"source": ID, "revision": 1}, TypeError, "`revision` must be a string or None, got int: 1"),
        ({"source": ".", "revision": "v1"}, ValueError, "`revision` 'v1' was given, but `source` '.' is on this disk"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        find_file(arguments.pop("source"), ("config.json",), HubOptions(**arguments))


def test_a_directory_takes_the_revision_main(checkpoint):
    assert find_file(checkpoint, ("config.json",), HubOptions(revision="main")) == checkpoint / "config.json"


# The Hub


def test_files_are_downloaded_once_and_then_come_from_the_cache(tmp_path):
    with LoopbackHub(REPOSITORIES) as server:
        config, weights, none, old, pinned, bare = ask(
            server,
            tmp_path,
            call(),
            call(names=WEIGHTS),
            call(names=PREPROCESSOR),
            call(revision="v1"),
            call(revision=commit_of(ID, "v1")),
            call("bare"),
        )
        assert not [request for request in server.requests if "/resolve/" not in request]
        assert len([request for request in server.requests if request.startswith("GET")]) == 4  # pinned: cached by v1
        server.requests.clear()
        again, pinned_again = ask(server, tmp_path, call(names=WEIGHTS), call(revision=commit_of(ID, "v1")))
        # Only the cached name was requested; a commit hash needs no request.
        assert server.requests == [f"HEAD /{ID}/resolve/main/pytorch_model.bin"]
    snapshot = tmp_path / "hub" / "models--google--bit-50" / "snapshots" / commit_of(ID)
    assert config == {"path": str(snapshot / "config.json")}
    assert Path(config["path"]).read_bytes() == CONFIG
    assert weights == again == {"path": str(snapshot / "pytorch_model.bin")}
    assert none == {"path": None}
    assert json.loads(Path(old["path"]).read_bytes())["version"] == 1
    assert pinned == pinned_again == old
    assert Path(bare["path"]).read_bytes() == CONFIG


def test_a_repository_has_many_names(tmp_path):
    """Checks that all names mean the same repository, also if a local directory has its name."""
    (tmp_path / ID).mkdir(parents=True)
    with LoopbackHub(REPOSITORIES) as server:
        pages = [f"{server.url}/{ID}", f"{server.url}/{ID}/tree/main", f"https://huggingface.co/{ID}?x=1"]
        main = ask(server, tmp_path, *(call(one) for one in (f"hf://{ID}", f"hf-hub:{ID}", *pages)))
        pinned = [f"hf://{ID}@v1", f"hf-hub:{ID}@{commit_of(ID, 'v1')}", f"{server.url}/{ID}/resolve/v1/config.json"]
        old = ask(server, tmp_path, *(call(one) for one in pinned), call(f"hf://{ID}", revision="v1"))
        hidden, missing, file = ask(
            server, tmp_path, call(), call("hf://google/bit-5o"), call(f"{server.url}/{ID}/blob/v9/config.json")
        )
    snapshot = tmp_path / "hub" / "models--google--bit-50" / "snapshots"
    assert main == [{"path": str(snapshot / commit_of(ID) / "config.json")}] * len(main)
    assert old == [{"path": str(snapshot / commit_of(ID, "v1") / "config.json")}] * len(old)
    assert hidden == {"path": None}
    assert missing["text"].startswith(f"'google/bit-5o': {server.url} shows no repository of that name: it may be mis")
    assert file["text"].startswith(f"'google/bit-50' has no revision 'v9' on {server.url}.")


def test_after_one_online_run_an_offline_one_gives_the_same_answers(tmp_path):
    calls = call(), call(names=WEIGHTS), call(names=PREPROCESSOR)
    with LoopbackHub(REPOSITORIES) as server:
        online = ask(server, tmp_path, *calls)
    assert online[2] == {"path": None}
    assert ask(server, tmp_path, *calls) == online  # the server is gone
    assert ask(server, tmp_path, *calls, HF_HUB_OFFLINE="1") == online
    assert ask(server, tmp_path, *(one | {"local_files_only": True} for one in calls)) == online


def test_a_cached_file_that_changed_on_the_hub_is_brought_up_to_date(tmp_path):
    stale = {"config.json": b"{}", "gone.json": b"{}"}
    make_cache(tmp_path / "hub", ID, stale, commit="0" * 40)
    with LoopbackHub(REPOSITORIES) as server:
        config, gone = ask(server, tmp_path, call(), call(names=("gone.json", "config.json")))
    assert Path(config["path"]).read_bytes() == CONFIG
    assert gone == config


def test_a_mirror_with_plain_404_answers_is_understood(tmp_path):
    with LoopbackHub(REPOSITORIES, fault=PLAIN_404) as server:
        weights, none = ask(server, tmp_path, call(names=WEIGHTS), call(names=PREPROCESSOR))
    assert weights["path"].endswith("pytorch_model.bin")
    assert none == {"path": None}


def test_a_busy_hub_is_asked_again(tmp_path):
    with LoopbackHub(REPOSITORIES, fault=BUSY) as server:
        (answer,) = ask(server, tmp_path, call())
    if versions.is_older(huggingface_hub.__version__, "1.2"):  # asks once
        assert "status 503" in answer["text"]
    else:
        assert Path(answer["path"]).read_bytes() == CONFIG


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "full").touch()
    with LoopbackHub(REPOSITORIES) as server:
        (answer,) = ask(server, tmp_path, call(cache_dir=str(tmp_path / "full")))
        assert answer["text"].startswith(
            f"Could not get config.json of 'google/bit-50' from {server.url} into the cache {tmp_path / 'full'}: [Errno"
        )


def test_a_private_repository_opens_with_its_token(tmp_path):
    with LoopbackHub(REPOSITORIES, private={"someone/private": "hf_right"}) as server:
        calls = call("someone/private", token="hf_right"), call("someone/private", token="hf_wrong")
        right, wrong = ask(server, tmp_path, *calls)
    assert Path(right["path"]).read_bytes() == CONFIG
    assert wrong == right  # huggingface_hub answers from the cache what the token may no longer read


NO_REPOSITORY = (
    " is not a local file or directory, and {hub} shows no repository of that name: it may be misspelled or private. "
    "If it is private, log in with `hf auth login` or pass `token=`."
)
GATED = (
    "'someone/gated' is a gated repository and {hub} refuses config.json of 'someone/gated'. Ask for access at "
    "{hub}/someone/gated, then log in with `hf auth login` or pass `token=`."
)
ONLINE_ERRORS = {
    "an id that does not exist": (
        call("google/bit-5o"),
        "FileNotFoundError",
        "RepositoryNotFoundError",
        "'google/bit-5o'" + NO_REPOSITORY,
    ),
    "an id that does not exist, asked with a token": (
        call("google/bit-5o", token="hf_x"),
        "FileNotFoundError",
        "RepositoryNotFoundError",
        "'google/bit-5o'" + NO_REPOSITORY,
    ),
    "a private repository": (
        call("someone/private", names=WEIGHTS),
        "FileNotFoundError",
        "RepositoryNotFoundError",
        "'someone/private'" + NO_REPOSITORY,
    ),
    "a gated repository": (
        call("someone/gated"),
        "PermissionError",
        "GatedRepoError",
        GATED,
    ),
    "a gated repository, asked with a token": (
        call("someone/gated", token="hf_x"),
        "PermissionError",
        "GatedRepoError",
        GATED,
    ),
    "a revision that does not exist": (
        call(revision="v9"),
        "FileNotFoundError",
        "RevisionNotFoundError",
        "'google/bit-50' has no revision 'v9' on {hub}. Pass an existing branch, a tag or a full commit hash as "
        "`revision`.",
    ),
    "a token that is demanded and absent": (
        call(token=True),
        "OSError",
        "LocalTokenNotFoundError",
        "Could not get config.json of 'google/bit-50' from {hub} into the cache {cache}: Token is required "
        "(`token=True`), but no token found.",
    ),
}


@pytest.fixture(scope="module")
def online_errors(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("online")
    with LoopbackHub(REPOSITORIES, private={"someone/private": "hf_right"}, gated=["someone/gated"]) as server:
        answers = ask(server, tmp_path, *(row[0] for row in ONLINE_ERRORS.values()))
    assert downloads_below(tmp_path / "hub") == []
    return dict(zip(ONLINE_ERRORS, answers, strict=True)), {"hub": server.url, "cache": tmp_path / "hub"}


@pytest.mark.parametrize("case", ONLINE_ERRORS)
def test_a_refusal_of_the_hub_is_reported_in_a_sentence(online_errors, case):
    answers, places = online_errors
    _, error, cause, text = ONLINE_ERRORS[case]
    assert (answers[case]["error"], answers[case]["cause"]) == (error, cause)
    assert answers[case]["text"].startswith(text.format(**places))


FAULTS = {
    SERVER_ERROR: (
        "OSError",
        "{hub} answered config.json of 'google/bit-50' with status 500, and the cache {cache} does not have it. Try "
        "again later. The answer was: Server error",
    ),
    BAD_TOKEN: (
        "PermissionError",
        "{hub} refused config.json of 'google/bit-50' with status 401. The token may be wrong, expired or without the "
        "right to read it: log in with `hf auth login` or pass `token=`. The answer was: ",
    ),
    HANG_UP: (
        "ConnectionError",
        "The connection to {hub} for config.json of 'google/bit-50' failed (Server disconnected without sending a "
        "response.), and the cache {cache} does not have it",
    ),
    NOT_A_HUB: (
        "OSError",
        "Could not get config.json of 'google/bit-50' from {hub} into the cache {cache}: Response from ",
    ),
    SHORT: (
        "OSError",
        "Could not get config.json of 'google/bit-50' from {hub} into the cache {cache}: Consistency check failed: "
        "file should be of size 21 but has size 10",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.slow
def test_a_faulty_hub_gives_an_error_and_leaves_nothing_behind(tmp_path, fault):
    with LoopbackHub(REPOSITORIES, fault=fault) as server:
        (answer,) = ask(server, tmp_path, call())
        if fault in (SERVER_ERROR, HANG_UP):
            assert server.requests == [f"HEAD /{ID}/resolve/main/config.json"]  # one question, no retry
        error, text = FAULTS[fault]
        assert answer["error"] == error
        assert answer["text"].startswith(text.format(hub=server.url, cache=tmp_path / "hub"))
        assert downloads_below(tmp_path / "hub") == []
        server.fault = None
        (mended,) = ask(server, tmp_path, call())
    assert Path(mended["path"]).read_bytes() == CONFIG


@pytest.mark.slow
def test_a_broken_download_is_an_error_and_leaves_no_half_file(tmp_path):
    old = make_cache(tmp_path / "hub", ID, {"config.json": b"{}"}, commit="0" * 40)
    with LoopbackHub(REPOSITORIES, fault=CUT) as server:
        (answer,) = ask(server, tmp_path, call())
        assert answer["error"] == "ConnectionError"
        assert answer["text"].startswith(
            f"The connection to {server.url} for config.json of 'google/bit-50' failed (peer closed connection without "
            "sending complete message body"
        )
        assert downloads_below(tmp_path / "hub") == [old / "config.json"]
        server.fault = None
        (mended,) = ask(server, tmp_path, call())
    assert Path(mended["path"]).read_bytes() == CONFIG


def test_a_failed_transfer_of_hf_xet_is_reported_like_any_other(tmp_path, monkeypatch):
    # hf_xet tries for minutes before it raises this, so here it is only said to have tried.
    def give_up(*_, **__):
        raise RuntimeError("Task error: File reconstruction error")

    monkeypatch.setattr("keras_bit.hub.finding._ask_once", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", give_up)
    with pytest.raises(OSError, match=r"^Could not get config\.json of 'google/bit-50' .*: Task error: File") as e:
        find_file(ID, ("config.json",), HubOptions(cache_dir=tmp_path))
    assert isinstance(e.value.__cause__, RuntimeError)


@pytest.mark.parametrize("fault", [SERVER_ERROR, BAD_TOKEN, HANG_UP, NOT_A_HUB])
def test_a_faulty_hub_does_not_stand_before_the_cache(tmp_path, fault):
    snapshot = make_cache(tmp_path / "hub", ID, {"config.json": CONFIG})
    with LoopbackHub(REPOSITORIES, fault=fault) as server:
        assert ask(server, tmp_path, call()) == [{"path": str(snapshot / "config.json")}]


# No network


def test_a_cached_file_needs_no_network(tmp_path):
    snapshot = make_cache(tmp_path / "hub", ID, {"config.json": CONFIG, "pytorch_model.bin": b"1"})
    both = make_cache(tmp_path / "hub", "bare", {"model.safetensors": b"1", "pytorch_model.bin": b"2"})
    elsewhere = make_cache(tmp_path / "other", ID, {"config.json": b"{}"}, revision="v1")
    assert ask(
        closed_url(),
        tmp_path,
        call(),
        call(names=WEIGHTS),
        call("bare", names=WEIGHTS),
        call(revision=commit_of(ID)),
        call(revision="v1", cache_dir=str(tmp_path / "other")),
        call(revision="v1", cache_dir="~/other"),
        HOME=str(tmp_path),
    ) == [
        {"path": str(snapshot / "config.json")},
        {"path": str(snapshot / "pytorch_model.bin")},
        {"path": str(both / "model.safetensors")},
        {"path": str(snapshot / "config.json")},
        {"path": str(elsewhere / "config.json")},
        {"path": str(elsewhere / "config.json")},
    ]


def test_a_file_that_the_cache_knows_to_be_absent_needs_no_network(tmp_path):
    make_cache(tmp_path / "hub", ID, {"config.json": CONFIG}, absent=PREPROCESSOR)
    make_cache(tmp_path / "hub", "bare", {"config.json": CONFIG}, absent=PREPROCESSOR[:1])
    calls = call(names=PREPROCESSOR), call("bare", names=PREPROCESSOR)
    for answers in (ask(closed_url(), tmp_path, *calls), ask(closed_url(), tmp_path, *calls, HF_HUB_OFFLINE="1")):
        assert answers[0] == {"path": None}
        # Nothing is known about the second name, so the message must not say that the file does not exist.
        assert "preprocessor_config.json or processor_config.json of 'bare'" in answers[1]["text"]


def test_a_missing_network_is_reported_after_one_request(tmp_path):
    make_cache(tmp_path / "hub", ID, {"config.json": CONFIG})
    url = closed_url()
    nothing, other_file, other_revision = ask(
        url, tmp_path, call("google/bit-5o"), call(names=WEIGHTS), call(revision="v1")
    )
    assert (nothing["error"], nothing["cause"]) == ("ConnectionError", "ConnectError")
    assert re.fullmatch(
        rf"The connection to {url} for config\.json of 'google/bit-5o' failed \(.*Connection refused\), and the cache "
        rf"{tmp_path / 'hub'} does not have it; nor is there a local file or directory 'google/bit-5o'\. Check the "
        r"network, a proxy and HF_ENDPOINT\. To work offline, point `cache_dir` or HF_HUB_CACHE to a cache that has "
        r"it; with HF_HUB_OFFLINE=1 or `local_files_only=True` the Hub is not asked\.",
        nothing["text"],
    )
    wanted = "model.safetensors or model.safetensors.index.json or pytorch_model.bin of 'google/bit-50' failed ("
    assert wanted in other_file["text"]
    assert "config.json of 'google/bit-50' at revision 'v1' failed (" in other_revision["text"]


def test_an_invalid_endpoint_is_named(tmp_path):
    (answer,) = ask("hub.example", tmp_path, call())
    assert answer["error"] == "ValueError"
    assert answer["text"].startswith("The environment variable HF_ENDPOINT must be the address of a Hub")
    assert "'hub.example'" in answer["text"]


@pytest.mark.parametrize(
    ("forbidden", "arguments", "env"),
    [("`local_files_only=True`", {"local_files_only": True}, {}), ("HF_HUB_OFFLINE=1", {}, {"HF_HUB_OFFLINE": "1"})],
)
def test_offline_and_not_cached_names_the_files_and_the_cache(tmp_path, forbidden, arguments, env):
    with LoopbackHub(REPOSITORIES) as server:
        here, there = ask(
            server,
            tmp_path,
            call(names=WEIGHTS, **arguments),
            call(revision="v1", cache_dir=str(tmp_path / "other"), **arguments),
            **env,
        )
        assert server.requests == []
    assert here["error"] == there["error"] == "FileNotFoundError"
    assert here["text"] == (
        f"The cache {tmp_path / 'hub'} does not have model.safetensors or model.safetensors.index.json or "
        f"pytorch_model.bin of 'google/bit-50', and {forbidden} forbids asking the Hub; nor is there a local file or "
        f"directory 'google/bit-50'. Download it once without {forbidden}, or point `cache_dir` or HF_HUB_CACHE to a "
        "cache that has it."
    )
    assert there["text"].startswith(f"The cache {tmp_path / 'other'} does not have config.json of 'google/bit-50' at")


# JSON


def test_a_json_object_is_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"name": "Größe", "sizes": [1, 2.5]}', encoding="utf-8")
    assert read_json(path) == {"name": "Größe", "sizes": [1, 2.5]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", " is not JSON: Expecting value: line 1 column 1"),
        (b'{"a": 1', " is not JSON: Expecting ',' delimiter"),
        (b"[" * 100_000, " is not JSON: "),
        (b'{"a": ' + b"1" * 5000 + b"}", " is not JSON: "),
        ("{}".encode("utf-8-sig"), " is not JSON: Unexpected UTF-8 BOM"),
        ('{"a": "ö"}'.encode("latin-1"), " is not UTF-8 text, which JSON must be: "),
        ("{}".encode("utf-16"), " is not UTF-8 text, which JSON must be: "),
        (b"[1]", " must hold a JSON object, {...}, but holds a list"),
        (b"null", " must hold a JSON object, {...}, but holds a NoneType"),
    ],
)
def test_a_file_without_a_json_object_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}{message}")):
        read_json(path)


def test_a_json_file_that_is_absent_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        read_json(tmp_path / "nothing.json")
