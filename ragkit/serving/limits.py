"""How much a caller may ask for, and how much the service takes on at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf

from ragkit.errors import InputError

QUERY_CHARS = 4_000
"""Characters of a question."""
DOCUMENTS = 1_000
"""Documents of one request to rerank or prune."""
DOCUMENT_CHARS = 100_000
"""Characters of one of them."""
FIELD_DEPTH = 32
"""Levels of what such a document holds beside its text."""
K = 100
"""Passages that a search may return, or an answer rest on."""
CONTEXT_TOKENS = 100_000
"""The largest token budget of a context."""
FILTER_DEPTH = 8
"""Levels of a filter inside a filter."""
FILTER_PARTS = 500
"""Keys and values of a filter, all of them together."""
FILTER_CHARS = 1_000
"""Characters of a key or a value of a filter."""
NAME_CHARS = 200
"""Characters of the name of a model."""


@dataclass(frozen=True)
class Limits:
    """What the service takes on. Raises `InputError` for a number that is not positive and finite; `batch_wait_s` may be 0."""

    body_bytes: int = 2_000_000
    """Of one request, however it is sent."""
    body_s: float = 30.0
    """Seconds in which it must have arrived."""
    send_s: float = 30.0
    """Seconds in which a caller must take each part of an answer."""
    in_flight: int = 256
    """Requests at once; one more is answered 429."""
    waiting: int = 256
    """Questions that wait for one model; one more is answered 429."""
    batch_items: int = 64
    """Questions that go through a model together."""
    batch_tokens: int = 16_384
    """Tokens, by estimate, that go through a model together; a larger question goes alone. More is faster on a GPU only, and
    everybody waits for the end of a batch."""
    batch_wait_s: float = 0.0
    """Seconds that a batch which is not full waits for company; 0: none, it begins as soon as the model is free."""
    timeout_s: float = 30.0
    """Seconds for a request that names no deadline."""
    most_timeout_s: float = 120.0
    """The most that a request may ask for; more is cut to this."""
    drain_s: float = 30.0
    """Seconds in which requests may finish once the service is told to stop."""
    refresh_s: float = 2.0
    """Seconds between two looks at whether the index, or the file of keys, has changed."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (0 < value < inf or (field.name == "batch_wait_s" and value == 0)):
                raise InputError(f"{field.name}: must be a number greater than 0, not {value!r}")
