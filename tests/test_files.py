"""Tests files/writing.py: files are written whole or not at all, also after a kill; processes exclude each other."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors

from conftest import ROOT
from keras_bit import wording
from keras_bit.files import claims, locks, writing

DISK = "the disk is gone"


def write(path, kind, text):
    """Writes a file with `text`, or a directory with two files, one of them deeper."""
    if kind == "file":
        path.write_text(text)
    else:
        (path / "deeper").mkdir(parents=True)
        (path / f"{text}.txt").write_text(text)
        (path / "deeper" / "file").write_text(text)


def written(kind, text, name="a.b"):
    """Returns what `write` made, in the form of `contents`."""
    if kind == "file":
        return {name: text}
    return {name: None, f"{name}/{text}.txt": text, f"{name}/deeper": None, f"{name}/deeper/file": text}


def contents(directory):
    """Maps each name to its text, to None for a directory, or to the target of a symbolic link."""

    def content(path):
        if path.is_symlink():
            return os.readlink(path)
        return None if path.is_dir() else path.read_text()

    return {str(path.relative_to(directory)): content(path) for path in directory.rglob("*")}


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def failing(number):
    """Makes call `number` of `os.rename` and `os.replace` fail, counted together from 1. Gives the calls."""
    calls = []

    def counted(real):
        def call(source, place):
            calls.append((source, place))
            if len(calls) == number:
                raise OSError(errno.EIO, DISK)
            real(source, place)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "replace"):
            patch.setattr(os, name, counted(getattr(os, name)))
        yield calls


def throw(error):
    raise error


@contextlib.contextmanager
def another_process(body, *arguments):
    """Runs `body`, with `path` as its first argument, as far as its `wait()`, and kills it at the end."""
    program = (
        "import pathlib, sys\nfrom keras_bit.files import claims, locks, writing\npath = pathlib.Path(sys.argv[1])\n"
        "def wait():\n    print('here', flush=True)\n    sys.stdin.read()\n" + body
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
        try:
            assert process.stdout.readline() == "here\n", process.stderr.read()
            yield process
        finally:
            process.kill()


def no_locks(number):
    """Returns filelock's error on a file system that has no locks."""
    if number is None:
        return NotImplementedError("FileSystem does not appear to support flock")
    return OSError(number, os.strerror(number))


def take_locks_away(monkeypatch, number=errno.ENOLCK):
    monkeypatch.setattr(locks.filelock.FileLock, "acquire", lambda self, timeout: throw(no_locks(number)))


NO_LOCKS_THERE = """
import errno
def acquire(self, timeout):
    raise OSError(errno.ENOLCK, "No locks available")
locks.filelock.FileLock.acquire = acquire
"""


# One file

EARLIER = pytest.mark.parametrize("earlier", [False, True], ids=["new", "replaced"])


@EARLIER
def test_the_new_file_takes_its_place_and_nothing_else_stays(tmp_path, earlier):
    path = tmp_path / "a.b"
    if earlier:
        path.write_text("old")
    with writing.replacing(str(path)) as beside:
        assert (beside.parent.parent, beside.name, beside.exists()) == (tmp_path, "a.b", False)
        beside.write_text("new")
        beside.with_name(".tmp0123").write_text("what a library leaves")
        assert path.exists() == earlier
    assert contents(tmp_path) == {"a.b": "new"}


@EARLIER
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_all_is_as_it_was(tmp_path, earlier, error):
    if earlier:
        (tmp_path / "a.b").write_text("old")
    before = contents(tmp_path)
    with pytest.raises(error), writing.replacing(tmp_path / "a.b") as beside:
        throw(error(beside.write_text("half")))
    assert contents(tmp_path) == before


def test_after_an_error_of_the_rename_all_is_as_it_was(tmp_path):
    (tmp_path / "a.b").write_text("old")
    with failing(1), pytest.raises(OSError, match=DISK), writing.replacing(tmp_path / "a.b") as beside:
        beside.write_text("new")
    assert contents(tmp_path) == {"a.b": "old"}


def test_a_file_replaces_no_directory(tmp_path):
    write(tmp_path / "a.b", "directory", "old")
    with pytest.raises(OSError, match="directory"), writing.replacing(tmp_path / "a.b") as beside:
        beside.write_text("new")
    assert contents(tmp_path) == written("directory", "old")


def test_nothing_written_is_an_error_and_replaces_nothing(tmp_path):
    write(tmp_path / "a.b", "file", "old")
    with pytest.raises(FileNotFoundError), writing.replacing(tmp_path / "a.b"):
        pass
    assert contents(tmp_path) == written("file", "old")


def test_a_symbolic_link_is_replaced_and_not_what_it_points_to(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "a.b").symlink_to("target")
    with writing.replacing(tmp_path / "a.b") as beside:
        beside.write_text("new")
    assert contents(tmp_path) == {"a.b": "new", "target": "old"}


KILLED = "with writing.replacing(path) as beside:\n    beside.write_text('half')\n    wait()"


@pytest.mark.parametrize("has_locks", [True, False])
def test_the_next_writer_removes_the_files_of_a_killed_process(tmp_path, monkeypatch, has_locks):
    mine = {".01234567.a.b": "x", ".notes": "x", ".keras-bit": "x", "keras-bit-01": "x"}
    for name, text in (mine | {"a.b": "old"}).items():
        (tmp_path / name).write_text(text)
    with another_process(KILLED if has_locks else NO_LOCKS_THERE + KILLED, tmp_path / "a.b") as process:
        process.kill()
        process.wait()
    (left,) = {name.partition("/")[0] for name in contents(tmp_path)} - mine.keys() - {"a.b"}
    assert left.startswith(writing.STAGING_PREFIX)
    if not has_locks:
        take_locks_away(monkeypatch)
    with writing.replacing(tmp_path / "another") as beside:
        beside.write_text("new")
    assert contents(tmp_path) == mine | {"a.b": "old", "another": "new"}


# What is said


def in_python(path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` does: without a name


def over_quota(path):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def in_rust(path):
    raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def in_cpp(path):
    raise RuntimeError(f"RESOURCE_EXHAUSTED: {path}; No space left on device")


def without_a_directory(path):
    (path / "deeper").write_text("new")


def not_allowed(path):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsencode(path))


@pytest.mark.parametrize(
    ("fails", "kind", "number"),
    [
        (in_python, OSError, errno.ENOSPC),
        (over_quota, OSError, errno.EDQUOT),
        (in_rust, OSError, errno.ENOSPC),
        (in_cpp, OSError, errno.ENOSPC),
        (without_a_directory, FileNotFoundError, errno.ENOENT),
        (not_allowed, PermissionError, errno.EACCES),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_an_error_of_writing_is_a_sentence_that_names_what_the_user_named(
    tmp_path, monkeypatch, fails, kind, number, relative
):
    monkeypatch.chdir(tmp_path)
    folder = Path() if relative else tmp_path
    place = "Make room there, or choose another place." if number in writing.NO_ROOM else "Choose another place."
    with pytest.raises(kind) as caught, writing.replacing(folder / "a.b") as beside:
        fails(beside)
    assert str(caught.value) == f"{str(folder / 'a.b')!r} cannot be written: {os.strerror(number)}. {place}"
    assert caught.value.errno == number
    with (
        pytest.raises(kind) as caught,
        writing.staged(folder / "new", folder / "new" / "a") as staging,
        writing.replacing(staging / "config.json") as beside,
    ):
        fails(beside)
    assert str(caught.value) == f"{str(folder / 'new' / 'a')!r} cannot be written: {os.strerror(number)}. {place}"
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file", "image.jpg"), ValueError("wrong"), OSError("x")]
)
def test_other_errors_stay_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, writing.replacing(tmp_path / "a.b"):
        throw(error)
    assert caught.value is error


def test_files_that_certainly_do_not_fit_are_refused_before_writing(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    writing.check_room(tmp_path / "new" / "a.b", 1000)
    with pytest.raises(
        OSError, match=r"a\.b' cannot be written: it needs .* GB, but .* GB are free\. Make room"
    ) as caught:
        writing.check_room(tmp_path / "new" / "a.b", 2 * free + 10**9)
    assert caught.value.errno == errno.ENOSPC


# Several files


def test_a_staging_directory_is_removed_with_its_contents(tmp_path):
    with writing.staged(str(tmp_path / "a" / "b")) as staging:
        write(staging / "x", "directory", "new")
        assert staging.parent == tmp_path / "a" / "b"
        assert [entry.name for entry in writing.entries(staging)] == ["x"]
    assert contents(tmp_path) == {"a": None, "a/b": None}


def test_after_an_error_new_directories_are_removed_if_empty(tmp_path):
    for mine, expected in (([], {}), (["a/mine"], {"a": None, "a/mine": "x"})):
        with pytest.raises(ValueError, match="wrong"), writing.staged(tmp_path / "a" / "b"):
            throw(ValueError("wrong", [(tmp_path / name).write_text("x") for name in mine]))
        assert contents(tmp_path) == expected


STAGED = "with writing.staged(path) as staging:\n    (staging / 'half').touch()\n    wait()"


def test_staged_files_are_removed_only_of_killed_processes(tmp_path):
    with another_process(STAGED, tmp_path) as running:
        with writing.staged(tmp_path):
            assert len(list(tmp_path.iterdir())) == 2
        (others,) = tmp_path.iterdir()
        assert (others / "half").exists()
        running.kill()
        running.wait()
        assert (others / "half").exists()
    with writing.staged(tmp_path) as staging:
        assert list(tmp_path.iterdir()) == [staging]


def test_a_process_that_loses_its_new_staging_directory_makes_another(tmp_path, monkeypatch):
    real = locks.acquire
    lost = [BlockingIOError("another has it"), FileNotFoundError("another removed it")]
    monkeypatch.setattr(locks, "acquire", lambda path: real(path) if not lost else throw(lost.pop()))
    with writing.staged(tmp_path) as staging:
        assert (staging / locks.LOCK_NAME).exists()


def test_the_file_that_a_killed_process_was_replacing_is_put_back(tmp_path):
    write(tmp_path / "a", "directory", "old")
    body = """
import os
os.replace = lambda source, place: wait()
with writing.staged(path) as staging:
    (staging / "a").mkdir()
    writing.take_places(staging, path, last="a")
"""
    with another_process(body, tmp_path) as process:
        process.kill()
        process.wait()
    assert not (tmp_path / "a").exists()
    with writing.staged(tmp_path):
        pass
    assert contents(tmp_path) == written("directory", "old", "a")


def test_of_files_that_go_together_a_killed_process_leaves_the_older_ones(tmp_path):
    for name in ("config", "weights"):
        (tmp_path / name).write_text("old")
    body = """
import os
def replace(source, place, real=os.replace):
    if place == path / "weights":
        wait()
    real(source, place)
os.replace = replace
with writing.staged(path) as staging:
    for name in ("config", "weights"):
        (staging / name).write_text("new")
    writing.take_places(staging, path, last="weights")
"""
    with another_process(body, tmp_path) as process:
        process.kill()
        process.wait()
    assert (tmp_path / "config").read_text() == "new"
    with writing.replacing(tmp_path / "other") as beside:
        beside.write_text("other")
    found = {name: text for name, text in contents(tmp_path).items() if name not in locks.NAMES}
    assert found == {"config": "old", "weights": "old", "other": "other"}


RENAMES = 7  # that `take_places` does with what `stage` makes; each fails once, below


def stage(staging, directory):
    """Stages a file, a directory and a link that replace others, and two that are new; `main` must be the last."""
    (directory / "elsewhere").write_text("kept")
    (directory / "link").symlink_to("elsewhere")
    for name, kind in {"main": "file", "folder": "directory", "weights": "file"}.items():
        write(directory / name, kind, "old")
    for name, kind in {"link": "file", "main": "file", "folder": "directory", "weights": "file", "new": "file"}.items():
        write(staging / name, kind, "new")


def test_all_take_their_places_the_last_one_in_one_step_at_the_end(tmp_path):
    with writing.staged(tmp_path) as staging, failing(0) as calls:
        stage(staging, tmp_path)
        writing.take_places(staging, tmp_path, last="main")
    assert contents(tmp_path) == {
        **written("file", "new", "main"),
        **written("directory", "new", "folder"),
        **{"weights": "new", "new": "new", "link": "new", "elsewhere": "kept"},
    }
    assert [place.name for _, place in calls if place.parent == tmp_path] == [
        *("folder", "link", "new", "weights", "main")
    ]
    assert len(calls) == RENAMES
    assert calls[-1] == (staging / "main", tmp_path / "main")
    assert "main" not in [place.name for _, place in calls[:-1]]


@pytest.mark.parametrize("number", range(1, RENAMES + 1))
def test_if_any_rename_fails_the_directory_holds_what_it_held(tmp_path, number):
    with writing.staged(tmp_path) as staging:
        stage(staging, tmp_path)
        before, waiting = contents(tmp_path), contents(staging)
        with failing(number) as calls, pytest.raises(OSError, match=DISK):
            writing.take_places(staging, tmp_path, last="main")
        assert len(calls) >= number
        assert {name: text for name, text in contents(staging).items() if not name.startswith(".kept")} == waiting

        def others(found):
            return {name: text for name, text in found.items() if not name.startswith(".")}

        assert others(contents(tmp_path)) == others(before)
    assert contents(tmp_path) == others(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions of this kind")
@pytest.mark.parametrize(("mask", "file", "directory"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_the_new_file_has_the_permissions_of_the_umask(tmp_path, mask, file, directory):
    with umask(mask), writing.staged(tmp_path) as staging:
        write(staging / "folder", "directory", "new")
        for path in staging.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        (staging / "link").symlink_to(tmp_path / "elsewhere")  # nowhere
        writing.take_places(staging, tmp_path, last="folder")
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.name != "link"}
    assert found == {"folder": directory, "new.txt": file, "deeper": directory, "file": file}


def test_a_directory_takes_the_first_name_that_is_free_at_the_end(tmp_path):
    for name in ("1", "2", "new"):
        write(tmp_path / name, "directory", name)
    (tmp_path / "new").chmod(0o700)
    places = iter([tmp_path / "1", tmp_path / "2", tmp_path / "3"])
    with umask(0o022):
        assert writing.take_free_place(tmp_path / "new", lambda: next(places)) == tmp_path / "3"
    assert stat.S_IMODE((tmp_path / "3").stat().st_mode) == 0o755
    assert contents(tmp_path) == (
        written("directory", "1", "1") | written("directory", "2", "2") | written("directory", "new", "3")
    )
    with pytest.raises(FileNotFoundError) as caught:  # and no endless search
        writing.take_free_place(tmp_path / "3", lambda: tmp_path / "none" / "4")
    assert Path(caught.value.filename2) == tmp_path / "none" / "4"


# Directories that are claimed

CLAIMED = "with claims.claimed(path, argument='out'):\n    wait()"


def test_a_second_process_is_refused_by_name_until_the_first_is_killed(tmp_path):
    out = tmp_path / "out"
    with another_process(CLAIMED, out) as first:
        for _ in range(2):
            with pytest.raises(BlockingIOError) as caught, claims.claimed(out, argument="out"):
                pass
            assert all(word in str(caught.value) for word in ("`out`", f"{first.pid} on ", repr(str(out))))
        with claims.claimed(out, argument="out", exclusive=False):  # several that work together
            pass
        first.kill()
        first.wait()
        with claims.claimed(out, argument="out"):
            assert f'"process": {os.getpid()},' in (out / locks.OWNER_NAME).read_text()
    assert contents(tmp_path) == {"out": None}  # it was not this process that made it


def test_new_directories_are_removed_at_the_end_if_empty(tmp_path):
    with claims.claimed(tmp_path / "a" / "b", argument="out"):
        assert (tmp_path / "a" / "b").is_dir()
    assert contents(tmp_path) == {}
    with pytest.raises(ValueError, match="wrong"), claims.claimed(tmp_path / "a" / "b", argument="out"):
        throw(ValueError("wrong", (tmp_path / "a" / "mine").write_text("x")))
    assert contents(tmp_path) == {"a": None, "a/mine": "x"}


@pytest.mark.parametrize("number", [*sorted(locks.NO_LOCKS), None])
def test_without_locks_a_second_process_is_refused_while_the_first_runs(tmp_path, monkeypatch, number):
    take_locks_away(monkeypatch, number)
    out = tmp_path / "out"
    owner = out / locks.OWNER_NAME
    with another_process(NO_LOCKS_THERE + CLAIMED, out) as first:
        with pytest.raises(BlockingIOError) as caught, claims.claimed(out, argument="out"):
            pass
        assert all(word in str(caught.value) for word in ("`out`", f"{first.pid} on ", f"delete {str(owner)!r}"))
        first.kill()  # it is a zombie: its exit status has not been read yet
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        with claims.claimed(out, argument="out"):
            assert f'"process": {os.getpid()}' in owner.read_text()
        first.wait()
    assert contents(tmp_path) == {"out": None}


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    denied = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(locks.filelock.FileLock, "acquire", lambda self, timeout: throw(denied))
    with pytest.raises(OSError, match=r"`out`.*Permission denied"), claims.claimed(tmp_path / "new", argument="out"):
        pass
    assert contents(tmp_path) == {}


def test_an_unwritable_place_is_named_with_argument_and_directory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / "new" / ("x" * 300)):
        with pytest.raises(OSError, match="`where`") as caught, claims.claimed(out, argument="where"):
            pass
        assert repr(str(out)) in str(caught.value)
    monkeypatch.setattr(writing, "check_writable", lambda path: throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space left"), claims.claimed(tmp_path / "a" / "b", argument="where"):
        pass
    assert contents(tmp_path) == {"file": "mine"}


def test_a_name_is_checked_by_writing_a_file_next_to_it(tmp_path):
    (tmp_path / "a").write_text("mine")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "a", tmp_path / "new" / "folder" / "b", tmp_path / ("x" * 255)):
        writing.check_writable(str(path))
    for path in (tmp_path / "a" / "b", tmp_path / "folder", tmp_path / ("x" * 256)):
        with pytest.raises(OSError, match=rf"^'.*{path.name}' cannot be written: .*\. Choose another place\.$"):
            writing.check_writable(path)
    assert contents(tmp_path) == {"a": "mine", "folder": None}


# Words


@pytest.mark.parametrize(
    ("names", "options", "expected"),
    [
        ([], {}, ""),
        (["a"], {}, "a"),
        (["a", 2, "c", "d"], {}, "a, 2, c, d"),
        ("abcde", {}, "a, b, c, d and 1 more"),
        (range(1234), {"most": 2, "separator": "; "}, "0; 1 and 1,232 more"),
    ],
)
def test_the_first_few_of_many_names(names, options, expected):
    assert wording.some(iter(names), **options) == expected


@pytest.mark.parametrize(
    ("lines", "expected"), [([], []), (["a", "b"], ["a", "b"]), (["a"] * 1234, ["a", "a", "and 1,232 more"])]
)
def test_the_first_few_of_many_lines(lines, expected):
    assert wording.first_of(lines, 2) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(536_212.9375, "536,213"), (-1000.4, "-1,000"), (12.3456, "12.35"), (0.00021734, "0.0002173"), (0.0, "0")],
)
def test_a_number_of_any_range_has_four_digits_or_more(value, expected):
    assert wording.number(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1.2, "1 second"), (119, "119 seconds"), (121, "2 minutes"), (7199, "120 minutes"), (32_400, "9 hours")],
)
def test_a_duration_has_the_largest_unit_of_which_there_are_two(seconds, expected):
    assert wording.duration(seconds) == expected
