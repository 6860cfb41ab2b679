"""A test collection's corpus as a store: built once, and found again for every later evaluation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from ragkit.documents.provenance import content_id
from ragkit.encoders.factory import EncoderLike
from ragkit.encoders.languages import iso_code
from ragkit.errors import InputError
from ragkit.evaluation.collection import Collection
from ragkit.evaluation.experiment import Progress
from ragkit.store.manifest import NAME as MANIFEST
from ragkit.store.manifest import read_manifest
from ragkit.store.store import Store, bm25_and_dense

_AT_ONCE = 1024  # documents: what an interruption loses of the encoding


def build_store(
    collection: Collection,
    cache: str | Path,
    *,
    encoder: EncoderLike = None,
    language: str = "english",
    progress: Progress | None = None,
) -> Store:
    """The corpus, indexed for BM25 and dense retrieval, in a directory below `cache` of its own for each corpus and settings.

    Every document is one passage. What is there is not encoded again; after an interruption the rest is. `progress` is told of
    how many documents of how many are encoded.
    """
    indexes = bm25_and_dense(encoder, language)
    settings = {name: index.settings for name, index in indexes.items()}
    name = re.sub(r"[^\w.-]+", "_", collection.name)
    path = Path(cache) / "indexes" / f"{name}-{content_id(collection.digest, settings)[:16]}"
    store = Store.open(path, encoder=encoder) if (path / MANIFEST).exists() else Store.create(path, indexes)
    documents = list(collection.documents.values())
    for start in range(len(store), len(documents), _AT_ONCE):
        store.upsert(documents[start : start + _AT_ONCE])
        if progress is not None:
            progress(min(start + _AT_ONCE, len(documents)), len(documents))
    return store


def open_or_build(
    collection: Collection,
    cache: str | Path,
    index: str | Path | None,
    language: str | None,
    progress: Progress | None = None,
    encoder: EncoderLike = None,
) -> Store:
    """See `open_index` where there is an `index`, else `build_store`, for English if no `language` is given.

    Raises `InputError` if the index is for another language than the one given.
    """
    code = None if language is None else iso_code(language)
    if index is None:
        return build_store(collection, cache, encoder=encoder, language=language or "english", progress=progress)
    store = open_index(index, collection, encoder=encoder)
    if code is not None and code != store.language:
        raise InputError(f"--language: {index} was built for {store.language!r}, not {code!r}; leave one of the two out")
    return store


def published(path: str | Path) -> dict[str, Any]:
    """What an index directory holds, by the digests of its files: texts alone do not say it, since titles and headings count.

    Raises `StoreError` if there is no index.
    """
    return read_manifest(Path(path)).model_dump()


def open_index(path: str | Path, collection: Collection, *, encoder: EncoderLike = None) -> Store:
    """An index directory that somebody else has built from the collection's corpus; it is only read.

    Raises `InputError` if it does not hold just the collection's documents, by id and text.
    """
    store = Store.open(path, encoder=encoder)
    held: Mapping[Any, Document] = {document.id: document for document in store.snapshot.get(list(collection.documents))}
    for id_, document in collection.documents.items():
        if id_ not in held or held[id_].page_content != document.page_content:
            has = "has another text for" if id_ in held else "lacks"
            raise InputError(f"--index: {path} {has} document {id_!r} of {collection.name}; leave --index out to build another")
    if len(store) != len(held):
        raise InputError(f"--index: {path} holds {len(store)} passages, {collection.name} has {len(held)} documents")
    return store
