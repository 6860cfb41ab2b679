"""Files and folders into a store: only what changed is read, split and encoded, and what is gone is removed."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from langchain_core.documents import Document

from ragkit.corpus.changes import SourceText
from ragkit.documents.files import find_files, several
from ragkit.documents.model import Skipped
from ragkit.documents.split import SplitSettings
from ragkit.errors import InputError
from ragkit.store.base import BaseDraft, BaseStore
from ragkit.store.reading import Known, Reading, file_content, read_content

_BATCH = 512
_SUFFIX = re.compile(r"\.\w{1,10}")  # what follows the last full stop of other names says nothing of their type
FileProgress = Callable[[int, int], None]
"""Called with the number of files done and the number of files in all."""
Reader = Callable[[BaseDraft, SplitSettings, Sequence[Known]], Iterable[Reading]]
"""Gives a reading of each of these files, in order; may look at the draft, but not change it."""


@dataclass
class IndexReport:
    """What an indexing run did.

    `files` were read or recognised as unchanged; `passages` is the number in the whole store afterwards. A passage that took the
    place of another one in a file that was known already counts as updated, not as one added and one deleted. `skipped` are files
    that cannot be read, told in every run, and unusable records of JSON files, told only when the file is new or has changed.
    `left_out` counts the files in folders that are of no type that is read, by suffix in lower case ("" is any that is no plain
    one), the most frequent first.
    """

    files: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    passages: int = 0
    added: int = 0
    updated: int = 0
    deleted: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def index_paths(
    store: BaseStore,
    paths: Sequence[str | Path],
    *,
    exclude: Sequence[str] = (),
    size: int | None = None,
    overlap: int | None = None,
    language: str | None = None,
    text_field: str | None = None,
    drop_missing: bool = False,
    progress: FileProgress | None = None,
    read: Reader | None = None,
) -> IndexReport:
    """Bring the store up to date with files and folders, as one generation.

    Files below `paths` that the store knows and that no longer exist lose their passages; other files of the store are left
    alone. A file that exists but cannot be read is reported as skipped and keeps the passages it had. Where all that the store
    knows below a path is gone, and nothing new is there, that may be a folder that was moved or a drive that is not mounted:
    it takes `drop_missing` to have the passages removed.

    `exclude` takes .gitignore-style patterns. `size` and `overlap` of passages count tokens of the store's encoder (at first
    200 and 0), `language` is the ISO 639-1 code for sentence boundaries (the store's), `text_field` the field of a JSON
    record that holds its text ("text"); None is what the previous run used, and a change splits every file again.
    `read` is somebody else who reads the files.

    Raises `InputError` for a path that does not exist or holds nothing any more, or a setting out of its range.
    """
    started = time.perf_counter()
    roots = [os.path.abspath(path) for path in several(paths, "paths")]
    own = None if store.path is None else os.path.realpath(store.path)
    given = {"size": size, "overlap": overlap, "language": language, "text_field": text_field}
    with store.write() as draft:
        settings = SplitSettings.of({"language": store.language}, draft.split or {}, given)
        draft.split_with(asdict(settings))
        run = IndexRun(draft)
        tokenizer = store.tokenizer
        # a file or folder of which the store knows may be gone; anything else that is not there is a mistake
        there = [root for root in roots if os.path.lexists(root) or not any(_below(file, root) for file in run.known)]
        others: list[str] = []
        found = [str(file) for file in find_files(there, exclude, others.append)]
        files, others = (
            [each for each in every if own is None or not _below(os.path.realpath(each), own)] for every in (found, others)
        )
        run.report.left_out = _by_suffix(set(others).difference(files))
        gone = sorted(run.known.keys() - set(files))
        if not drop_missing:
            for root in roots:
                _check_there(root, files, gone, store.name)
        known = [Known(file, run.known.get(file)) for file in files]
        readings: Iterator[Reading]
        if read is None:
            readings = (read_content(file_content(each.file), each, settings, tokenizer) for each in known)
        else:
            readings = iter(read(draft, settings, known))
        for done in range(len(files)):
            if progress:
                progress(done, len(files))
            run.take(next(readings))
        closed = [skipped.path for skipped in run.report.skipped if os.path.isdir(skipped.path)]
        for file in gone:
            if any(_below(file, root) for root in roots) and not any(_below(file, folder) for folder in closed):
                run.forget(file)
        run.finish()
        run.report.passages = len(draft)
    if progress:
        progress(len(files), len(files))
    run.report.seconds = time.perf_counter() - started
    return run.report


class IndexRun:
    """One pass over the files: compares, queues new passages, and encodes them in batches that span files."""

    def __init__(self, draft: BaseDraft) -> None:
        self.draft = draft
        self.known = draft.file_digests()
        self.report = IndexReport()
        self._queue: list[Document] = []
        self._sources: dict[str, list[SourceText]] = {}
        self._gone: list[str] = []

    def take(self, reading: Reading) -> None:
        """Put what a file holds in place of what is known of it."""
        if reading.reason is not None:
            self._skip(reading.file, reading.reason, gone=reading.gone)
            return
        self.report.files += 1
        if self.known.get(reading.file) != reading.digest:
            self.report.skipped += reading.skipped
            self._replace(reading.file, list(reading.documents), list(reading.sources))

    def forget(self, file: str) -> None:
        """Remove all that is known of a file."""
        self._replace(file, [], [])

    def finish(self) -> None:
        """Encode what is still waiting, and remove what is gone."""
        self._flush()
        # last, so that an unchanged text under a new id could take over the vector of the old one
        self.draft.delete(self._gone)

    def _replace(self, file: str, documents: list[Document], sources: list[SourceText]) -> None:
        before = self.draft.ids_of_file(file) if file in self.known else []
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


def _check_there(root: str, files: Sequence[str], gone: Iterable[str], store: str) -> None:
    """Raise `InputError` if all that the store knows below `root` is `gone`, and nothing else is found there.

    `files` are those that were found; one that is left out deliberately is `gone` as well, but exists.
    """
    lost = [file for file in gone if _below(file, root)]
    if not lost or any(os.path.exists(file) for file in (*lost, *files) if _below(file, root)):
        return
    one = len(lost) == 1
    raise InputError(
        f"paths: {root} {'has no file to read any more' if os.path.exists(root) else 'is gone'}, but {store} holds "
        f"{len(lost)} {'file' if one else 'files'} from there, which {'was' if one else 'were'} kept; bring back what was there "
        f"(is a drive not mounted?), or have {'it' if one else 'them'} dropped: ragkit index --drop-missing, drop_missing=True"
    )


def _by_suffix(files: Iterable[str]) -> dict[str, int]:
    """How many files have each suffix, the most frequent first."""
    suffixes = (os.path.splitext(file)[1].lower() for file in files)
    counts = Counter(suffix if _SUFFIX.fullmatch(suffix) else "" for suffix in suffixes)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _below(file: str, root: str) -> bool:
    return file == root or file.startswith(root.rstrip(os.sep) + os.sep)
