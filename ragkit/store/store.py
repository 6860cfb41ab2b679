"""A corpus and its indexes as one thing: read as a snapshot, written as a draft, published all at once.

On disk:

    DIR/manifest.json            the published generation; replacing it is the commit
    DIR/corpus.sqlite            passages and source texts of every generation that can still be read
    DIR/generations/N/NAME/...   the files of index NAME, immutable once generation N is published
    DIR/lock                     held by the one writer

The generation before the published one is kept, so that a reader that is just opening it can finish.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from ragkit.corpus.corpus import Corpus
from ragkit.encoders.factory import EncoderLike, as_encoder
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import InputError, StoreError
from ragkit.store.base import BaseStore
from ragkit.store.draft import Draft
from ragkit.store.loader import GENERATIONS, AnyEncoder, Loader
from ragkit.store.locking import locked
from ragkit.store.manifest import NAME as MANIFEST
from ragkit.store.manifest import Manifest, check_files, link_files, publish, read_manifest, seal, sync_directory
from ragkit.store.snapshot import Snapshot
from ragkit.store.text_index import DenseIndex, LexicalIndex, TextIndex

_DATABASE = "corpus.sqlite"
_LOCK = "lock"
_FILES = (MANIFEST, f"{MANIFEST}.draft", _DATABASE, f"{_DATABASE}-journal", _LOCK)
T = TypeVar("T")


class Store(BaseStore):
    """Passages and their indexes, in memory or in a directory.

    Reads go through `snapshot`, so they are consistent while a writer publishes. An in-memory store is changed in place: do
    not search it from another thread during a write.
    """

    def __init__(self, path: Path | None, snapshot: Snapshot, loader: Loader) -> None:
        """Use `Store.memory`, `Store.create` or `Store.open` instead."""
        self.path, self._snapshot, self._loader = path, snapshot, loader
        self._split: dict[str, Any] | None = None  # of an in-memory store; a directory has it in its manifest
        self._writing = threading.RLock()
        self._draft: Draft | None = None
        self._moving = threading.Lock()

    @classmethod
    def memory(cls, indexes: Mapping[str, TextIndex]) -> Self:
        """An empty store that lives as long as the process."""
        return cls(None, Snapshot(Corpus(None, 1), _described(indexes), indexes.__getitem__), Loader.of(indexes))

    @classmethod
    def create(cls, path: str | Path, indexes: Mapping[str, TextIndex]) -> Self:
        """A new, empty store in a directory that does not exist yet or is empty. The indexes must be empty, too."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; an index needs a directory")
        path.mkdir(parents=True, exist_ok=True)
        if not {entry.name for entry in path.iterdir()} <= {GENERATIONS, *_FILES}:
            raise InputError(f"{path} is not empty and holds no ragkit index; choose another directory")
        with locked(path / _LOCK, str(path)):
            if (path / MANIFEST).exists():
                raise InputError(f"there is already an index at {path}; open it, or choose another directory")
            corpus = Corpus(path / _DATABASE, 1, writable=True)
            corpus.discard_after(0)
            manifest = _publish(path, Manifest(), Draft(corpus, indexes, None))
        sync_directory(path.parent)
        return cls(path, Snapshot(corpus, manifest.indexes, indexes.__getitem__), Loader.of(indexes))

    @classmethod
    def open(cls, path: str | Path, *, encoder: AnyEncoder | Mapping[str, AnyEncoder] = None) -> Self:
        """The published generation of a directory.

        `encoder` must be the one the index was built with (default: the packaged one, for dense indexes). It is needed, and
        checked, when a dense or learned sparse index is first used; for several of these it may be a mapping from the name of an
        index to its encoder. Raises `StoreError` if the directory holds no complete index of this format.
        """
        loader = Loader(encoder)
        return cls(Path(path), _read(Path(path), loader), loader)

    def refresh(self) -> bool:
        """See `BaseStore.refresh`."""
        if self.path is None or read_manifest(self.path).generation == self.snapshot.corpus.generation:
            return False
        return self._move(_read(self.path, self._loader))

    def __reduce__(self) -> Any:
        """Pickled as its directory and the encoder that was given: it is opened again where it is unpickled."""
        if self.path is None:
            return super().__reduce__()
        return partial(type(self).open, encoder=self._loader.given), (self.path.absolute(),)

    def close(self) -> None:
        """See `BaseStore.close`."""
        self.snapshot.corpus.close()

    def discard(self) -> None:
        """See `BaseStore.discard`; the directory itself stays."""
        self.close()
        if self.path is not None:
            shutil.rmtree(self.path / GENERATIONS, ignore_errors=True)
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)

    @property
    def name(self) -> str:
        """See `BaseStore.name`."""
        return "memory" if self.path is None else str(self.path)

    @property
    def snapshot(self) -> Snapshot:
        """See `BaseStore.snapshot`."""
        return self._snapshot

    def _encoder(self, name: str, kind: str) -> Any:
        return self._loader.encoder(name, kind)

    def verify(self) -> None:
        """Compare every file with its recorded digest. Raises `StoreError` on the first difference."""
        if self.path is not None:
            check_files(self.path, read_manifest(self.path), contents=True)

    @contextmanager
    def write(self) -> Iterator[Draft]:
        """A draft of the next generation: published if the block ends well, discarded if it raises.

        Raises `StoreError` if another process is writing, or this thread already is. An in-memory store has no generations:
        what was written before an error stays.
        """
        with self._writing:
            if self._draft is not None:
                raise StoreError("a write is already open in this thread; use its draft")
            try:
                with self._write_memory() if self.path is None else self._write_directory(self.path) as self._draft:
                    yield self._draft
            finally:
                self._draft = None

    @contextmanager
    def _write_memory(self) -> Iterator[Draft]:
        snapshot = self.snapshot
        draft = Draft(snapshot.corpus, {name: snapshot.index(name) for name in snapshot.settings}, self._split)
        try:
            yield draft
            self._split = draft.split
        finally:
            snapshot.forget()

    @contextmanager
    def _write_directory(self, path: Path) -> Iterator[Draft]:
        with locked(path / _LOCK, str(path)):
            manifest = read_manifest(path)
            corpus = Corpus(path / _DATABASE, manifest.generation + 1, writable=True)
            published = False
            try:
                corpus.discard_after(manifest.generation)
                indexes = {name: self._loader.load(path, manifest, name, writable=True) for name in manifest.indexes}
                draft = Draft(corpus, indexes, manifest.split)
                yield draft
                if draft.dirty:
                    manifest = _publish(path, manifest, draft)
                    published = True
                    self._move(Snapshot(corpus, manifest.indexes, indexes.__getitem__))
            finally:
                if not published:
                    corpus.close()

    def _move(self, snapshot: Snapshot) -> bool:
        """Never backwards: a refresh may have read the manifest before a write of this very store."""
        with self._moving:
            later = snapshot.corpus.generation > self.snapshot.corpus.generation
            if later:
                self._snapshot = snapshot
            return later


def _described(indexes: Mapping[str, TextIndex]) -> dict[str, dict[str, Any]]:
    return {name: {**index.settings, "kind": index.kind} for name, index in indexes.items()}


def _read(path: Path, loader: Loader) -> Snapshot:
    manifest = read_manifest(path)
    try:
        check_files(path, manifest)
        corpus = Corpus(path / _DATABASE, manifest.generation)
    except StoreError:
        # writers may have published twice since the manifest was read; then nothing is wrong with the directory
        if read_manifest(path).generation == manifest.generation:
            raise
        return _read(path, loader)
    return Snapshot(corpus, manifest.indexes, lambda name: loader.load(path, manifest, name))


def _publish(path: Path, previous: Manifest, draft: Draft) -> Manifest:
    generation = draft.corpus.generation
    generations = path / GENERATIONS
    home = generations / str(generation)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for name, index in draft.indexes.items():
        old = generations / str(previous.generation) / name
        if name in draft.touched or name not in previous.indexes or not link_files(old, home / name):
            shutil.rmtree(home / name, ignore_errors=True)
            (home / name).mkdir()
            index.save(home / name)
    manifest = Manifest(
        generation=generation,
        indexes=_described(draft.indexes),
        split=draft.split,
        files=seal(home, path, previous),
    )
    draft.corpus.seal(previous.generation)
    publish(path, manifest)
    for stale in generations.iterdir():
        if stale.name not in (str(previous.generation), str(generation)):
            shutil.rmtree(stale, ignore_errors=True)
    return manifest


def bm25_and_dense(encoder: EncoderLike = None, language: str = "english") -> dict[str, TextIndex]:
    """The indexes of a hybrid store: "bm25" over text in `language`, "dense" over the encoder's vectors."""
    return {"bm25": LexicalIndex(Analyzer(language)), "dense": DenseIndex(as_encoder(encoder))}
