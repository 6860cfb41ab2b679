"""Ids as keys: a document's id may be longer than what an index of PostgreSQL takes, its digest is not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID


def key_of(id_: str) -> UUID:
    """The key of an id: the BLAKE2b digest of it."""
    return UUID(bytes=hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=16).digest())


def keys(ids: Sequence[str]) -> list[UUID]:
    """The key of each distinct id."""
    return [key_of(id_) for id_ in dict.fromkeys(ids)]
