"""`ragkit serve` and `ragkit serve-key`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.errors import InputError, MissingExtraError
from ragkit.loopback import is_loopback
from ragkit.serving.limits import Limits

if TYPE_CHECKING:
    import uvicorn

_DEFAULTS = Limits()


def serve(
    directory: Annotated[
        str | None, typer.Argument(metavar="DIR", help="An index, made by `ragkit index`; default: the one that --config names.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A pipeline as YAML; default: hybrid retrieval, then ragkit's Provence model.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any that is free.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who may ask, made by `ragkit serve-key`; changes count at once.")
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Let everybody ask who reaches the port, without keys.")] = False,
    model: Annotated[
        str | None, typer.Option(metavar="PROVIDER:NAME", help="A chat model that writes the answers of /v1/ask.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Path or hub name of the encoder; default: the packaged all-MiniLM-L6-v2.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One more name that /v1/rerank goes by; may be repeated.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for a request that names no deadline.")] = _DEFAULTS.timeout_s,
    max_timeout: Annotated[float, typer.Option(help="The longest deadline a request may name.")] = _DEFAULTS.most_timeout_s,
    in_flight: Annotated[int, typer.Option(min=1, help="Requests at once; more are answered 429.")] = _DEFAULTS.in_flight,
    queue: Annotated[
        int, typer.Option(min=1, help="Questions that may wait for a model; more are answered 429.")
    ] = _DEFAULTS.waiting,
    batch: Annotated[int, typer.Option(min=1, help="Questions that go through a model together.")] = _DEFAULTS.batch_items,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that go through a model together; more pays on a GPU.")
    ] = _DEFAULTS.batch_tokens,
    batch_wait: Annotated[
        float, typer.Option(help="Seconds that a batch which is not full waits for company.")
    ] = _DEFAULTS.batch_wait_s,
    body_bytes: Annotated[int, typer.Option(min=1, help="Largest body of a request.")] = _DEFAULTS.body_bytes,
    drain: Annotated[float, typer.Option(help="Seconds in which requests may finish at a shutdown.")] = _DEFAULTS.drain_s,
) -> None:
    """Serve an index over HTTP: /v1/search, /v1/rerank, /v1/prune, /v1/ground and /v1/ask."""
    if keys is None and not no_auth and not is_loopback(host):
        raise InputError(
            f"--host: {host} can be reached from elsewhere; name a file with --keys, or say --no-auth if everybody may ask"
        )
    if keys is not None and no_auth:
        raise InputError("--no-auth: there are --keys; leave one of the two out")
    limits = Limits(
        body_bytes=body_bytes,
        in_flight=in_flight,
        waiting=queue,
        batch_items=batch,
        batch_tokens=batch_tokens,
        batch_wait_s=batch_wait,
        timeout_s=timeout,
        most_timeout_s=max_timeout,
        drain_s=drain,
    )
    try:
        from ragkit.serving.app import create_app
        from ragkit.serving.server import make_server
        from ragkit.serving.service import Service
    except ImportError as error:
        raise MissingExtraError("ragkit serve", "serve") from error
    from ragkit.llms.named import chat_model
    from ragkit.serving.logs import log_to_stderr
    from ragkit.serving.tracing import from_environment

    tracing = from_environment()
    service = Service.open(
        directory,
        config=config,
        encoder=encoder,
        llm=None if model is None else chat_model(model),
        keys=keys,
        aliases=alias or [],
        limits=limits,
    )
    log_to_stderr()
    app = create_app(service, tracing, local_only=keys is None and not no_auth)
    server: uvicorn.Server = make_server(app, limits, host=host, port=port)
    server.run()
    if not server.started:
        raise typer.Exit(1)


def serve_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file of keys; made if it is not there.")],
    name: Annotated[str, typer.Option(help="Whose key it is.")],
    filter: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="Only passages whose metadata match; may be repeated, all must hold."),
    ] = None,
    filter_field: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A field by which a key with --filter may filter further.")
    ] = None,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Requests per minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="The key is for /metrics, and for nothing else.")] = False,
) -> None:
    """Make a key for `ragkit serve --keys FILE`, and print it: once, as the file has its digest only."""
    from ragkit.serving.keys import add_key

    settings: dict[str, Any] = {
        "filter": _filter(filter),
        "filter_fields": filter_field or [],
        "requests_per_minute": per_minute,
        "concurrent": concurrent,
        "metrics": metrics,
    }
    typer.echo(add_key(file, name, **settings))


def _filter(entries: list[str] | None) -> dict[str, Any] | None:
    """Strings only: a tenant must not see more because its name looks like a number."""
    conditions = {}
    for entry in entries or []:
        key, equals, value = entry.partition("=")
        if not equals or not key or key.startswith("$"):
            raise InputError(f"--filter takes KEY=VALUE, got {entry!r}")
        if key in conditions:
            raise InputError(f"--filter: {key} is named twice, and a passage has one value; write the filter into the file")
        conditions[key] = value
    return conditions or None
