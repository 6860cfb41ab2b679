"""Files and folders into a store: only what changed is read, split and encoded, and what is gone is removed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from langchain_core.documents import Document

from ragkit.corpus.corpus import SourceText
from ragkit.documents.loaders import EmptyFile, UnreadableFile, find_files, load_bytes, read_file
from ragkit.documents.model import Skipped
from ragkit.documents.split import SplitSettings, split
from ragkit.documents.tokens import Tokenizer
from ragkit.store.draft import Draft
from ragkit.store.store import Store

_BATCH = 512
FileProgress = Callable[[int, int], None]
"""Called with the number of files done and the number of files in all."""


@dataclass
class IndexReport:
    """What an indexing run did.

    `files` were read or recognised as unchanged; `passages` is the number in the whole store afterwards. A passage that took the
    place of another one in a file that was known already counts as updated, not as one added and one deleted.
    """

    files: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    passages: int = 0
    added: int = 0
    updated: int = 0
    deleted: int = 0
    seconds: float = 0.0


def index_paths(
    store: Store,
    paths: Sequence[str | Path],
    *,
    exclude: Sequence[str] = (),
    size: int | None = None,
    overlap: int | None = None,
    language: str | None = None,
    text_field: str | None = None,
    progress: FileProgress | None = None,
) -> IndexReport:
    """Bring the store up to date with files and folders, as one generation.

    Files below `paths` that the store knows and that no longer exist lose their passages, also if a whole path is gone; other
    files of the store are left alone. A file that exists but cannot be read is reported as skipped and keeps the passages it
    had.

    `exclude` takes .gitignore-style patterns. `size` and `overlap` of passages count tokens of the store's encoder (at first
    200 and 0), `language` is the ISO 639-1 code for sentence boundaries (the store's), `text_field` the field of a JSON
    record that holds its text ("text"); None is what the previous run used, and a change splits every file again.

    Raises `InputError` for a path that does not exist, or a setting out of its range.
    """
    started = time.perf_counter()
    roots = [os.path.abspath(path) for path in paths]
    own = None if store.path is None else os.path.realpath(store.path)
    given = {"size": size, "overlap": overlap, "language": language, "text_field": text_field}
    with store.write() as draft:
        settings = SplitSettings.of({"language": store.language}, draft.split or {}, given)
        draft.split_with(asdict(settings))
        run = _Run(draft, settings, store.tokenizer)
        # a file or folder that is gone may be named, to have its passages removed; anything else that is not there is a mistake
        there = [root for root in roots if os.path.lexists(root) or not any(_below(file, root) for file in run.known)]
        files = [str(file) for file in find_files(there, exclude) if own is None or not _below(os.path.realpath(file), own)]
        for done, file in enumerate(files):
            if progress:
                progress(done, len(files))
            run.read(file)
        closed = [skipped.path for skipped in run.report.skipped if os.path.isdir(skipped.path)]
        for file in sorted(run.known.keys() - set(files)):
            if any(_below(file, root) for root in roots) and not any(_below(file, folder) for folder in closed):
                run.forget(file)
        run.finish()
        run.report.passages = len(draft.corpus)
    if progress:
        progress(len(files), len(files))
    run.report.seconds = time.perf_counter() - started
    return run.report


class _Run:
    """One pass over the files: compares, queues new passages, and encodes them in batches that span files."""

    def __init__(self, draft: Draft, settings: SplitSettings, tokenizer: Tokenizer) -> None:
        self.draft, self.settings, self.tokenizer = draft, settings, tokenizer
        self.known = draft.corpus.file_digests()
        self.report = IndexReport()
        self._queue: list[Document] = []
        self._sources: dict[str, list[SourceText]] = {}
        self._gone: list[str] = []

    def read(self, file: str) -> None:
        try:
            data = read_file(Path(file))
        except UnreadableFile as error:
            self._skip(file, error.reason, gone=not os.path.lexists(file))
            return
        digest = hashlib.blake2b(data + repr(self.settings).encode(), digest_size=16).hexdigest()
        if self.known.get(file) == digest:
            self.report.files += 1
            return
        try:
            sources, skipped = load_bytes(data, Path(file), text_field=self.settings.text_field)
        except UnreadableFile as error:
            self._skip(file, error.reason, gone=isinstance(error, EmptyFile))
            return
        self.report.files += 1
        self.report.skipped += skipped
        settings = self.settings
        documents = [
            document
            for source in sources
            for document in split(
                source, self.tokenizer, size=settings.size, overlap=settings.overlap, language=settings.language
            )
        ]
        texts = [SourceText(source.name, digest, source.text) for source in sources]
        self._replace(file, documents, texts)

    def forget(self, file: str) -> None:
        self._replace(file, [], [])

    def finish(self) -> None:
        self._flush()
        # last, so that an unchanged text under a new id could take over the vector of the old one
        self.draft.delete(self._gone)

    def _replace(self, file: str, documents: list[Document], sources: list[SourceText]) -> None:
        before = self.draft.corpus.ids_of_file(file) if file in self.known else []
        ids = {str(document.id) for document in documents}
        gone = [id_ for id_ in before if id_ not in ids]
        fresh = len(ids.difference(before))
        self.report.updated += min(fresh, len(gone))
        self.report.added += max(0, fresh - len(gone))
        self.report.deleted += max(0, len(gone) - fresh)
        self._gone += gone
        self._sources[file] = sources
        self._queue += documents
        if len(self._queue) >= _BATCH or len(self._sources) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        for start in range(0, len(self._queue), _BATCH):
            self.draft.upsert(self._queue[start : start + _BATCH])
        self.draft.replace_sources(self._sources)
        self._queue, self._sources = [], {}

    def _skip(self, file: str, reason: str, *, gone: bool = False) -> None:
        """Report a file; the passages it had stay unless its text is `gone`."""
        known = file in self.known
        self.report.skipped.append(
            Skipped(file, f"{reason}; the passages indexed earlier are kept" if known and not gone else reason)
        )
        if known and gone:
            self.forget(file)


def _below(file: str, root: str) -> bool:
    return file == root or file.startswith(root.rstrip(os.sep) + os.sep)
