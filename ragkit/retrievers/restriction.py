"""Which passages a retriever lets through, filters of those inside it included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.retrievers import BaseRetriever

from ragkit.corpus.filters import Filter, both


def inner_retrievers(retriever: BaseRetriever) -> list[BaseRetriever]:
    """The retrievers that are fields of this one, or in lists and mappings of its fields."""
    return [one for field in type(retriever).model_fields for one in _retrievers(getattr(retriever, field))]


def is_restricted(retriever: BaseRetriever) -> bool:
    """Whether it, or any retriever inside it, has a filter: then there may be passages that it never finds."""
    own = getattr(retriever, "filter", None) or (getattr(retriever, "search_kwargs", None) or {}).get("filter")
    return bool(own) or any(map(is_restricted, inner_retrievers(retriever)))


def restriction(retriever: BaseRetriever) -> Filter | None:
    """What a passage has to pass: the retriever's own filter, and that of one of those it asks. None lets all through."""
    parts = [restriction(one) for one in inner_retrievers(retriever)]
    asked: Filter | None = None
    if parts and all(parts):
        asked = parts[0] if all(part == parts[0] for part in parts) else {"$or": parts}
    return both(getattr(retriever, "filter", None), asked)


def _retrievers(value: Any) -> Iterator[BaseRetriever]:
    if isinstance(value, BaseRetriever):
        yield value
    elif isinstance(value, Mapping):
        yield from (one for part in value.values() for one in _retrievers(part))
    elif isinstance(value, list | tuple):
        yield from (one for part in value for one in _retrievers(part))
