"""The next generation of a store, while it is being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document

from ragkit.corpus.changes import SourceText
from ragkit.corpus.corpus import Corpus
from ragkit.encoders.base import Progress
from ragkit.store.base import BaseDraft
from ragkit.store.text_index import TextIndex


class Draft(BaseDraft):
    """Changes corpus and indexes together, and keeps track of what it has changed."""

    def __init__(self, corpus: Corpus, indexes: Mapping[str, TextIndex], split: dict[str, Any] | None) -> None:
        """`split` are the settings by which files were split so far."""
        self.corpus, self.indexes, self.split = corpus, indexes, split
        self.dirty = False
        """Whether there is anything to publish."""
        self.touched: set[str] = set()
        """Names of the indexes whose files must be written anew."""

    def __len__(self) -> int:
        return len(self.corpus)

    def upsert(self, documents: Sequence[Document], progress: Progress | None = None) -> list[str]:
        """See `BaseDraft.upsert`."""
        change = self.corpus.plan(documents)
        texts = [addition.text for addition in change.additions]
        twins = [addition.twin for addition in change.additions]
        prepared = {name: index.prepare(texts, twins, progress) for name, index in self.indexes.items()} if texts else {}
        if change.rows:
            self.corpus.apply(change)
            self.dirty = True
        positions = np.asarray([addition.position for addition in change.additions], np.int64)
        for name, vectors in prepared.items():
            self.indexes[name].add(positions, vectors)
            self.touched.add(name)
        self._remove(change.removed)
        return change.ids

    def delete(self, ids: Sequence[str]) -> list[str]:
        """See `BaseDraft.delete`."""
        change = self.corpus.delete(ids)
        self._remove(change.removed)
        self.dirty |= bool(change.ids)
        return change.ids

    def replace_sources(self, sources: Mapping[str, Sequence[SourceText]]) -> None:
        """See `BaseDraft.replace_sources`."""
        if sources:
            self.corpus.replace_sources(sources)
            self.dirty = True

    def split_with(self, settings: dict[str, Any]) -> None:
        """See `BaseDraft.split_with`."""
        self.dirty |= settings != self.split
        self.split = settings

    def file_digests(self) -> dict[str, str]:
        """See `BaseDraft.file_digests`."""
        return self.corpus.file_digests()

    def ids_of_file(self, file: str) -> list[str]:
        """See `BaseDraft.ids_of_file`."""
        return self.corpus.ids_of_file(file)

    def index_trigrams(self) -> None:
        """From now on keep an index for exact search."""
        self.dirty |= self.corpus.index_trigrams()

    def _remove(self, positions: Sequence[int]) -> None:
        if positions:
            for name, index in self.indexes.items():
                index.remove(np.asarray(positions, np.int64))
                self.touched.add(name)
