"""The Parquet files of a run: names and contents of shards, and checks of existing ones."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.embedding.lists import ImageList, text_of
from keras_bit.files import json_text, old_names
from keras_bit.files.writing import replacing
from keras_bit.hub.finding import HubOptions

METADATA = b"keras_bit"  # the key of the JSON in a Parquet file that describes its origin
# What must be equal for a run to continue. The engine and the batch size may differ.
SAME = ("keras_bit", "weights_sha256", "processor", "images", "images_sha256", "labels", "shard_size")
# Features do not repeat, so a dictionary of them would be built in vain.
STORAGE: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["label"], "write_page_checksum": True}


@dataclasses.dataclass(frozen=True)
class Job:
    """The facts that all shards of a run share, as plain values, which can be sent to other processes.

    Args:
        made_by: the metadata of every file.
    """

    images: ImageList
    directory: Path
    weights: str
    hub: HubOptions
    batch_size: int
    on_error: str
    made_by: dict[str, Any]

    def file(self, shard: int) -> Path:
        return self.directory / f"part-{shard:05d}-of-{self.images.shards:05d}.parquet"

    @property
    def files(self) -> list[Path]:
        return [self.file(shard) for shard in range(self.images.shards)]


def write(job: Job, shard: int, rows: Sequence[int], features: np.ndarray, skipped: Sequence[str]) -> None:
    """Writes a shard.

    Args:
        rows: the places of the readable images in the shard.
        features: float32 `(len(rows), width)`.
        skipped: a line for each other image, with the reason.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = job.images.names(shard)
    about = {**job.made_by, "shard": shard, "left_out": len(names) - len(rows), "skipped": list(skipped)}
    numbers = pa.array(features.reshape(-1))
    table = pa.table(
        {
            "path": pa.array([text_of(names[row]) for row in rows], pa.string()),
            "label": pa.array([job.images.label(names[row]) for row in rows], pa.string()),
            "features": pa.FixedSizeListArray.from_arrays(numbers, features.shape[1]),
        }
    ).replace_schema_metadata({METADATA: json.dumps(about)})
    file = job.file(shard)
    with replacing(file) as beside:
        pq.write_table(table, beside, **STORAGE)


def join(files: Sequence[Path], out: Path, made_by: dict[str, Any]) -> None:
    """Writes the rows of all shards to one file."""
    import pyarrow.parquet as pq

    abouts = [about_file(file)[0] for file in files]
    whole = {
        **made_by,
        "left_out": sum(one["left_out"] for one in abouts),
        "skipped": [line for one in abouts for line in one["skipped"]],
    }
    schema = pq.read_schema(files[0]).with_metadata({METADATA: json.dumps(whole)})
    with replacing(out) as beside, pq.ParquetWriter(beside, schema, **STORAGE) as joined:
        for file in files:
            joined.write_table(pq.read_table(file).replace_schema_metadata(schema.metadata))


def done(job: Job) -> list[int]:
    """Returns the existing shards.

    Raises:
        ValueError: a file is not a shard of this job.
    """
    found = []
    for file in sorted(job.directory.glob("part-*.parquet")):
        about, rows = checked(job, file)
        read_back(file)
        shard = about.get("shard", -1)
        if file != job.file(shard) or rows + about["left_out"] != job.images.length(shard):
            raise ValueError(
                f"`out`: {str(file)!r} is not one of the {job.images.shards:,} shards: it is shard {shard} with "
                f"{rows:,} rows and {about['left_out']:,} images left out. Remove it."
            )
        found.append(shard)
    return found


def checked(job: Job, file: Path) -> tuple[dict[str, Any], int]:
    """Returns the metadata of a file and its number of rows, and checks that this job could have written the file."""
    about, rows = about_file(file)
    if differences := differences_of(about, job.made_by):
        raise ValueError(
            f"`out`: {str(file)!r} belongs to another run: {differences} Choose another `out`, or remove the files "
            "there."
        )
    if job.on_error == "raise" and about["left_out"]:
        raise ValueError(
            f"`out`: {str(file)!r} was written with on_error='skip' and lacks an image. {about['skipped'][0]} Repair "
            "it and remove the file, or pass on_error='skip'."
        )
    return about, rows


def read_back(file: Path) -> None:
    """Reads a whole file and compares it with its checksums.

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
            f"`out`: {str(file)!r} is damaged ({error}). Remove it; the next run writes it again."
        ) from None


def about_file(file: Path) -> tuple[dict[str, Any], int]:
    """Returns the metadata of a file, and its number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = pq.read_metadata(file)
        written = (stored.metadata or {}).get(METADATA)
        about = None if written is None else json_text.parse(written)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"`out`: {str(file)!r} is damaged or not a Parquet file ({error}). Remove it.") from None
    if about is None:
        raise ValueError(f"`out`: {str(file)!r} was not written by `embed`. Choose another `out`.")
    if not _is_complete(about):
        raise ValueError(f"`out`: {str(file)!r} has damaged metadata. Remove it; the next run writes it again.")
    return old_names.renamed(about), stored.num_rows


def _is_complete(about: Any) -> bool:
    """Returns whether metadata has all entries that this module reads, with the right types."""
    if not isinstance(about, dict) or type(about.get("shard", 0)) is not int or type(about.get("left_out")) is not int:
        return False
    skipped = about.get("skipped")
    lines = isinstance(skipped, list) and all(isinstance(line, str) for line in skipped)
    return lines and about["left_out"] >= 0 and (about["left_out"] == 0 or skipped != [])


def differences_of(there: dict[str, Any], here: dict[str, Any]) -> str:
    different = [key for key in SAME if there.get(key) != here[key]]
    return "".join(f"`{key}` is {there.get(key)!r} there, but {here[key]!r} now. " for key in different).rstrip()
