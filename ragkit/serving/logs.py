"""The log, whose lines name the request that they are about."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_request: ContextVar[str] = ContextVar("request", default="-")


@contextmanager
def of_request(request_id: str) -> Iterator[None]:
    """What is logged inside, by tasks and threads that this one starts too, is about this request."""
    outside = _request.set(request_id)
    try:
        yield
    finally:
        _request.reset(outside)


class NamesRequest(logging.Filter):
    """Gives each record a field `request`: the id of the one it is about, or "-"."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets all through."""
        record.request = _request.get()
        return True


def log_to_stderr() -> None:
    """From level INFO on."""
    handler = logging.StreamHandler()
    handler.addFilter(NamesRequest())
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s [%(request)s]: %(message)s", handlers=[handler])
    logging.getLogger("faiss").setLevel(logging.WARNING)  # its tries to load itself for this processor look like failures
