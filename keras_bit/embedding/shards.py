"""Writes pooled features of many images in shards of Parquet.

The list of all images is a file next to the shards, so memory holds only the names and features of one shard, the names
in one folder, the beginning and file name of every shard, and the reasons for left-out images.
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

# For each engine: the extra that it needs, and the packages of that extra.
ENGINES = {"local": ("parquet", ("pyarrow",)), "ray": ("ray", ("ray", "pyarrow"))}
PURPOSE = "Writing embeddings"
# In the directory of shards during a run; readers of Parquet skip names with a leading dot.
LIST = ".pictures-"  # prefix of a name for this process


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of `embed`.

    Args:
        files: the Parquet files, in the order of the images.
        rows: the number of rows in all files.
        width: numbers in a row's `features`.
        skipped: a line for each left-out image, with the reason.
        found: number of images from earlier runs.
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
    """Writes pooled features of images as Parquet.

    The features are those of `from_pretrained(weights, include_top=False, pooling="avg")`. A row is an image, in the
    order of the list: `path` (string; as listed, or relative to the directory; bytes that are not UTF-8 are written
    `\\xff`, and a backslash `\\\\`, so that names stay unique), `label` (string: the first folder below the directory,
    or null) and `features` (fixed-size list of float32). The metadata `keras_bit` of every file is JSON that describes
    its origin.

    A shard is complete or absent, so an interrupted run continues with the missing shards. Batches start anew in every
    shard, so they do not depend on the interruption. An existing shard is read back and compared with its checksums.
    One process at a time writes to `out`.

    Args:
        data: a directory, whose images at any depth are taken in the order of their names; or a text file with a path
            in each line; or `"-"` for such lines on standard input. A warning counts other files in a directory. Links
            to folders are followed, unless those folders are read anyway.
        out: a directory, which gets `part-00000-of-00012.parquet` and so on; or a name that ends in `.parquet` for one
            file, whose shards are written to a directory `<out>.shards` and joined at the end.
        weights: a checkpoint with its `preprocessor_config.json`: a Hub id, a directory or a file.
        batch_size: images per batch, at least 1. Default 32.
        shard_size: images in a shard, at least 1. Default 10,000.
        on_error: what happens to an unreadable image. `"raise"`, the default, ends there; `"skip"` leaves it out, and
            raises if no image is left.
        engine: `"local"`, the default, computes in this process. `"ray"` computes in workers of Ray Data, which must
            all see `data` and `out`.
        workers: processes of Ray, each with the model. Only for `"ray"`. `None`, the default, is 2.
        revision: the branch, tag or commit of a Hub id. Default `None`, its main branch.
        cache_dir: where downloads are kept. `None`, the default, is huggingface_hub's own cache.
        token: a token for private repositories. `None`, the default, takes the one that `hf auth login` stored.
        local_files_only: whether to use only what was downloaded before. Default `False`.

    Raises:
        ValueError: an argument is not as described above, `data` has no images, one cannot be read, or `out` has
            damaged files or files of another run.
        FileNotFoundError: `data` does not exist.
        BlockingIOError: another process is writing to `out`.
        OSError: `out` cannot be written, or the disk has too little free space.
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
            # Otherwise this process would take all memory of a GPU, which the workers need.
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
    """Returns the description of the list of images for the metadata."""
    return {
        "images": images.count,
        "images_sha256": images.sha256,
        "labels": images.root is not None,
        "shard_size": images.shard_size,
    }


@contextlib.contextmanager
def _claimed(out: Path, directory: Path, one_file: bool) -> Iterator[None]:
    """Creates the directory of the shards and locks it. It is removed again if it is empty.

    Raises:
        OSError: nothing can be written there, or another process writes there.
        ValueError: it contains Parquet files that are not shards.
    """
    if one_file and out.is_dir():
        raise IsADirectoryError(f"`out` must be a file if it ends in .parquet, got the directory {str(out)!r}.")
    if os.path.exists(directory) and not os.path.isdir(directory):  # both return False for a name that is too long
        raise NotADirectoryError(f"`out` must be a directory or end in .parquet, got the file {str(directory)!r}.")
    with claimed(directory, argument="out"), contextlib.ExitStack() as held:
        if one_file:
            _check_writable(out)
        _remove_lists(directory)  # these belong to killed processes, because this process has the lock
        held.callback(_remove_lists, directory)
        if not one_file and (foreign := _foreign(directory)):
            raise ValueError(
                f"`out`: {str(out)!r} has other Parquet files ({some(foreign)}), which a reader of the directory would "
                "mix with this run's. Choose another `out`."
            )
        yield


def _check_writable(out: Path) -> None:
    """Tests the joined file's name too, which may be too long even if the directory's name is not."""
    try:
        check_writable(out)
    except OSError as error:
        raise OSError(f"`out`: nothing can be written to {str(out)!r}: {error}. Choose another name.") from error


def _foreign(directory: Path) -> list[str]:
    """Returns files that readers of Parquet would find at any depth, but that do not have the name of a shard."""
    names = (file.relative_to(directory) for file in directory.rglob("*.parquet"))
    seen = (name for name in names if not any(part.startswith((".", "_")) for part in name.parts))
    return sorted(str(name) for name in seen if len(name.parts) > 1 or not name.match("part-*"))


def _remove_lists(directory: Path) -> None:
    for file in directory.glob(f"{LIST}*"):
        with contextlib.suppress(OSError):  # an error here would hide the current one, which says more
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
        raise ValueError(
            f"`workers` is for engine='ray', got {workers} for {engine!r}, which uses one process. Leave it out."
        )
    extra, packages = ENGINES[engine]
    for package in packages:
        require(package, extra, PURPOSE)


def _write_missing(job: Job, writer: Writer, engine: str, workers: int) -> int:
    """Writes the missing shards; returns the number of images in the others."""
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
    # Features compress badly unless images repeat, so only a size that certainly does not fit is refused.
    needed, free = missing * width * 4 // 2, shutil.disk_usage(job.directory).free
    if needed > free:
        raise OSError(
            f"`out`: {str(job.directory)!r} has {free / 1e9:.3g} GB of free space, but {missing:,} rows of {width:,} "
            f"numbers need up to {2 * needed / 1e9:.3g} GB. Make room, or choose another `out`."
        )


def _refuse_nothing(job: Job) -> None:
    """Removes shards if no image could be read, so that the same command starts anew after a repair."""
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
