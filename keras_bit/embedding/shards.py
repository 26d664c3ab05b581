"""Pooled features of many images in shards of Parquet: who may write where, which shards are missing, what was done.

Held in memory are the names and features of one shard, the names in one folder, where every shard begins and what its
file is called, and why images were left out. The list of all images is a file beside the shards.
"""

import contextlib
import dataclasses
import functools
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_bit.embedding import shard_files
from keras_bit.embedding.lists import ImageList, check_data, list_images
from keras_bit.embedding.shard_files import Job
from keras_bit.embedding.writer import Writer, start_worker
from keras_bit.files.claims import claimed
from keras_bit.files.writing import check_writable, naming
from keras_bit.hub.finding import HubOptions, shown
from keras_bit.packages import needing, require
from keras_bit.wording import some

# Who computes, to the extra that it takes and the packages of that.
ENGINES = {"local": ("parquet", ("pyarrow",)), "ray": ("ray", ("ray", "pyarrow"))}
PURPOSE = "Writing embeddings"
# In the directory of shards while it is worked on; readers of Parquet pass over names with a dot.
LIST = ".pictures-"  # the beginning of a name of the process' own


@dataclasses.dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        files: the Parquet files, in the order of the images.
        rows: in all files.
        width: numbers in a row's `features`.
        skipped: why images were left out, a line each.
        found: how many of the images were done by an earlier run.
    """

    files: list[Path]
    rows: int
    width: int
    skipped: list[str]
    found: int


def embed(
    data: str | Path,
    out: str | Path,
    *,
    weights: str,
    batch_size: int = 32,
    shard_size: int = 10_000,
    on_error: str = "raise",
    engine: str = "local",
    workers: int | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Report:
    """Writes the pooled features of images, `from_pretrained(weights, include_top=False, pooling="avg")`, as Parquet.

    A row is an image, in the order of the list: `path` (string; as listed, or relative to the directory; bytes that
    are not UTF-8 are written `\\xff`, and a backslash `\\\\`, so that no two names get the same), `label` (string: the
    first folder below the directory, or null) and `features` (fixed-size list of float32). The metadata `keras_bit` of
    every file is JSON that says what made it.

    A shard is there whole or not at all, so a run that was ended by anything goes on with the shards that are missing;
    batches begin anew in every shard, so that they do not depend on where it was ended. What is there counts as done
    once it has been read back and fits its checksums: 0.25 s for a shard of 92 MB (12,500 rows of BiT-50), on a core.
    One process at a time writes to `out`.

    Args:
        data: a directory, whose images at any depth are taken in the order of their names; or a text file with a path
            in each line; or `"-"` for such lines on standard input. What a directory holds beside images is left out,
            and a warning counts it. Links to folders are followed, unless they lead where the walk comes anyway.
        out: a directory, which gets `part-00000-of-00012.parquet` and so on; or a name that ends in `.parquet` for one
            file, whose shards are written to a directory `<out>.shards` and joined at the end.
        weights: Hub id, directory or file of a checkpoint with its `preprocessor_config.json`.
        batch_size: images that the network gets at a time.
        shard_size: images in a shard.
        on_error: `"raise"` ends at an image that cannot be read; `"skip"` leaves it out, and ends where none is left.
        engine: `"local"` computes in this process, `"ray"` by workers of Ray Data, which all see `data` and `out`.
        workers: processes of Ray, each with the model; 2 by default.
        revision, cache_dir, token, local_files_only: of a Hub id in `weights`, as in `from_pretrained`.

    Raises:
        ValueError: an argument is not what is described above, there are no images, one cannot be read, or `out` has
            files of another run, which says what is different, or damaged ones.
        FileNotFoundError: `data` does not exist.
        BlockingIOError: another process is writing to `out`.
        OSError: nothing can be written there, or not as much as will be.
        ImportError: pyarrow, or for `engine="ray"` Ray, is not installed.
    """
    _check(on_error, engine, workers, batch_size, shard_size)
    hub = HubOptions(revision, cache_dir, token, local_files_only)
    data, out = os.path.expanduser(data), Path(os.path.expanduser(out))
    one_file = out.suffix == ".parquet"
    directory = out.with_name(out.name + ".shards") if one_file else out
    check_data(data)
    with needing(ENGINES[engine][0], PURPOSE), _claimed(out, directory, one_file):
        with naming(directory):
            images = list_images(data, directory / f"{LIST}{secrets.token_hex(4)}", shard_size)
        if engine == "ray":
            # Otherwise the first process to use a GPU takes all of its memory, and that is this one.
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        writer = Writer(str(weights), hub, batch_size)
        made_by = {**writer.made_by, "weights": shown(weights), **_described(images)}
        job = Job(images, directory, str(weights), hub, batch_size, on_error, made_by)
        found = images.count
        if one_file and out.exists():
            shard_files.checked(job, out)
            shard_files.read_back(out)
        else:
            found = _write_missing(job, writer, engine, workers or 2)
            _refuse_nothing(job)
            if one_file:
                shard_files.join(job.files, out, made_by)
        report = _report(job, [out] if one_file else job.files, found)
        if one_file:
            for file in job.files:
                file.unlink(missing_ok=True)
        return report


def _described(images: ImageList) -> dict[str, int | str | bool]:
    """What the metadata of a file says about the list of images."""
    return {
        "pictures": images.count,
        "pictures_sha256": images.sha256,
        "labels": images.root is not None,
        "shard_size": images.shard_size,
    }


@contextlib.contextmanager
def _claimed(out: Path, directory: Path, one_file: bool) -> Iterator[None]:
    """Makes the directory of the shards and keeps others out of it. Empty it is removed again.

    Raises:
        OSError: nothing can be written there, or another process does.
        ValueError: there are Parquet files in it that are not shards.
    """
    if one_file and out.is_dir():
        raise IsADirectoryError(f"`out` must be a file where it ends in .parquet, got the directory {str(out)!r}.")
    if os.path.exists(directory) and not os.path.isdir(directory):  # which say no of a name that is too long
        raise NotADirectoryError(f"`out` must be a directory or end in .parquet, got the file {str(directory)!r}.")
    with claimed(directory, argument="out"), contextlib.ExitStack() as held:
        if one_file:
            _check_writable(out)
        _remove_lists(directory)  # of processes that were killed: the lock is ours
        held.callback(_remove_lists, directory)
        if not one_file and (foreign := _foreign(directory)):
            raise ValueError(
                f"`out`: {str(out)!r} has Parquet files of something else ({some(foreign)}), "
                "whose rows a reader of the directory would take for this run's. "
                "Name another `out`."
            )
        yield


def _check_writable(out: Path) -> None:
    """The joined file's name may be too long where that of the directory is not."""
    try:
        check_writable(out)
    except OSError as error:
        raise OSError(f"`out`: nothing can be written to {str(out)!r}: {error}. Choose another name.") from error


def _foreign(directory: Path) -> list[str]:
    """Files that readers of Parquet would find at any depth, and that have not the name of a shard; those are read."""
    names = (file.relative_to(directory) for file in directory.rglob("*.parquet"))
    seen = (name for name in names if not any(part.startswith((".", "_")) for part in name.parts))
    return sorted(str(name) for name in seen if len(name.parts) > 1 or not name.match("part-*"))


def _remove_lists(directory: Path) -> None:
    for file in directory.glob(f"{LIST}*"):
        with contextlib.suppress(OSError):  # the error on its way says more
            file.unlink()


def _check(on_error: str, engine: str, workers: int | None, batch_size: int, shard_size: int) -> None:
    for name, value, known in (("on_error", on_error, ("raise", "skip")), ("engine", engine, tuple(ENGINES))):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}.")
    counts = {"batch_size": batch_size, "shard_size": shard_size} | ({} if workers is None else {"workers": workers})
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {count!r}.")
    if workers is not None and engine != "ray":
        raise ValueError(f"`workers` is for engine='ray', got {workers} for {engine!r}, which is one process.")
    extra, packages = ENGINES[engine]
    for package in packages:
        require(package, extra, PURPOSE)


def _write_missing(job: Job, writer: Writer, engine: str, workers: int) -> int:
    """Writes the shards that are not there; returns how many images the others have."""
    from tqdm import tqdm

    done = shard_files.done(job)
    missing = [shard for shard in range(job.images.shards) if shard not in done]
    found = sum(map(job.images.length, done))
    _check_space(job, writer.width, job.images.count - found)
    with tqdm(total=job.images.count, initial=found, desc="embed", unit=" images", delay=2, leave=False) as progress:
        if engine == "local":
            for shard in missing:
                writer.write(job, shard, progress.update)
        elif missing:
            from keras_bit.embedding import ray

            with contextlib.closing(ray.each(functools.partial(start_worker, job), missing, workers)) as results:
                for shard, error in results:
                    if error:
                        raise ValueError(error)
                    progress.update(job.images.length(shard))
    return found


def _check_space(job: Job, width: int, missing: int) -> None:
    # Features are hard to compress, unless images repeat: only what is sure not to fit is refused.
    needed, free = missing * width * 4 // 2, shutil.disk_usage(job.directory).free
    if needed > free:
        raise OSError(
            f"`out`: {str(job.directory)!r} has {free / 1e9:.3g} GB of free space, and {missing:,} rows of {width:,} "
            f"numbers need up to {2 * needed / 1e9:.3g} GB. Make room, or name another `out`."
        )


def _refuse_nothing(job: Job) -> None:
    """Shards without any row are removed, so that the same command begins anew when the images are mended."""
    abouts = [shard_files.about_file(file) for file in job.files]
    if any(rows for _, rows in abouts):
        return
    for file in job.files:
        file.unlink()
    raise ValueError(f"None of {job.images.count:,} images can be read. The first: {abouts[0][0]['skipped'][0]}")


def _report(job: Job, files: Sequence[Path], found: int) -> Report:
    import pyarrow.parquet as pq

    rows = 0
    skipped: list[str] = []
    for file in files:
        about, count = shard_files.checked(job, file)
        rows += count
        skipped += about["skipped"]
    width = pq.read_schema(files[0]).field("features").type.list_size
    return Report(list(files), rows, width, skipped, found)
