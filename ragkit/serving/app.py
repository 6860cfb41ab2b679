"""The endpoints."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from importlib.metadata import version
from typing import Any, cast

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from ragkit.chains.answer import Answer
from ragkit.chains.context import GroundedContext
from ragkit.corpus.filters import Filter
from ragkit.documents.provenance import score_of
from ragkit.documents.tokens import RegexTokenizer, count_tokens
from ragkit.serving import replies
from ragkit.serving.asking import answering
from ragkit.serving.deadline import Deadline
from ragkit.serving.errors import Problem, problem_of
from ragkit.serving.filtering import allowed
from ragkit.serving.gate import Gate
from ragkit.serving.inbox import Inbox
from ragkit.serving.keys import Key
from ragkit.serving.metrics import CONTENT_TYPE
from ragkit.serving.schemas import (
    AS_OBJECT,
    AS_TEXT,
    AskRequest,
    GroundRequest,
    PruneRequest,
    RerankRequest,
    SearchRequest,
    TextDocument,
)
from ragkit.serving.service import Asking, Service
from ragkit.serving.sse import Event, EventStream
from ragkit.serving.stages import StageWatch
from ragkit.serving.tracing import Tracing

_WRONG = {
    400: "The body is no JSON.",
    401: "No valid key.",
    403: "Not with this key, or not from this machine.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The Content-Type is not application/json.",
    422: "A field is wrong.",
    429: "Too many requests; Retry-After says when to try again.",
    500: "The service failed.",
    503: "The service is stopping, or the index was replaced; try again.",
    504: "Not done by the deadline.",
}
_JSON = re.compile(r"\s*application/([^;\s]+\+)?json\s*(;.*)?", re.IGNORECASE)
_FIELD_CHARS = 100  # of a field's name in an error: a caller may have sent any
# the schema itself comes with /health; built again for each of them, it would cost a tenth of a second
_REFERENCE = {"application/json": {"schema": {"$ref": f"#/components/schemas/{replies.ErrorReply.__name__}"}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": _REFERENCE} for status, what in _WRONG.items()
}
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["sources", "token", "answer", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    **_RESPONSES,
    200: {
        "model": replies.AskReply,
        "description": "The answer; with `stream`, the events sources, token, answer, or error.",
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    },
}


def create_app(service: Service, tracing: Tracing | None = None, *, local_only: bool = False) -> ASGIApp:
    """The service as an ASGI application; its lifespan starts and stops it.

    `local_only` refuses requests whose Host is not this machine.
    """
    tracing = tracing or Tracing()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()
            await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="ragkit",
        version=version("ragkit"),
        summary="Retrieve, rerank, prune and ground.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a client would follow with its key to an address without TLS, as the proxy's is not known here
        lifespan=lifespan,
    )
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(Exception, _unexpected)
    _add_state(app, service)
    # only declared here: `Gate` asks for it, and a service without keys has nothing to declare
    keyed = APIRouter(dependencies=[Depends(HTTPBearer(auto_error=False))] if service.keys is not None else [])
    _add_metrics(keyed, service)
    _add_questions(keyed, service)
    if service.reranker is not None:
        _add_rerank(keyed, service, service.reranker)
    if service.pruner is not None:
        _add_prune(keyed, service, service.pruner)
    app.include_router(keyed)
    routes = [path for route in (*app.routes, *keyed.routes) if (path := getattr(route, "path", None))]
    return Gate(
        Inbox(app, service.limits),
        keys=lambda: service.keys,
        limits=service.limits,
        metrics=service.metrics,
        tracing=tracing,
        routes=routes,
        local_only=local_only,
    )


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health", responses={**_RESPONSES, 500: {"model": replies.ErrorReply, "description": _WRONG[500]}})
    async def health() -> replies.State:
        """Whether the process answers at all."""
        return replies.State(status="live")

    @app.get("/ready", responses=_RESPONSES)
    async def ready() -> replies.State:
        """Whether models and index are loaded; 503 until then."""
        if not service.ready:
            raise Problem(503, "the models are being loaded; try again", headers={"Retry-After": "1"})
        return replies.State(status="ready")


def _add_metrics(app: APIRouter, service: Service) -> None:
    metrics_responses = {**_RESPONSES, 200: {"content": {CONTENT_TYPE: {"schema": {"type": "string"}}}}}

    @app.get("/metrics", response_class=Response, responses=metrics_responses)
    async def metrics() -> Response:
        """In Prometheus' text format."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _add_questions(app: APIRouter, service: Service) -> None:
    @app.post("/v1/search", responses=_RESPONSES)
    async def search(asked: SearchRequest, request: Request) -> replies.SearchReply:
        """The passages that match a question best, before any reranking."""
        async with _work(service, request, asked.timeout_s) as config:
            pipeline = service.searching(allowed(_caller(request), asked.filter), asked.k)
            documents = await pipeline.ainvoke(asked.query, config)
            return replies.SearchReply(query=asked.query, hits=[replies.hit(document) for document in documents])

    @app.post("/v1/ground", responses=_RESPONSES)
    async def ground(asked: GroundRequest, request: Request) -> replies.GroundReply:
        """Numbered, cited, budgeted context for a prompt."""
        async with _work(service, request, asked.timeout_s) as config:
            pipeline = service.grounding(allowed(_caller(request), asked.filter), asked.k)
            context = await pipeline.aground(asked.query, max_tokens=asked.max_tokens, config=config)
            return replies.grounded(context, explain=asked.explain, restricted=_caller(request).filter is not None)

    @app.post("/v1/ask", responses=_EVENTS, response_model=replies.AskReply)
    async def ask(asked: AskRequest, request: Request) -> Any:
        """An answer with citations: written by the service's model if it has one, else the best sentences themselves."""
        if asked.stream:
            deadline = Deadline.of(request, asked.timeout_s, service.limits)
            restricted = _caller(request).filter is not None
            events = _events(service, asked, allowed(_caller(request), asked.filter), request)
            return EventStream(events, deadline, lambda error: problem_of(error, restricted=restricted))
        async with _work(service, request, asked.timeout_s) as config:
            filter = allowed(_caller(request), asked.filter)
            async with aclosing(answering(service, asked, filter, config)) as pieces:
                *_, answer = [piece async for piece in pieces]
            return replies.answered(cast(Answer, answer))


def _add_rerank(app: APIRouter, service: Service, reranker: Asking) -> None:
    async def rerank(asked: RerankRequest, request: Request, version: str, returned: bool) -> replies.RerankReply:
        if asked.model is not None and asked.model not in reranker.names:
            raise Problem(422, f"model: this service has {', '.join(reranker.names)}", "model")
        async with _work(service, request, asked.timeout_s) as config:
            documents = _documents(asked.documents)
            ranked = await reranker(asked.query, documents, config)
            tokens = await asyncio.to_thread(_count, asked.query, documents)
            results = [_reranked(document, asked.documents if returned else None) for document in ranked[: asked.top_n]]
        return replies.RerankReply(
            id=request.state.request_id,
            model=asked.model or reranker.names[0],
            results=results,
            usage=replies.Usage(prompt_tokens=tokens, total_tokens=tokens),
            meta=replies.Meta(api_version=replies.ApiVersion(version=version)),
        )

    @app.post("/v1/rerank", responses=_RESPONSES, response_model_exclude_none=True)
    async def rerank_v1(asked: RerankRequest, request: Request) -> replies.RerankReply:
        """Documents in the order of their relevance, as Jina's clients and Cohere's of version 1 ask for it."""
        return await rerank(asked, request, "1", asked.return_documents is not False)

    @app.post("/v2/rerank", responses=_RESPONSES, response_model_exclude_none=True)
    async def rerank_v2(asked: RerankRequest, request: Request) -> replies.RerankReply:
        """The same, as Cohere's clients of version 2 ask for it."""
        return await rerank(asked, request, "2", asked.return_documents is True)


def _add_prune(app: APIRouter, service: Service, pruner: Asking) -> None:
    @app.post("/v1/prune", responses=_RESPONSES)
    async def prune(asked: PruneRequest, request: Request) -> replies.PruneReply:
        """Documents shortened to the sentences that help to answer, as exact slices."""
        async with _work(service, request, asked.timeout_s) as config:
            documents = await pruner(asked.query, _documents(asked.documents), config)
            return replies.PruneReply(results=[replies.pruned(document) for document in documents])


@asynccontextmanager
async def _work(service: Service, request: Request, timeout_s: float | None) -> AsyncIterator[RunnableConfig]:
    """Within its deadline, what a request costs: its config has the callbacks; every error becomes a `Problem`."""
    watch = StageWatch(service.metrics, request.state.trace)
    try:
        async with Deadline.of(request, timeout_s, service.limits).enforced():
            yield RunnableConfig(callbacks=[watch])
    except Exception as error:
        raise problem_of(error, restricted=_caller(request).filter is not None) from error
    finally:
        watch.close()


async def _events(service: Service, asked: AskRequest, filter: Filter | None, request: Request) -> AsyncGenerator[Event, None]:
    watch = StageWatch(service.metrics, request.state.trace)
    try:
        async with aclosing(answering(service, asked, filter, RunnableConfig(callbacks=[watch]))) as pieces:
            async for piece in pieces:
                match piece:
                    case GroundedContext():
                        yield Event("sources", replies.Sources(passages=replies.passages(piece)).model_dump(mode="json"))
                    case Answer():
                        yield Event("answer", replies.answered(piece).model_dump(mode="json"))
                    case _:
                        yield Event("token", {"text": piece})
    finally:
        watch.close()


def _caller(request: Request) -> Key:
    return cast(Key, request.state.caller)


def _documents(given: list[str | TextDocument]) -> list[Document]:
    """Documents whose id is their place."""
    return [
        Document(id=str(n), page_content=one)
        if isinstance(one, str)
        else Document(id=str(n), page_content=one.text, metadata={"title": one.title} if one.title else {})
        for n, one in enumerate(given)
    ]


def _reranked(document: Document, given: list[str | TextDocument] | None) -> replies.Reranked:
    index, score = int(str(document.id)), score_of(document)
    if score is None:
        raise Problem(503, "the reranker gave no scores; try again", headers={"Retry-After": "1"})
    return replies.Reranked(index=index, relevance_score=score, document=None if given is None else _shown(given[index]))


def _shown(given: str | TextDocument) -> dict[str, Any]:
    """As it was sent; a text alone becomes an object."""
    return {"text": given} if isinstance(given, str) else given.model_dump(exclude_unset=True)


def _count(query: str, documents: list[Document]) -> int:
    """A reranker reads the question with each document."""
    question, *texts = count_tokens(RegexTokenizer(), [query, *(document.page_content for document in documents)])
    return question * len(documents) + sum(texts)


async def _invalid(request: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    if first["type"] == "json_invalid":
        return _answer(Problem(400, f"the body is no JSON: {first['ctx']['error']}"))
    path = [str(part) for part in first["loc"] if part not in ("body", AS_TEXT, AS_OBJECT)]
    field, what = ".".join(path)[:_FIELD_CHARS] or "body", first["msg"].removeprefix("Value error, ")
    if first["type"] in ("missing", "model_attributes_type") and not path:
        if not _JSON.fullmatch(request.headers.get("content-type", "")):
            return _answer(Problem(415, "send JSON, and the header `Content-Type: application/json`", "Content-Type"))
        what = "must be a JSON object, as /openapi.json describes it"
    return _answer(Problem(422, f"{field}: {what}", field))


async def _http(_: Request, error: Exception) -> Response:
    known = cast(HTTPException, error)
    messages = {
        400: "the body cannot be read as JSON: it is not in UTF-8, has too many levels, or a number is too long",
        404: "there is no such endpoint; /openapi.json lists all",
        405: f"this endpoint takes {(known.headers or {}).get('Allow', 'another method')}",
    }
    return _answer(Problem(known.status_code, messages.get(known.status_code, str(known.detail)), headers=known.headers))


async def _problem(_: Request, error: Exception) -> Response:
    return _answer(cast(Problem, error))


async def _unexpected(request: Request, error: Exception) -> Response:
    return _answer(problem_of(error, restricted=True))


def _answer(problem: Problem) -> Response:
    return JSONResponse(problem.body, problem.status, problem.headers)
