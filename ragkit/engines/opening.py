"""A store by its place: a directory, or the URL of an engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import cast

from ragkit.engines.base import EngineStore
from ragkit.errors import InputError
from ragkit.store.base import BaseStore
from ragkit.store.loader import AnyEncoder
from ragkit.store.manifest import NAME
from ragkit.store.store import Store
from ragkit.store.text_index import TextIndex

ENGINES = {
    "lance": "ragkit.engines.lance.store:LanceStore",
    "lance+az": "ragkit.engines.lance.store:LanceStore",
    "lance+gs": "ragkit.engines.lance.store:LanceStore",
    "lance+s3": "ragkit.engines.lance.store:LanceStore",
    "postgres": "ragkit.engines.postgres.store:PostgresStore",
    "postgresql": "ragkit.engines.postgres.store:PostgresStore",
}
"""The class that keeps a store, by the scheme of its URL."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def open_store(place: str | Path, *, encoder: AnyEncoder | Mapping[str, AnyEncoder] = None) -> BaseStore:
    """The store at a directory or URL; `encoder` as for `Store.open`.

    Raises `InputError` for a scheme that no engine has, `StoreError` if there is no store or its server cannot be reached.
    """
    engine = engine_of(place)
    return Store.open(place, encoder=encoder) if engine is None else engine.open(str(place), encoder=encoder)


def create_store(place: str | Path, indexes: Mapping[str, TextIndex]) -> BaseStore:
    """A new, empty store with indexes like these, which must be empty, in a new directory or at a URL.

    Raises `InputError` if there is one already, or for an index that the engine cannot have.
    """
    engine = engine_of(place)
    return Store.create(place, indexes) if engine is None else engine.create(str(place), indexes)


def store_exists(place: str | Path) -> bool:
    """Whether there is a store at a directory or URL. Raises `StoreError` if its server cannot be reached."""
    engine = engine_of(place)
    return (Path(place) / NAME).exists() if engine is None else engine.exists(str(place))


def open_or_create(
    place: str | Path,
    indexes: Callable[[], Mapping[str, TextIndex]],
    *,
    encoder: AnyEncoder | Mapping[str, AnyEncoder] = None,
) -> BaseStore:
    """The store at a directory or URL, or a new one with the `indexes`, which are made only then."""
    return open_store(place, encoder=encoder) if store_exists(place) else create_store(place, indexes())


def engine_of(place: str | Path) -> type[EngineStore] | None:
    """The engine that a URL names; None for a directory. Raises `InputError` for a scheme that is not known."""
    match = _URL.match(place) if isinstance(place, str) else None
    if match is None:
        return None
    scheme = match[1].lower()
    if scheme not in ENGINES:
        raise InputError(f"store: there is no engine for {scheme}://; use a directory, or {'://, '.join(sorted(ENGINES))}://")
    module, _, name = ENGINES[scheme].partition(":")
    return cast(type[EngineStore], getattr(import_module(module), name))
