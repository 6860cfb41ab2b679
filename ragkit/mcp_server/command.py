"""`ragkit mcp`: an index as tools for agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragkit.errors import InputError, MissingExtraError


def mcp(
    directory: Annotated[
        str | None,
        typer.Argument(metavar="DIR|URL", help="An index, or the URL of a store; default: the one that --config names."),
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve streamable HTTP there, at /mcp; default: stdin and stdout.")
    ] = None,
    expose: Annotated[bool, typer.Option("--expose", help="HOST may be reached from other machines. No authentication.")] = False,
    model: Annotated[
        str | None, typer.Option(metavar="PROVIDER:NAME", help="A chat model that words the answers; default: quoted sentences.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A pipeline as YAML; default: ragkit's own.")] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Path or hub name of the encoder; default: the packaged all-MiniLM-L6-v2.")
    ] = None,
    characters: Annotated[int, typer.Option(min=100, help="Most characters of documents in one reply.")] = 20_000,
) -> None:
    """Offer an index to agents as MCP tools: search, ask and read_source. Others may update the index meanwhile."""
    try:
        from ragkit.mcp_server.protocol import build_server
        from ragkit.mcp_server.transports import Address, check_reach, serve_http, serve_stdio
    except ImportError:
        raise MissingExtraError("the MCP server", "mcp") from None
    from ragkit.llms.named import chat_model
    from ragkit.mcp_server.opening import open_index
    from ragkit.mcp_server.tools import Tools

    if expose and http is None:
        raise InputError("--expose: is for --http, which is missing")
    address = None if http is None else check_reach(Address.parse(http), expose)
    llm = None if model is None else chat_model(model)
    server = build_server(Tools(open_index(directory, config, encoder), characters, llm))
    if address is None:
        serve_stdio(server)
    else:
        serve_http(server, address)
