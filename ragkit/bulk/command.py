"""What `ragkit index` needs to have workers do its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ragkit.bulk.workers import Processes, Workers
from ragkit.encoders.dense import DenseEncoder
from ragkit.encoders.kept import KeptEncoder
from ragkit.errors import InputError

HERE = "local"
"""The address that stands for a cluster which is started on this machine."""


@contextmanager
def chosen_workers(processes: int | None, ray: str | None) -> Iterator[Workers | None]:
    """So many processes, or the Ray cluster at an address; None if neither is given. Raises `InputError` if both are."""
    if processes is not None and ray is not None:
        raise InputError("--ray: cannot be combined with --processes; choose one of the two")
    if ray is not None:
        from ragkit.bulk.cluster import RayCluster

        with RayCluster(None if ray == HERE else ray) as cluster:
            yield cluster
    else:
        yield None if processes is None else Processes(processes)


def kept_beside(index: Path, encoder: str | None) -> KeptEncoder:
    """The encoder of that name, whose vectors wait beside an index directory until they are in it."""
    return KeptEncoder(partial(DenseEncoder, encoder), f"{index.absolute()}.parts")
