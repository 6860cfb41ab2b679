"""What LangChain's callbacks say of a request's stages, as spans and timings."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from ragkit.serving.metrics import Metrics
from ragkit.serving.tracing import Request


class StageWatch(BaseCallbackHandler):
    """One per request; its methods may be called from several threads."""

    run_inline = True  # it never waits, and a thread for each call would cost more than the call

    def __init__(self, metrics: Metrics, request: Request) -> None:
        self._metrics, self._request = metrics, request
        self._open: dict[UUID, tuple[str, float, Any]] = {}
        self._lock = Lock()

    def _begin(self, name: str, run_id: UUID, parent_run_id: UUID | None) -> None:
        with self._lock:
            above = self._open.get(parent_run_id) if parent_run_id else None
            self._open[run_id] = (name, time.perf_counter(), self._request.begin(name, above[2] if above else None))

    def _end(self, run_id: UUID, error: BaseException | None = None) -> None:
        with self._lock:
            known = self._open.pop(run_id, None)
        if known is not None:
            name, started, span = known
            self._metrics.stage(name, time.perf_counter() - started)
            self._request.end(span, error)

    def close(self) -> None:
        """The request is over: what has not ended by now, because it was cancelled, ends."""
        for run_id in [*self._open]:
            self._end(run_id)

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **more: Any
    ) -> None:
        """A pipeline or one of its stages begins."""
        self._begin(more.get("name") or "chain", run_id, parent_run_id)

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **more: Any
    ) -> None:
        """A retriever begins."""
        self._begin(more.get("name") or "retriever", run_id, parent_run_id)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **more: Any
    ) -> None:
        """A chat model is asked."""
        self._begin(more.get("name") or "model", run_id, parent_run_id)

    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **more: Any
    ) -> None:
        """Another model is asked."""
        self._begin(more.get("name") or "model", run_id, parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **more: Any) -> None:
        """It has ended."""
        self._end(run_id)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **more: Any) -> None:
        """It has ended."""
        self._end(run_id)

    def on_llm_end(self, response: Any, *, run_id: UUID, **more: Any) -> None:
        """It has answered."""
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        """It has failed."""
        self._end(run_id, error)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        """It has failed."""
        self._end(run_id, error)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        """It has failed."""
        self._end(run_id, error)
