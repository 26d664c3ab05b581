"""The shards of `keras_bit.embedding.shards`, written by workers of Ray Data. Ray is imported by functions only."""

import contextlib
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any


def each(
    start: Callable[[], Callable[[int], str]], shards: Sequence[int], workers: int
) -> Generator[tuple[int, str], None, None]:
    """Every shard with what `start()(shard)` returned for it, as they are done.

    Args:
        start: called once in each worker, where it loads the model.
        shards: numbers.
        workers: how many processes; one that dies is started again.

    Ray is started on this machine and stopped at the end, unless it has been started by the caller.
    """
    # Ray would report that it is used to its makers, over the network. Before the import, which reads it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    class Worker:
        def __init__(self) -> None:
            self._work = start()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return {"shard": row["item"], "error": self._work(int(row["item"]))}

    with _started(workers):
        rows = ray.data.from_items(list(shards), override_num_blocks=len(shards))  # a block is what a worker gets
        pool = ray.data.ActorPoolStrategy(size=workers)
        written = rows.map(Worker, compute=pool, **resources(workers, ray.cluster_resources()))
        for row in written.iter_rows():
            yield int(row["shard"]), row["error"]


def resources(workers: int, cluster: dict[str, float]) -> dict[str, float]:
    """What each worker is given of what there is; without asking, Ray hides GPUs from them."""
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
