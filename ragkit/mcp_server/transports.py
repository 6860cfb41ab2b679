"""How clients reach the server: the standard streams of its process, or streamable HTTP."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

import anyio
import typer
import uvicorn
from mcp.server import Server
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings

from ragkit.errors import InputError, RagkitError
from ragkit.loopback import is_loopback

PATH = "/mcp"
_LARGEST_BODY = 64 * 1024  # bytes; a question and a filter fit many times


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """HOST:PORT, [IPV6]:PORT. Raises `InputError` naming --http."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
            raise InputError(f"--http: takes HOST:PORT, such as 127.0.0.1:8000, not {text!r}")
        return cls(host, int(port))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def shown(self) -> str:
        """As a URL has it."""
        return f"[{self.host}]" if ":" in self.host else self.host


def check_reach(address: Address, expose: bool) -> Address:
    """The address. Raises `InputError` if others can reach it and nobody has said that they may."""
    if not (address.loopback or expose):
        raise InputError(
            f"--http: {address.host} can be reached from other machines, and there is no authentication; "
            "use 127.0.0.1, or say --expose if something in front of it sees to that"
        )
    return address


def serve_stdio(server: Server[Any]) -> None:
    """Serve one client over stdin and stdout until it closes them. What else is written to stdout goes to stderr meanwhile."""

    async def serve() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(serve)


def serve_http(server: Server[Any], address: Address) -> None:
    """Serve any number of clients at `/mcp` until the process is told to stop; the URL is said on stderr.

    Raises `RagkitError` if the address cannot be listened on.
    """
    listening = _listen(address)
    port = listening.getsockname()[1]
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        host=address.host,
        max_request_body_size=_LARGEST_BODY,
        transport_security=_security(address),
    )
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    typer.echo(f"ragkit: serving http://{address.shown}:{port}{PATH}", err=True)
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _listen(address: Address) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen()  # from now on whoever has read the URL may connect, however long the rest takes
    except OSError as error:
        raise RagkitError(f"--http: cannot listen on {address.host}:{address.port}: {error.strerror or error}") from None
    return listening


def _security(address: Address) -> TransportSecuritySettings | None:
    """Requests must name the host they were sent to, so that no web page can have a browser send them (DNS rebinding)."""
    if address.host in ("0.0.0.0", "::"):
        return None  # it may be called anything
    names = [address.shown, *(("127.0.0.1", "localhost", "[::1]") if address.loopback else ())]
    return TransportSecuritySettings(
        allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
        allowed_origins=[f"http://{name}:*" for name in names],
    )
