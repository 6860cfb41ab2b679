"""One writer at a time: by a lock file in a directory, by a lease in object storage, which has no locks."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from uuid import uuid4

from ragkit.engines.lance.place import Place, translated
from ragkit.errors import StoreError
from ragkit.store.locking import locked

_log = logging.getLogger(__name__)
LOCK = "ragkit.lock"
LEASE_SECONDS = 900.0
"""How long a writer in object storage may be silent before another takes over."""


class Turn:
    """A writer's turn. LanceDB updates a row only where a condition holds, and of two that try at once only one does."""

    def __init__(self, place: Place, published: Any) -> None:
        """`published` is the table of the one row, at its latest version. Raises `StoreError` if another has the turn."""
        self._place, self._published = place, published
        self._writer = "" if place.path else uuid4().hex
        self._renewed = time.time()
        if self._writer:
            now, until = self._renewed, self._renewed + LEASE_SECONDS
            if not self._update(f"writer = '' OR until < {now}", {"writer": self._writer, "until": until}):
                raise StoreError(
                    f"another process is writing to {place.name}; wait until it has finished, or, if it was killed, "
                    f"{LEASE_SECONDS:g} s"
                )

    def keep(self) -> None:
        """Go on having it. Raises `StoreError` if another has taken over."""
        if self._writer and time.time() > self._renewed + LEASE_SECONDS / 10:
            self.renew()

    def renew(self) -> None:
        """Like `keep`, and make sure of it."""
        if not self._writer:
            return
        self._renewed = time.time()
        if not self._update(f"writer = '{self._writer}'", {"until": self._renewed + LEASE_SECONDS}):
            raise StoreError(f"another process is writing to {self._place.name}; it took over after {LEASE_SECONDS:g} s")

    def publish(self, generation: int, state: str) -> None:
        """Put the next generation in the place of the one before. Raises `StoreError` if another has."""
        where = f"generation = {generation - 1} AND writer = '{self._writer}'"
        if not self._update(where, {"generation": generation, "state": state}):
            raise StoreError(f"another process is writing to {self._place.name}, and has published before this one; write again")

    def end(self) -> None:
        """Let others write. If that cannot be told, which is logged, they wait until the lease has run out."""
        if self._writer:
            try:
                self._update(f"writer = '{self._writer}'", {"writer": ""})
            except StoreError:
                _log.warning("others cannot write for %g s", LEASE_SECONDS, exc_info=True)

    def _update(self, where: str, values: dict[str, Any]) -> bool:
        with translated(self._place):
            return bool(self._published.update(where=where, values=values).rows_updated)


@contextmanager
def turn(place: Place, published: Any) -> Iterator[Turn]:
    """A turn to write, until the end of the block."""
    with locked(place.path / LOCK, place.name) if place.path else nullcontext():
        mine = Turn(place, published)
        try:
            yield mine
        finally:
            mine.end()
