"""The next generation of a store, while it is being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document

from ragkit.corpus.corpus import Corpus, SourceText
from ragkit.encoders.base import Progress
from ragkit.store.text_index import TextIndex


class Draft:
    """Changes corpus and indexes together, and keeps track of what it has changed."""

    def __init__(self, corpus: Corpus, indexes: Mapping[str, TextIndex], split: dict[str, Any] | None) -> None:
        """`split` are the settings by which files were split so far."""
        self.corpus, self.indexes, self.split = corpus, indexes, split
        self.dirty = False
        """Whether there is anything to publish."""
        self.touched: set[str] = set()
        """Names of the indexes whose files must be written anew."""

    def upsert(self, documents: Sequence[Document], progress: Progress | None = None) -> list[str]:
        """Add or replace documents by id; returns their ids in order. If encoding fails, nothing has changed."""
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
        """Forget passages by id; returns the ids that were there."""
        change = self.corpus.delete(ids)
        self._remove(change.removed)
        self.dirty |= bool(change.ids)
        return change.ids

    def replace_sources(self, sources: Mapping[str, Sequence[SourceText]]) -> None:
        """For each file, make these its source texts; none forgets the file."""
        if sources:
            self.corpus.replace_sources(sources)
            self.dirty = True

    def split_with(self, settings: dict[str, Any]) -> None:
        """Remember how files are split from now on."""
        self.dirty |= settings != self.split
        self.split = settings

    def index_trigrams(self) -> None:
        """From now on keep an index for exact search."""
        self.dirty |= self.corpus.index_trigrams()

    def _remove(self, positions: Sequence[int]) -> None:
        if positions:
            for name, index in self.indexes.items():
                index.remove(np.asarray(positions, np.int64))
                self.touched.add(name)
