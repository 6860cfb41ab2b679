"""A large folder into a store: read and encoded by many workers, written by one process, with the result of `index_paths`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.documents import Document

from ragkit.bulk.reading import ReadFiles, groups, read_part
from ragkit.bulk.workers import Workers
from ragkit.corpus.corpus import Corpus
from ragkit.documents.provenance import content_id
from ragkit.documents.split import SplitSettings
from ragkit.encoders.base import Progress
from ragkit.encoders.kept import KeptEncoder, write_whole
from ragkit.errors import InputError, RagkitError
from ragkit.progress import Told
from ragkit.store.base import BaseDraft, BaseStore
from ragkit.store.draft import Draft
from ragkit.store.indexer import IndexReport, IndexRun, index_paths
from ragkit.store.reading import Known, Reading
from ragkit.store.store import Store

T = TypeVar("T")
R = TypeVar("R")
_OURS = re.compile(r"[0-9a-f]{32}\.(npy|part|texts)|\..*\.draft")
Bars = Callable[[str, str], Told | None]
"""Makes a bar for what is being done ("reading"), counting such things ("files"); see `progress_bars`."""


def bulk_index(
    store: BaseStore,
    paths: Sequence[str | Path],
    workers: Workers,
    *,
    exclude: Sequence[str] = (),
    size: int | None = None,
    overlap: int | None = None,
    language: str | None = None,
    text_field: str | None = None,
    drop_missing: bool = False,
    bars: Bars = lambda doing, what: None,
) -> IndexReport:
    """What `index_paths` does, with the same arguments and the same result, where workers load, split and encode.

    `store` must have a `KeptEncoder`. What the workers have finished is in its folder, which must be the same for all of them
    and is emptied once the store is published; after a kill the same call goes on from there. The workers make exactly the
    calls of the encoder that `index_paths` would make, so the vectors are the same to the last bit where the encoder gives the
    same for equal calls: with as many threads, on processors of one kind. Elsewhere they differ by rounding (1e-6).

    Raises `InputError` for a store of an engine or without such an encoder, and what `index_paths` raises.
    """
    if not isinstance(store, Store):
        raise InputError(f"store: bulk indexing needs an index in a directory, not {store.name}; use index_paths")
    encoder = store.encoder
    if not isinstance(encoder, KeptEncoder):
        raise InputError("store: bulk indexing needs a dense index over a KeptEncoder; open it with that, or use index_paths")
    reader = _Reader(encoder, workers, bars)
    report = index_paths(
        store,
        paths,
        exclude=exclude,
        size=size,
        overlap=overlap,
        language=language,
        text_field=text_field,
        drop_missing=drop_missing,
        progress=bars("indexing", "files"),
        read=reader,
    )
    _clear(encoder.folder, reader.left)
    return report


@dataclass
class _Reader:
    """Has workers read the files, and encode what the writer will ask for."""

    encoder: KeptEncoder
    workers: Workers
    bars: Bars
    left: list[Path] = field(default_factory=list)
    """The files that were in the folder when all was encoded: this job's, and those of jobs that were killed."""

    def __call__(self, draft: BaseDraft, settings: SplitSettings, files: Sequence[Known]) -> Iterator[Reading]:
        read = ReadFiles(self.encoder, settings, self.encoder.folder)
        grouped = list(groups(files))
        parts = _all(self.workers, read, grouped, list(map(len, grouped)), self.bars("reading", "files"))
        plan = _Plan(draft, self.encoder)
        run = IndexRun(plan)
        for reading in _readings(read.folder, parts):
            run.take(reading)
        run.finish()
        encode = EncodeTexts(self.encoder)
        _all(self.workers, encode, list(plan.calls), list(plan.calls.values()), self.bars("encoding", "passages"))
        # now, while nobody else may write to the store: afterwards files of the next job may be among them
        self.left += [file for file in self.encoder.folder.glob("*") if _OURS.fullmatch(file.name)]
        return _readings(read.folder, parts)


def _readings(folder: Path, parts: Sequence[str]) -> Iterator[Reading]:
    return (reading for part in parts for reading in read_part(folder, part))


def _clear(folder: Path, files: Sequence[Path]) -> None:
    """Delete files, and their folder if nothing else is in it."""
    for file in files:
        file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


@dataclass(frozen=True)
class EncodeTexts:
    """Encodes the texts that were left under a name in the encoder's folder; their vectors stay there."""

    encoder: KeptEncoder

    def __call__(self, name: str) -> None:
        """Make the vectors, if they are not there already; the texts are not needed any more then."""
        texts = texts_file(self.encoder.folder, name)
        try:
            content = texts.read_bytes()
        except FileNotFoundError:
            # done by a worker that was lost before it could say so
            if (self.encoder.folder / f"{name}.npy").is_file():
                return
            raise RagkitError(f"{texts} is gone; run again, and keep away from that folder") from None
        self.encoder.encode_documents(json.loads(content))
        texts.unlink(missing_ok=True)


def texts_file(folder: Path, name: str) -> Path:
    """Where the texts of a call wait for a worker."""
    return folder / f"{name}.texts"


class _Plan(Draft):
    """A draft that changes nothing, but leaves the texts that another draft will want encoded where workers find them."""

    def __init__(self, draft: BaseDraft, encoder: KeptEncoder) -> None:
        assert isinstance(draft, Draft)
        # an empty corpus of its own knows as much as an empty one, and no positions of that are given away
        super().__init__(draft.corpus if draft.file_digests() or len(draft) else Corpus(None, 1), {}, draft.split)
        self._encoder = encoder
        self._seen: set[str] = set()
        self.calls: dict[str, int] = {}
        """The calls of the encoder that have not been made yet, by name, with their number of texts."""

    def upsert(self, documents: Sequence[Document], progress: Progress | None = None) -> list[str]:
        additions = self.corpus.plan(documents).additions
        keys = [content_id(*addition.text) for addition in additions]
        # of texts that an earlier call has, the store will take the vector
        texts = [
            addition.text.whole
            for key, addition in zip(keys, additions, strict=True)
            if addition.twin is None and key not in self._seen
        ]
        self._seen.update(keys)
        part = self._encoder.part(texts)
        if texts and not part.is_file():
            self.calls[part.stem] = len(texts)
            write_whole(texts_file(part.parent, part.stem), lambda file: file.write(json.dumps(texts).encode()))
        return []

    def delete(self, ids: Sequence[str]) -> list[str]:
        return []

    def replace_sources(self, sources: Any) -> None:
        pass


def _all(workers: Workers, work: Callable[[T], R], items: Sequence[T], sizes: Sequence[int], progress: Told | None) -> list[R]:
    """What the work makes of each item, in order. `progress` is told of their sizes."""
    results: list[Any] = [None] * len(items)
    missing, done, total = set(range(len(items))), 0, sum(sizes)
    for number, result in workers.map(work, items):
        results[number] = result
        if number in missing:
            missing.remove(number)
            done += sizes[number]
        if progress is not None:
            progress(done, total)
    if missing:
        raise RagkitError(f"{len(missing)} of {len(items)} pieces of work were lost by the workers; run the same again")
    return results
