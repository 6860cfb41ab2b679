"""The HTTP server that runs the application."""

from __future__ import annotations

from math import ceil

import uvicorn
from starlette.types import ASGIApp

from ragkit.serving.limits import Limits

_HEADER_BYTES = 64 * 1024


def make_server(app: ASGIApp, limits: Limits, *, host: str, port: int) -> uvicorn.Server:
    """Told to stop, it takes no more connections, lets requests finish for as long as the limits say, and cancels the rest."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        # the other implementation takes headers of any size
        http="h11",
        h11_max_incomplete_event_size=_HEADER_BYTES,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=ceil(limits.drain_s),
    )
    return uvicorn.Server(config)
