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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout
from langchain_core.documents import Document

from ragkit.corpus.corpus import Corpus, SourceText
from ragkit.documents.tokens import RegexTokenizer, Tokenizer
from ragkit.encoders.base import Progress
from ragkit.encoders.factory import EncoderLike, as_encoder
from ragkit.errors import InputError, RagkitError, StoreError
from ragkit.store.manifest import NAME as MANIFEST
from ragkit.store.manifest import Manifest, check_files, publish, read_manifest, seal
from ragkit.store.text_index import DenseIndex, LexicalIndex, TextIndex

_DATABASE = "corpus.sqlite"
_GENERATIONS = "generations"
_LOCK = "lock"

Prototype = Callable[[str, dict[str, Any]], TextIndex]
"""From an index's name and settings on disk to an index object that can load it."""


class Snapshot:
    """One generation, consistent in itself: what a search runs on from its first to its last step."""

    def __init__(self, corpus: Corpus, names: Sequence[str], load: Callable[[str], TextIndex]) -> None:
        """`load` is called once per index, when it is first needed."""
        self.corpus, self.names = corpus, tuple(names)
        self._load, self._loaded, self._lock = load, dict[str, TextIndex](), threading.Lock()

    def index(self, name: str) -> TextIndex:
        """The index of that name. Raises `InputError` if this store has none."""
        if name not in self.names:
            raise InputError(f"this store has no {name!r} index; it has: {', '.join(self.names) or 'none'}")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]


class Draft:
    """The next generation while it is being written."""

    def __init__(self, corpus: Corpus, indexes: Mapping[str, TextIndex], split: dict[str, Any] | None) -> None:
        """`split` are the settings by which files were split so far."""
        self.corpus, self.indexes, self.split = corpus, indexes, split
        self.dirty = False

    def upsert(self, documents: Sequence[Document], progress: Progress | None = None) -> list[str]:
        """Add or replace documents by id; returns their ids in order. If encoding fails, nothing has changed."""
        change = self.corpus.plan(documents)
        texts = [addition.text for addition in change.additions]
        twins = [addition.twin for addition in change.additions]
        prepared = {name: index.prepare(texts, twins, progress) for name, index in self.indexes.items()} if texts else {}
        self.dirty |= self.corpus.apply(documents, change)
        positions = np.asarray([addition.position for addition in change.additions], np.int64)
        for name, vectors in prepared.items():
            self.indexes[name].add(positions, vectors)
        self._remove(change.removed)
        return change.ids

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Forget passages by id; returns the ids that were there."""
        change = self.corpus.delete(ids)
        self._remove(change.removed)
        self.dirty |= bool(change.ids)
        return change.ids

    def replace_sources(self, file: str, sources: Sequence[SourceText]) -> None:
        """Make `sources` the source texts of `file`; none forgets the file."""
        self.corpus.replace_sources(file, sources)
        self.dirty = True

    def split_with(self, settings: dict[str, Any]) -> None:
        """Remember how files are split from now on."""
        self.dirty |= settings != self.split
        self.split = settings

    def _remove(self, positions: Sequence[int]) -> None:
        if positions:
            for index in self.indexes.values():
                index.remove(np.asarray(positions, np.int64))


class Store:
    """Passages and their indexes, in memory or in a directory.

    Reads go through `snapshot`, so they are consistent while a writer publishes. An in-memory store is changed in place: do
    not search it from another thread during a write.
    """

    def __init__(self, path: Path | None, snapshot: Snapshot, prototype: Prototype) -> None:
        """Use `Store.memory`, `Store.create` or `Store.open` instead."""
        self.path, self.snapshot, self._prototype = path, snapshot, prototype
        self._split: dict[str, Any] | None = None  # of an in-memory store; a directory has it in its manifest
        self._writing = threading.Lock()

    @classmethod
    def memory(cls, indexes: Mapping[str, TextIndex]) -> Self:
        """An empty store that lives as long as the process."""
        return cls(None, Snapshot(Corpus(None, 1), tuple(indexes), dict(indexes).__getitem__), _given(indexes))

    @classmethod
    def create(cls, path: str | Path, indexes: Mapping[str, TextIndex]) -> Self:
        """A new, empty store in a directory that does not exist yet or is empty."""
        path = Path(path)
        if (path / MANIFEST).exists():
            raise InputError(f"there is already an index at {path}; open it, or choose another directory")
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; an index needs a directory")
        leftovers = {_DATABASE, f"{_DATABASE}-journal", _GENERATIONS, _LOCK, f"{MANIFEST}.draft"}
        if path.exists() and not {entry.name for entry in path.iterdir()} <= leftovers:
            raise InputError(f"{path} is not empty and holds no ragkit index; choose another directory")
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            corpus = Corpus(path / _DATABASE, 1, create=True)
            corpus.discard_after(0)
            _publish(path, Manifest(generation=0), corpus, indexes, None)
        return cls(path, Snapshot(corpus, tuple(indexes), dict(indexes).__getitem__), _given(indexes))

    @classmethod
    def open(cls, path: str | Path, *, encoder: EncoderLike = None) -> Self:
        """The published generation of a directory.

        `encoder` must be the one the index was built with (default: the packaged one); it is needed, and checked, when the
        dense index is first used. Raises `StoreError` if the directory holds no complete index of this format.
        """
        path = Path(path)
        manifest = read_manifest(path)
        check_files(path, manifest)
        corpus = Corpus(path / _DATABASE, manifest.generation)

        def prototype(name: str, settings: dict[str, Any]) -> TextIndex:
            return DenseIndex(as_encoder(encoder)) if "encoder" in settings else LexicalIndex()

        return cls(path, Snapshot(corpus, tuple(manifest.indexes), _loader(path, manifest, prototype)), prototype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the database."""
        self.snapshot.corpus.close()

    def __len__(self) -> int:
        return len(self.snapshot.corpus)

    @property
    def tokenizer(self) -> Tokenizer:
        """What sizes are counted in: the tokens of the dense encoder, or an estimate where there is none."""
        snapshot = self.snapshot
        dense = (index for name in snapshot.names if isinstance(index := snapshot.index(name), DenseIndex))
        return next((index.encoder.tokenizer for index in dense), RegexTokenizer())

    def verify(self) -> None:
        """Compare every file with its recorded digest. Raises `StoreError` on the first difference."""
        if self.path is not None:
            check_files(self.path, read_manifest(self.path), contents=True)

    def upsert(self, documents: Sequence[Document], progress: Progress | None = None) -> list[str]:
        """Add or replace documents by id, published when this returns; returns their ids in order."""
        with self.write() as draft:
            return draft.upsert(documents, progress)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Forget passages by id, published when this returns; returns the ids that were there."""
        with self.write() as draft:
            return draft.delete(ids)

    @contextmanager
    def write(self) -> Iterator[Draft]:
        """A draft of the next generation: published if the block ends well, discarded if it raises.

        Raises `StoreError` if another process is writing. An in-memory store has no generations: what was written before an
        error stays.
        """
        with self._writing:
            if self.path is None:
                snapshot = self.snapshot
                draft = Draft(snapshot.corpus, {name: snapshot.index(name) for name in snapshot.names}, self._split)
                yield draft
                self._split = draft.split
                return
            with _locked(self.path):
                manifest = read_manifest(self.path)
                load = _loader(self.path, manifest, self._prototype, writable=True)
                indexes = {name: load(name) for name in manifest.indexes}
                corpus = Corpus(self.path / _DATABASE, manifest.generation + 1)
                corpus.discard_after(manifest.generation)
                draft = Draft(corpus, indexes, manifest.split)
                yield draft
                if draft.dirty:
                    corpus.purge(manifest.generation - 1)
                    _publish(self.path, manifest, corpus, indexes, draft.split)
                    self.snapshot = Snapshot(corpus, tuple(indexes), indexes.__getitem__)


def _publish(
    path: Path, previous: Manifest, corpus: Corpus, indexes: Mapping[str, TextIndex], split: dict[str, Any] | None
) -> None:
    generations = path / _GENERATIONS
    home = generations / str(corpus.generation)
    shutil.rmtree(home, ignore_errors=True)
    for name, index in indexes.items():
        (home / name).mkdir(parents=True)
        index.save(home / name)
    home.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        generation=corpus.generation,
        indexes={name: index.settings for name, index in indexes.items()},
        split=split,
        files=seal(home, path),
    )
    publish(path, manifest)
    keep = {str(previous.generation), str(corpus.generation)}
    for stale in generations.iterdir():
        if stale.name not in keep:
            shutil.rmtree(stale, ignore_errors=True)


def _given(indexes: Mapping[str, TextIndex]) -> Prototype:
    return lambda name, settings: indexes[name]


def _loader(path: Path, manifest: Manifest, prototype: Prototype, *, writable: bool = False) -> Callable[[str], TextIndex]:
    def load(name: str) -> TextIndex:
        settings = manifest.indexes[name]
        home = path / _GENERATIONS / str(manifest.generation) / name
        try:
            return prototype(name, settings).load(home, settings, writable=writable)
        except RagkitError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:  # RuntimeError is how faiss reports bad files
            raise StoreError(f"cannot load index {name!r} of {path}: {error}; open it again, or index again") from error

    return load


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        with FileLock(path / _LOCK, timeout=0):
            yield
    except Timeout:
        raise StoreError(f"another process is writing to {path}; wait until it has finished") from None


def bm25_and_dense(encoder: EncoderLike = None, language: str = "english") -> dict[str, Any]:
    """The indexes of a hybrid store: "bm25" over text in `language`, "dense" over the encoder's vectors."""
    from ragkit.encoders.lexical import Analyzer

    return {"bm25": LexicalIndex(Analyzer(language)), "dense": DenseIndex(as_encoder(encoder))}
