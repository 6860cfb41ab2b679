"""Workers on a Ray cluster: the items are a Ray Data set, which survives the loss of nodes."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

from ragkit.bulk.workers import guarded, settled
from ragkit.errors import InputError, MissingExtraError, RagkitError

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)
_BLOCKS = 1000  # at most; what is lost with a node is the blocks that were worked on there


class RayCluster:
    """Workers on a Ray cluster; a context manager.

    `address` is that of a cluster ("auto" finds the one of this machine), or None to start one here, for as long as the context
    lasts. Each worker has `cpus` cores, which are also its threads, and `gpus` GPUs; there are as many as fit into the cluster,
    but at most `workers`. `object_store` is the memory, in bytes, of the objects of a cluster that is started here.

    A node that is lost takes no result with it: what it was doing is done elsewhere. ragkit, its models and all paths must be the
    same on every node. Raises `MissingExtraError` without Ray, and `RagkitError` if the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        cpus: float = 1,
        gpus: float = 0,
        object_store: int = 200 * 2**20,
    ) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers: must be at least 1, not {workers}")
        if cpus <= 0 or gpus < 0:
            raise InputError(f"cpus: a worker needs more than 0 cores, and 0 or more GPUs, not {cpus} and {gpus}")
        self._address, self._workers, self._cpus, self._gpus = address, workers, cpus, gpus
        self._object_store = object_store
        self._started = False

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            import ray.data
        except ImportError:
            raise MissingExtraError("work on a Ray cluster", "ray") from None
        if not ray.is_initialized():
            here: dict[str, Any] = {}
            if self._address is None:
                here = {"object_store_memory": self._object_store, "include_dashboard": False}
            try:
                ray.init(self._address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise RagkitError(f"ray: no cluster at {self._address or 'this machine'} ({error})") from None
            self._started = True
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        return self

    def __exit__(self, *exc: object) -> None:
        import ray

        if self._started:
            ray.shutdown()
            self._started = False

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """See `Workers.map`."""
        import ray
        import ray.data

        if not items:
            return
        if not ray.is_initialized():
            raise InputError("workers: a RayCluster works inside `with RayCluster(...) as workers` only")
        rows = [{"number": number, "item": pickle.dumps(item)} for number, item in enumerate(items)]
        most = min(self._workers or len(items), len(items))
        # the set itself would begin with one; it goes on with fewer if nodes are lost
        first = min(most, max(1, self._fitting()))
        worked = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).map_batches(
            _Worker,
            fn_constructor_args=(work,),
            batch_size=1,
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=first, max_size=most),
        )
        for row in worked.iter_rows():
            yield int(row["number"]), settled(pickle.loads(row["result"]))

    def _fitting(self) -> int:
        """How many workers the cluster has room for. Raises `InputError` if one was started here that has none."""
        import ray

        rooms = [_rooms(node["Resources"], self._cpus, self._gpus) for node in ray.nodes() if node["Alive"]]
        if not any(rooms):
            missing = f"no node of the cluster has {self._cpus:g} cores and {self._gpus:g} GPUs for a worker"
            if self._started and self._address is None:
                raise InputError(f"cpus: {missing}; ask for fewer")
            # it may be one that adds nodes as they are needed
            _log.warning("%s; waiting until there is one", missing)
        return sum(rooms)


def _rooms(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many workers fit into a node."""
    return int(min(resources.get(name, 0) // of_one for name, of_one in (("CPU", cpus), ("GPU", gpus)) if of_one))


class _Worker:
    """Lives on a node; made once for many items."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        [item] = batch["item"].tolist()
        return {"number": batch["number"], "result": [pickle.dumps(guarded(self._work, pickle.loads(item)))]}
