"""Claims a directory of results for one process."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from keras_bit.files import locks, writing


@contextlib.contextmanager
def claimed(directory: str | Path, *, argument: str, exclusive: bool = True) -> Iterator[None]:
    """Creates `directory` and keeps other processes out of it until the end.

    It writes a file at once, so that a directory that is not writable is an error before anything is computed. Created
    directories that are empty at the end are removed. The claim ends with the process, even by `kill -9`.

    Args:
        directory: the directory of the results.
        argument: the name of the caller's argument, for messages.
        exclusive: whether this process keeps others out. Among processes that work together, one does it for all.

    Raises:
        BlockingIOError: another process has claimed it.
        OSError: nothing can be written there.
    """
    directory = Path(directory)
    made = writing.missing_directories(directory)
    with contextlib.ExitStack() as held:
        held.callback(writing.remove_if_empty, made)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            writing.check_writable(directory / "file")
            if exclusive:
                held.callback(locks.acquire(directory).release)
        except locks.InUseError as error:
            raise BlockingIOError(
                f"`{argument}`: another process ({error.owner}) is writing to {str(directory)!r}. Wait until it ends, "
                f"or choose another directory.{error.remedy}"
            ) from None
        except OSError as error:
            reason = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
            raise OSError(
                f"`{argument}`: nothing can be written to {str(directory)!r}: {reason}. Choose another directory."
            ) from error
        yield
