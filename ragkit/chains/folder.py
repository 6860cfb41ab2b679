"""A folder of documents as a pipeline: indexed on the first call, brought up to date on later ones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from ragkit.caches import cache_home
from ragkit.chains.config import build_pipeline
from ragkit.chains.default import default_config
from ragkit.chains.pipeline import Pipeline
from ragkit.documents.files import check_paths
from ragkit.indexes.warmup import warm_up
from ragkit.store.indexer import FileProgress, IndexReport, index_paths
from ragkit.store.manifest import NAME
from ragkit.store.store import Store, bm25_and_dense


class Folder(NamedTuple):
    """A folder that can be asked."""

    pipeline: Pipeline
    """ragkit's default one."""
    directory: Path
    """Where its index lives."""
    report: IndexReport
    """What was read this time."""


def open_folder(path: str | Path, index: str | Path | None = None, progress: FileProgress | None = None) -> Folder:
    """Bring the index of a file or folder up to date, reading only what changed, and open it.

    `index` is a directory; None is one of its own in the user's cache. Raises `InputError` for a path that does not exist.
    """
    directory = cached_index(path) if index is None else Path(index)
    if (directory / NAME).exists():
        store = Store.open(directory)
    else:
        check_paths([path])
        warm_up()
        store = Store.create(directory, bm25_and_dense())
    try:
        report = index_paths(store, [path], progress=progress)
        return Folder(build_pipeline(Pipeline, default_config(store.language), store), directory, report)
    except BaseException:
        store.close()
        raise


def cached_index(path: str | Path) -> Path:
    """The index directory of a file or folder below `cache_home`."""
    real = os.path.realpath(path)
    digest = hashlib.blake2b(os.fsencode(real), digest_size=6).hexdigest()
    return cache_home() / f"{os.path.basename(real)}-{digest}"
