"""Pooled features of many images in shards of Parquet: what is in a shard, which ones are done, how one is written.

Held in memory are the names and features of one shard, the names in one folder, where every shard begins and what its
file is called, and why images were left out. The list of all images is a file beside the shards.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.embedding.lists import ImageList, check_data, list_images, text_of
from keras_bit.files import check_writable, claimed, remove_unfinished, replacing

ENGINES = ("local", "ray")
METADATA = b"keras_bit"  # the key of the JSON in a Parquet file that says what made it
# In the directory of shards while it is worked on; readers of Parquet pass over names with a dot.
LIST = ".pictures-"  # the beginning of a name of the process' own
# What must be the same for a run to go on. Neither who computes nor how many images at a time is among it.
SAME = ("keras_bit", "weights_sha256", "processor", "pictures", "pictures_sha256", "labels", "shard_size")


@dataclasses.dataclass(frozen=True)
class Job:
    """What the shards of a run have in common: plain values, which other processes can be sent."""

    pictures: ImageList
    directory: Path
    weights: str
    hub: dict[str, Any]
    batch_size: int
    on_error: str
    made_by: dict[str, Any]

    def file(self, shard: int) -> Path:
        return self.directory / f"part-{shard:05d}-of-{self.pictures.shards:05d}.parquet"


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
    **hub: Any,
) -> Report:
    """Writes the pooled features of images, `from_pretrained(weights, include_top=False, pooling="avg")`, as Parquet.

    A row is an image, in the order of the list: `path` (string; as listed, or relative to the directory; bytes that
    are no UTF-8 are written `\\xff`, and a backslash `\\\\`, so that no two names get the same), `label` (string: the
    first folder below the directory, or null) and `features` (fixed-size list of float32). The metadata `keras_bit` of
    every file is JSON that says what made it.

    A shard is there whole or not at all, so a run that was ended by anything goes on with the shards that are missing;
    batches begin anew in every shard, so that they do not depend on where it was ended. What is there counts as done
    once it has been read back and fits its checksums: 0.25 s for a shard of 92 MB (12,500 rows of BiT-50), on a core.
    One process at a time writes to `out`.

    Args:
        data: a directory, whose images at any depth are taken in the order of their names; or a text file with a path
            in each line; or `"-"` for such lines on standard input. A directory's hidden files are left out. Links to
            folders are followed directly below the directory only, and not where they lead back to it.
        out: a directory, which gets `part-00000-of-00012.parquet` and so on; or a name that ends in `.parquet` for one
            file, whose shards are written to a directory `<out>.shards` and joined at the end.
        weights: Hub id, directory or file of a checkpoint with its `preprocessor_config.json`.
        batch_size: images that the network gets at a time.
        shard_size: images in a shard.
        on_error: `"raise"` ends at an image that cannot be read; `"skip"` leaves it out, and ends where none is left.
        engine: `"local"` computes in this process, `"ray"` by workers of Ray Data, which all see `data` and `out`.
        workers: processes of Ray, each with the model; 2 by default.
        **hub: `revision`, `cache_dir`, `token` and `local_files_only` of `from_pretrained`.

    Raises:
        ValueError: an argument is not what is described above, there are no images, one cannot be read, or `out` has
            files of another run, which says what is different, or damaged ones.
        FileNotFoundError: `data` does not exist.
        BlockingIOError: another process is writing to `out`.
        OSError: nothing can be written there, or not as much as will be.
        ImportError: pyarrow, or for `engine="ray"` Ray, is not installed.
    """
    _check(on_error, engine, workers, batch_size, shard_size)
    data, out = os.path.expanduser(data), Path(os.path.expanduser(out))
    one_file = out.suffix == ".parquet"
    directory = out.with_name(out.name + ".shards") if one_file else out
    check_data(data)
    with _claimed(out, directory, one_file):
        listed = directory / f"{LIST}{secrets.token_hex(4)}"
        pictures = list_images(data, listed, shard_size)
        if engine == "ray":
            # Otherwise the first process to use a GPU takes all of its memory, and that is this one.
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        writer = Writer(str(weights), hub, batch_size)
        made_by = {
            **writer.made_by,
            "weights": str(weights),
            "pictures": pictures.count,
            "pictures_sha256": pictures.sha256,
            "labels": pictures.root is not None,
            "shard_size": shard_size,
        }
        job = Job(pictures, directory, str(weights), hub, batch_size, on_error, made_by)
        files = [job.file(shard) for shard in range(pictures.shards)]
        found = pictures.count
        if one_file and out.exists():
            _checked(job, out)
            read_back(out)
        else:
            found = _write_missing(job, writer, engine, workers or 2)
            _refuse_nothing(job, files)
            if one_file:
                _join(files, out, made_by)
        report = _report(job, [out] if one_file else files, found)
        if one_file:
            for file in files:
                file.unlink(missing_ok=True)
        return report


@contextlib.contextmanager
def _claimed(out: Path, directory: Path, one_file: bool) -> Iterator[None]:
    """Makes the directory of the shards and keeps others out of it. Empty it is removed again.

    Raises:
        OSError: nothing can be written there, or another process does.
        ValueError: there are Parquet files in it that are no shards.
    """
    if one_file and out.is_dir():
        raise IsADirectoryError(f"`out` must be a file where it ends in .parquet, got the directory {str(out)!r}.")
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"`out` must be a directory or end in .parquet, got the file {str(directory)!r}.")
    with claimed(directory, argument="out"), contextlib.ExitStack() as held:
        if one_file:
            check_writable(out)
        _remove_lists(directory)  # of processes that were killed: the lock is ours
        held.callback(_remove_lists, directory)
        if not one_file and (foreign := _foreign(directory)):
            raise ValueError(
                f"`out`: {str(out)!r} has Parquet files of something else ({', '.join(foreign[:5])}"
                f"{', ...' * (len(foreign) > 5)}), whose rows a reader of the directory would take for this run's. "
                "Name another `out`."
            )
        yield


def _foreign(directory: Path) -> list[str]:
    """Files that readers of Parquet would find at any depth, and that have not the name of a shard; those are read."""
    names = (file.relative_to(directory) for file in directory.rglob("*.parquet"))
    seen = (name for name in names if not any(part.startswith((".", "_")) for part in name.parts))
    return sorted(str(name) for name in seen if len(name.parts) > 1 or not name.match("part-*"))


def _remove_lists(directory: Path) -> None:
    for file in directory.glob(f"{LIST}*"):
        file.unlink(missing_ok=True)


def _check(on_error: str, engine: str, workers: Any, batch_size: Any, shard_size: Any) -> None:
    for name, value, known in (("on_error", on_error, ("raise", "skip")), ("engine", engine, ENGINES)):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}.")
    counts = {"batch_size": batch_size, "shard_size": shard_size} | ({} if workers is None else {"workers": workers})
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
    if workers is not None and engine != "ray":
        raise ValueError(f"`workers` is for engine='ray', got {workers} for {engine!r}, which is one process.")
    needed = {"pyarrow": "parquet"} | ({"ray": "ray"} if engine == "ray" else {})
    for package, extra in needed.items():
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"Embeddings need {package}, which is not installed: pip install 'keras_bit[{extra}]'.")


class Writer:
    """The network with its preprocessing, which writes shards.

    Attributes:
        made_by: what of the metadata is known of them.
        width: the number of features.
    """

    def __init__(self, weights: str, hub: dict[str, Any], batch_size: int) -> None:
        from keras_bit.applications import from_pretrained
        from keras_bit.data import streams
        from keras_bit.data.dataset import indexed_dataset
        from keras_bit.images.processor import BitImageProcessor

        self._model = from_pretrained(weights, include_top=False, pooling="avg", **hub)
        processor = BitImageProcessor.from_pretrained(weights, **hub)
        self._batch_size = batch_size
        # One data set for all shards, an epoch each: to build one takes a second.
        self._paths: list[bytes] = []
        source = streams.named_files(lambda: self._paths)
        self._data = indexed_dataset(source, processor=processor, batch_size=batch_size)
        self.width = int(self._model.output_shape[-1])
        self.made_by = {
            "keras_bit": importlib.metadata.version("keras_bit"),
            "weights_sha256": _digest(self._model),
            # As it comes back from JSON, to be compared.
            "processor": json.loads(json.dumps(processor.to_dict())),
        }

    def write(self, job: Job, shard: int, advance: Callable[[int], Any] = lambda count: None) -> None:
        """Writes a shard; `advance` is told how many images are done.

        Raises:
            ValueError: with `on_error="raise"`, an image cannot be read.
            ArithmeticError: a feature is not finite.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = job.pictures.names(shard)
        features = np.zeros((len(names), self.width), np.float32)
        rows: list[int] = []
        self._paths = [os.fsencode(job.pictures.path(name)) for name in names]
        self._data.skipped.clear()
        for images, _, index in _batches(self._data, job.on_error):
            features[index] = self._features(images)
            rows += index.tolist()
            advance(len(index))
        advance(len(names) - len(rows))
        for number in rows:
            if not np.isfinite(features[number]).all():
                raise ArithmeticError(f"{job.pictures.path(names[number])} has features that are not finite numbers.")

        about = {**job.made_by, "shard": shard, "left_out": len(names) - len(rows), "skipped": self._data.skipped}
        numbers = pa.array(features[rows].reshape(-1))
        table = pa.table(
            {
                "path": pa.array([text_of(names[number]) for number in rows], pa.string()),
                "label": pa.array([job.pictures.label(names[number]) for number in rows], pa.string()),
                "features": pa.FixedSizeListArray.from_arrays(numbers, self.width),
            }
        ).replace_schema_metadata({METADATA: json.dumps(about)})
        file = job.file(shard)
        remove_unfinished(file)
        with replacing(file) as beside:
            pq.write_table(table, beside, **_storage())

    def _features(self, images: np.ndarray) -> np.ndarray:
        # Every batch has the same size: JAX compiles for each, and sums may be taken in another order.
        rest = np.zeros((self._batch_size - len(images), *images.shape[1:]), np.float32)
        return self._model.predict_on_batch(np.concatenate([images, rest]))[: len(images)]


def _batches(data: Any, on_error: str) -> Iterator[tuple[np.ndarray, ...]]:
    from keras_bit.data.named_batches import batches_of

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"[\d,]+ of [\d,]+ images were left out")  # `Report.skipped` has them
        try:
            yield from batches_of(data, on_error)
        except ValueError:
            if on_error == "raise":
                raise
            # No image of this shard can be read; others may have some.


def _digest(model: Any) -> str:
    import keras

    found = hashlib.sha256()
    for layer in model.layers:
        for variable in layer.weights:
            found.update(f"{layer.name}/{variable.name}".encode())
            found.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value), np.float32))
    return found.hexdigest()


def _storage() -> dict[str, Any]:
    # Features do not repeat: a dictionary of them would be made and thrown away.
    return {"compression": "zstd", "use_dictionary": ["label"], "write_page_checksum": True}


def _write_missing(job: Job, writer: Writer, engine: str, workers: int) -> int:
    """Writes the shards that are not there; returns how many images the others have."""
    from tqdm import tqdm

    done = _done(job)
    missing = [shard for shard in range(job.pictures.shards) if shard not in done]
    found = sum(map(job.pictures.length, done))
    _check_space(job, writer.width, job.pictures.count - found)
    with tqdm(total=job.pictures.count, initial=found, desc="embed", unit="picture", delay=2, leave=False) as progress:
        if engine == "local":
            for shard in missing:
                writer.write(job, shard, progress.update)
        elif missing:
            from keras_bit.embedding import ray

            with contextlib.closing(ray.each(functools.partial(start_worker, job), missing, workers)) as results:
                for shard, error in results:
                    if error:
                        raise ValueError(error)
                    progress.update(job.pictures.length(shard))
    return found


def _check_space(job: Job, width: int, missing: int) -> None:
    # Features are hard to compress, but where images repeat they are not: what is sure not to fit is told.
    needed, free = missing * width * 4 // 2, shutil.disk_usage(job.directory).free
    if needed > free:
        raise OSError(
            f"`out`: {str(job.directory)!r} has {free / 1e9:.3g} GB of free space, and {missing:,} rows of {width:,} "
            f"numbers need up to {2 * needed / 1e9:.3g} GB. Make room, or name another `out`."
        )


def _refuse_nothing(job: Job, files: Sequence[Path]) -> None:
    """Shards without any row are removed, so that the same command begins anew when the images are mended."""
    abouts = [_about(file) for file in files]
    if any(rows for _, rows in abouts):
        return
    for file in files:
        file.unlink()
    raise ValueError(f"None of {job.pictures.count:,} images can be read. The first: {abouts[0][0]['skipped'][0]}")


def start_worker(job: Job) -> Callable[[int], str]:
    """Loads the model, and returns what writes a shard and says what went wrong, `""` for nothing."""
    writer = Writer(job.weights, job.hub, job.batch_size)
    differences = _differences({**job.made_by, **writer.made_by}, job.made_by)

    def work(shard: int) -> str:
        if differences:
            return f"A worker has another model than where the run was started: {differences}"
        try:
            writer.write(job, shard)
        except (OSError, ValueError, ArithmeticError) as error:
            return str(error)
        return ""

    return work


def _done(job: Job) -> list[int]:
    """The shards that are there.

    Raises:
        ValueError: a file is no shard of this job.
    """
    done = []
    for file in sorted(job.directory.glob("part-*.parquet")):
        about, rows = _checked(job, file)
        read_back(file)
        shard = about.get("shard", -1)
        if file != job.file(shard) or rows + about["left_out"] != job.pictures.length(shard):
            raise ValueError(
                f"`out`: {str(file)!r} is none of the {job.pictures.shards:,} shards: it is shard {shard} with "
                f"{rows:,} rows and {about['left_out']:,} images left out. Remove it."
            )
        done.append(shard)
    return done


def _checked(job: Job, file: Path) -> tuple[dict[str, Any], int]:
    """`_about` a file, which this job could have written."""
    about, rows = _about(file)
    if differences := _differences(about, job.made_by):
        raise ValueError(
            f"`out`: {str(file)!r} is of another run: {differences} Name another `out`, or remove what is there."
        )
    if job.on_error == "raise" and about["left_out"]:
        raise ValueError(
            f"`out`: {str(file)!r} was written with on_error='skip' and is without an image. {about['skipped'][0]} "
            "Mend it and remove the file, or pass on_error='skip'."
        )
    return about, rows


def read_back(file: Path) -> None:
    """Reads all there is in a file and compares it with its checksums.

    Raises:
        ValueError: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as stored:
            for group in range(stored.num_row_groups):
                stored.read_row_group(group)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(
            f"`out`: {str(file)!r} is damaged ({error}). Remove it, and what was in it is written again."
        ) from None


def _about(file: Path) -> tuple[dict[str, Any], int]:
    """The metadata of a file, and the number of its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = pq.read_metadata(file)
        written = (stored.metadata or {}).get(METADATA)
        about = None if written is None else json.loads(written)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"`out`: {str(file)!r} is no Parquet file, or a damaged one ({error}). Remove it.") from None
    if about is None:
        raise ValueError(f"`out`: {str(file)!r} was not written by keras-bit embed. Name another `out`.")
    return about, stored.num_rows


def _differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    different = [key for key in SAME if there.get(key) != here[key]]
    return "".join(f"`{key}` is {there.get(key)!r} there and {here[key]!r} now. " for key in different).rstrip()


def _join(files: Sequence[Path], out: Path, made_by: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    abouts = [_about(file)[0] for file in files]
    about = {
        **made_by,
        "left_out": sum(about["left_out"] for about in abouts),
        "skipped": [line for about in abouts for line in about["skipped"]],
    }
    schema = pq.read_schema(files[0]).with_metadata({METADATA: json.dumps(about)})
    remove_unfinished(out)
    with replacing(out) as beside, pq.ParquetWriter(beside, schema, **_storage()) as joined:
        for file in files:
            joined.write_table(pq.read_table(file).replace_schema_metadata(schema.metadata))


def _report(job: Job, files: Sequence[Path], found: int) -> Report:
    import pyarrow.parquet as pq

    rows, skipped = 0, []
    for file in files:
        about, count = _checked(job, file)
        rows += count
        skipped += about["skipped"]
    width = pq.read_schema(files[0]).field("features").type.list_size
    return Report(list(files), rows, width, skipped, found)
