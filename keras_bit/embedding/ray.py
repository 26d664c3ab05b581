"""Writes the shards of `keras_bit.embedding.shards` with workers of Ray Data. Only functions import Ray."""

import contextlib
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any


def each(
    start: Callable[[], Callable[[int], str]], shards: Sequence[int], workers: int
) -> Generator[tuple[int, str], None, None]:
    """Yields every shard with the result of `start()(shard)`, as they finish.

    Args:
        start: called once in each worker, where it loads the model.
        shards: their numbers.
        workers: number of processes. Ray restarts a process that dies.

    Ray is started on this machine and stopped at the end, unless the caller has started it.
    """
    # This turns off Ray's telemetry. It comes before the import, which reads the variable.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    class Worker:
        def __init__(self) -> None:
            self._work = start()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return {"shard": row["item"], "error": self._work(int(row["item"]))}

    with _started(workers):
        rows = ray.data.from_items(list(shards), override_num_blocks=len(shards))  # one block per shard for a worker
        pool = ray.data.ActorPoolStrategy(size=workers)
        written = rows.map(Worker, compute=pool, **resources(workers, ray.cluster_resources()))
        for row in written.iter_rows():
            yield int(row["shard"]), row["error"]


def resources(workers: int, cluster: dict[str, float]) -> dict[str, float]:
    """Returns the resources of each worker; without a request, Ray hides GPUs from them."""
    gpus = cluster.get("GPU", 0)
    return {"num_cpus": 1, "num_gpus": min(1, gpus / workers)} if gpus else {"num_cpus": 1}


@contextlib.contextmanager
def _started(workers: int) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(include_dashboard=False, num_cpus=workers, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
