"""Tests redaction.py and everything that asks a Hub: no error, cause or log shows a token or password."""

import json
import logging
import traceback

import pytest

from command_line import TINY, run
from keras_bit.hub import redaction
from keras_bit.hub.finding import HubOptions, find_file
from loopback_hub import BAD_TOKEN, BUSY, HANG_UP, NOT_A_HUB, SERVER_ERROR, LoopbackHub, closed_url, run_against_hub

TOKEN = "hf_" + "s3cretT0ken" * 3
WRONG_TOKENS = {
    "a space inside": (f"{TOKEN} {TOKEN}", ValueError),
    "a line end inside": (f"{TOKEN}\n{TOKEN}", ValueError),
    "not ASCII": (f"{TOKEN}é", ValueError),
    "not ASCII at all": ("ключ" * 8, ValueError),
    "a no-break space inside": (f"{TOKEN}\u00a0{TOKEN}", ValueError),
    "a zero character": (f"{TOKEN}\0", ValueError),
    "bytes": (TOKEN.encode(), TypeError),
    "a number": (4711, TypeError),
}


@pytest.mark.parametrize("case", WRONG_TOKENS)
def test_a_wrong_token_is_refused_unseen_before_anything_is_asked(case, monkeypatch):
    token, error = WRONG_TOKENS[case]
    monkeypatch.setattr("keras_bit.hub.finding._from_hub", lambda *_: pytest.fail("asked"))
    with pytest.raises(error, match="`token`") as raised:
        find_file("google/bit-50", ("config.json",), HubOptions(token=token))
    printed = "".join(traceback.format_exception(raised.value))
    assert "s3cret" not in printed.replace(repr(TOKEN), "")
    assert "ключ" not in printed
    assert "4711" not in str(raised.value)


@pytest.mark.parametrize("token", ["", " ", "\n", "\r\n\t", "\u00a0"])
def test_an_empty_token_means_no_token(token):
    """Tests the empty text that `os.environ.get("HF_TOKEN", "")` gives."""
    assert HubOptions(token=token).token is None
    assert HubOptions(token=token) == HubOptions()


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN}\r\n", f" {TOKEN}\t", f"{TOKEN}\u00a0"])
def test_white_space_around_a_token_is_left_out(token):
    assert HubOptions(token=token).token == TOKEN
    assert HubOptions(token=token).arguments["token"] == TOKEN
    assert TOKEN not in repr(HubOptions(token=token))


@pytest.mark.parametrize("token", [None, True, False, "hf_x", TOKEN])
def test_other_tokens_are_sent(token):
    redaction.check_token(token)


def test_a_local_source_needs_no_token(tmp_path):
    (tmp_path / "config.json").touch()
    assert find_file(tmp_path, ("config.json",), HubOptions(token="")) == tmp_path / "config.json"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no secret: https://huggingface.co/google/bit-50", "no secret: https://huggingface.co/google/bit-50"),
        ("hf_xet and hf_hub_download failed", "hf_xet and hf_hub_download failed"),
        ("HEAD http://user:pa:ss/w@rd@host:80/a", "HEAD http://***@host:80/a"),
        (f"b'Bearer {TOKEN}'", "b'Bearer ***'"),
        (f"token {TOKEN} of {TOKEN}", "token *** of ***"),
        ("Bearer other", "Bearer ***"),
        ("GET https://host/bit.npz?signature=x&y#z failed", "GET https://host/bit.npz?*** failed"),
        ("is it at https://host/bit.npz?", "is it at https://host/bit.npz?"),
        ("https://me:pass@host/?x 'http://host/?y'", "https://***@host/?*** 'http://host/?***'"),
        ("/a/directory?x", "/a/directory?x"),
        ("the checkpoint 'hf://owner/name@v1' does not fit", "the checkpoint 'hf://owner/name@v1' does not fit"),
        ("hf://user:password@host/name", "hf://***@host/name"),
    ],
)
def test_secrets_are_redacted(text, expected):
    assert redaction.redacted(text) == expected


def test_the_parts_of_a_password_that_an_error_shows_are_redacted(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://user:sec/ret@host")
    assert redaction.redacted("Invalid port: 'sec' (user, ret)") == "Invalid port: '***' (user, ***)"


@pytest.mark.parametrize("text", ["://" * 10**5, "://?" * 10**5, "@" * 10**5, "hf_" * 10**5, "Bearer " * 10**5])
def test_long_texts_of_others_take_linear_time(text):
    redaction.redacted(text)  # which would take hours


class _OddError(OSError):
    def __str__(self):
        return f"sent {TOKEN}"


def _raise(error, cause=None):
    with redaction.kept_secret(TOKEN):
        raise error from cause


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError(f"Illegal header value b'Bearer {TOKEN}'"), None),
        (ValueError("failed"), RuntimeError(f"with {TOKEN}")),
        (KeyError(TOKEN), RuntimeError(f"http://me:{TOKEN}@host")),
        (_OddError(), None),
    ],
)
def test_an_error_leaves_without_its_secrets(error, cause):
    with pytest.raises((type(error), OSError)) as raised:
        _raise(error, cause)
    # A traceback shows these, but not the lines of code that made them.
    shown = [raised.value]
    while shown[-1].__cause__ or (shown[-1].__context__ and not shown[-1].__suppress_context__):
        shown.append(shown[-1].__cause__ or shown[-1].__context__)
    assert not any("s3cret" in line for one in shown for line in traceback.format_exception_only(one))


def test_an_error_without_secrets_keeps_its_cause():
    cause = RuntimeError("the cause")
    with pytest.raises(ValueError, match="failed") as raised:
        _raise(ValueError("failed"), cause)
    assert raised.value.__cause__ is cause


def test_logs_are_redacted_also_of_errors(caplog):
    with redaction.kept_secret(TOKEN):
        pass
    log = logging.getLogger("httpx2")
    with caplog.at_level(logging.INFO, "httpx2"):
        log.info("HTTP Request: %s %s", "GET", f"http://user:password@host/{TOKEN}")
        try:
            raise ValueError(f"Bearer {TOKEN}")
        except ValueError:
            log.exception("failed")
    assert "***@host" in caplog.text
    assert "password" not in caplog.text
    assert "s3cret" not in caplog.records[0].getMessage() + caplog.records[1].exc_text.splitlines()[-1]


# Collects the message and traceback of every error, and every logged line of any level, in a separate process.
ASK = """
import json, logging, traceback
logging.basicConfig(level=logging.DEBUG)
from keras_bit.hub import finding
import keras_bit
logging.getLogger("huggingface_hub").setLevel(logging.DEBUG)
arguments = json.loads({arguments!r})
try:
    finding.find_file("google/bit-50", ("config.json",), finding.HubOptions(**arguments))
    print("an answer")
except Exception as error:
    print(type(error).__name__)
    print(f"'{{type(error).__name__}}'", "".join(traceback.format_exception(error)))
"""
FAULTS = (SERVER_ERROR, BAD_TOKEN, HANG_UP, NOT_A_HUB, BUSY)


OTHERS = ("closed", "an address that cannot be read", "a stored token of other letters")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*FAULTS, *OTHERS])
def test_no_secret_in_any_message_or_log(tmp_path, fault):
    code, token = ASK.format(arguments=json.dumps({"token": TOKEN})), {}
    with LoopbackHub({}, fault=fault if fault in FAULTS else None) as server:
        address = server.url if fault != "closed" else closed_url()
        address = address.replace("://", "://someone:passw0rd@")
        if fault == "an address that cannot be read":
            address = "http://someone:passw0rd/more@host"
        if fault == "a stored token of other letters":
            code, token = ASK.format(arguments="{}"), {"HF_TOKEN": f"{TOKEN}é"}
        process = run_against_hub(code, address, tmp_path, **token)
    assert process.returncode == 0, process.stderr
    printed = process.stdout + process.stderr
    assert "s3cret" not in printed
    assert "passw0rd" not in printed
    documented = {"FileNotFoundError", "PermissionError", "ConnectionError", "OSError", "ValueError"}
    assert process.stdout.split()[0] in documented


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("got 'https://anna:s3cret@host/data'", "got 'https://***@host/data'"),
        ("https:/anna:s3cret@host", "https:/***@host"),  # as a path
        ("grpc://anna@host:8500 and http://b:c@d", "grpc://***@host:8500 and http://***@d"),
        ("https://host/@anna/cat.jpg?by=a@b", "https://host/@anna/cat.jpg?by=a@b"),
        ("a@b.jpg: no", "a@b.jpg: no"),
    ],
)
def test_users_of_addresses_are_masked(text, expected):
    assert redaction.without_users(text) == expected


@pytest.mark.parametrize("endpoint", ["anna:s3cret@127.0.0.1:9", "127.0.0.1:9", "ftp://anna:s3cret@host", "http://h:0"])
def test_an_invalid_endpoint_is_refused_without_its_password(monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(ValueError, match="HF_ENDPOINT must be the address of a Hub") as caught:
        find_file("google/bit-50", ["config.json"])
    assert "s3cret" not in str(caught.value)


def test_a_source_with_a_password_is_refused_without_it():
    with pytest.raises(ValueError, match="cannot be a Hub id") as caught:
        find_file("anna:s3cret@example.org", ["config.json"])
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [["finetune", "--out", "out"], ["embed", "--out", "out"], ["evaluate"], ["plot", "--out", "a.png"]]
)
def test_no_command_shows_the_password_of_an_address_as_data(capsys, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, arguments[0], "https://anna:s3cret@host/data", *arguments[1:], "--weights", TINY)
    assert code == 1
    assert "https:/" in err
    assert "s3cret" not in out + err
