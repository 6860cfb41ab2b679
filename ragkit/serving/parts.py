"""JSON of any shape that a caller sent: what is in it, and whether it can be kept and sent back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any


def parts(value: Any) -> Iterator[tuple[Any, int]]:
    """The value and every key and value inside it, each with its level, from 1. Lazy, and at home at any depth."""
    open_: list[Iterator[Any]] = [iter((value,))]
    while open_:
        for part in open_[-1]:
            yield part, len(open_)
            if isinstance(part, dict):
                open_.append(chain(part, part.values()))
                break
            if isinstance(part, list):
                open_.append(iter(part))
                break
        else:
            open_.pop()


def is_unicode(text: str) -> bool:
    """Whether it can be encoded: JSON can spell half of a surrogate pair, which is no character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
