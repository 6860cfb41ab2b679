"""The lock of the one writer: a file that whoever holds it gives back when it ends, in whatever way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ragkit.errors import StoreError


@contextmanager
def locked(file: Path, store: str) -> Iterator[None]:
    """Held by this process until the end, or until it dies. Raises `StoreError`, naming the store, if another has it."""
    try:
        with FileLock(file, timeout=0):
            yield
    except Timeout:
        raise StoreError(f"another process is writing to {store}; wait until it has finished") from None
