"""An index as the server uses it: the one place that knows how a store is opened, read and kept up to date."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from langchain_core.documents import Document

from ragkit.chains.config import build_pipeline
from ragkit.chains.opening import described
from ragkit.chains.pipeline import Pipeline
from ragkit.documents.provenance import provenance
from ragkit.engines.opening import open_store
from ragkit.retrievers.restriction import is_restricted
from ragkit.store.base import BaseSnapshot, BaseStore


class Kept(NamedTuple):
    """A passage as the store has it."""

    document: Document
    source_text: str | None
    """The decoded text of its source; None if the store does not hold it."""


class Opened:
    """A pipeline, and the store behind it."""

    def __init__(self, pipeline: Pipeline, store: BaseStore) -> None:
        self._pipeline, self._store = pipeline, store

    @property
    def restricted(self) -> bool:
        """Whether the pipeline lets through some passages only, by a filter of its own or of any retriever inside it."""
        return is_restricted(self._pipeline)

    def pipeline(self) -> Pipeline:
        """The pipeline over what is published now, also by other processes."""
        self._store.refresh()
        return self._pipeline

    def passage(self, id_: str) -> Kept | None:
        """The passage that is published under an id now; None if there is none."""
        self._store.refresh()
        return self._store.read(lambda snapshot: _kept(snapshot, id_))


def open_index(place: str | Path | None, config: str | Path | None = None, encoder: str | None = None) -> Opened:
    """The index at a directory or URL, or else of a YAML file, with the pipeline of that file or ragkit's default one.

    Raises `StoreError` if there is no index, `InputError` for a file that describes no pipeline, or if no index is named.
    """
    wanted = described(place, config, encoder)
    store = open_store(wanted.place, encoder=wanted.encoder)
    try:
        return Opened(build_pipeline(Pipeline, wanted.pipeline(store.language), store), store)
    except BaseException:
        store.close()
        raise


def _kept(snapshot: BaseSnapshot, id_: str) -> Kept | None:
    for document in snapshot.get([id_]):
        source = provenance(document).source
        return Kept(document, None if source is None else snapshot.source_text(source))
    return None
