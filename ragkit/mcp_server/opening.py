"""An index as the server uses it: the one place that knows how a store is opened, read and kept up to date."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from langchain_core.documents import Document

from ragkit.chains.config import PipelineConfig, build_pipeline, read_config
from ragkit.chains.default import default_config
from ragkit.chains.pipeline import Pipeline
from ragkit.documents.provenance import provenance
from ragkit.engines.opening import open_store
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
        """Whether the pipeline itself lets through some passages only."""
        return bool(self._pipeline.filter or getattr(self._pipeline.retriever, "filter", None))

    def pipeline(self) -> Pipeline:
        """The pipeline over what is published now, also by other processes."""
        self._store.refresh()
        return self._pipeline

    def passage(self, id_: str) -> Kept | None:
        """The passage that is published under an id now; None if there is none."""
        self._store.refresh()
        return self._store.read(lambda snapshot: _kept(snapshot, id_))


def open_index(place: str | Path, config: str | Path | None = None, encoder: str | None = None) -> Opened:
    """The index at a directory or URL, with the pipeline of a YAML file or else ragkit's default one for its language.

    Raises `StoreError` if there is no index, `InputError` for a file that describes no pipeline.
    """
    settings = None if config is None else read_config(config)
    if settings is not None and encoder is None:
        encoder = settings.encoder
    store = open_store(place, encoder=encoder)
    described: PipelineConfig = default_config(store.language) if settings is None else settings
    return Opened(build_pipeline(Pipeline, described, store), store)


def _kept(snapshot: BaseSnapshot, id_: str) -> Kept | None:
    for document in snapshot.get([id_]):
        source = provenance(document).source
        return Kept(document, None if source is None else snapshot.source_text(source))
    return None
