"""An answer as it comes about: its sources, its words, and the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig

from ragkit.chains.answer import Answer, extractive_answer
from ragkit.chains.context import GroundedContext
from ragkit.corpus.filters import Filter
from ragkit.serving.schemas import AskRequest
from ragkit.serving.service import Service

_AHEAD = 64
"""Pieces that a model may be ahead of who reads them."""


async def answering(
    service: Service, asked: AskRequest, filter: Filter | None, config: RunnableConfig
) -> AsyncGenerator[GroundedContext | str | Answer, None]:
    """The context, pieces of the answer's text as they become certain, and at last the answer.

    Closing this stops the model.
    """
    pipeline = service.grounding(filter, asked.k)
    if service.answerer is None:
        context = await pipeline.aground(asked.query, max_tokens=asked.max_tokens, config=config)
        yield context
        answer = await asyncio.to_thread(
            extractive_answer, context, calibration=service.calibration, abstain_below=asked.abstain_below
        )
        yield answer.text
        yield answer
        return
    answerer = service.answerer.model_copy(
        update={"pipeline": pipeline, "max_tokens": asked.max_tokens, "abstain_below": asked.abstain_below}
    )
    queue = asyncio.Queue[Any](_AHEAD)
    callbacks = [*(config.get("callbacks") or []), _Context(queue.put_nowait)]  # type: ignore[misc]

    async def write() -> None:
        try:
            async for piece in answerer.astream(asked.query, {**config, "callbacks": callbacks}):
                await queue.put(piece)
        except Exception as error:
            await queue.put(error)

    writer = asyncio.create_task(write())
    try:
        while True:
            piece = await queue.get()
            if isinstance(piece, Exception):
                raise piece
            yield piece
            if isinstance(piece, Answer):
                return
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


class _Context(BaseCallbackHandler):
    """Hands on the context, which is what the run of `ground` returns."""

    run_inline = True

    def __init__(self, tell: Callable[[GroundedContext], None]) -> None:
        self._tell = tell

    def on_chain_end(self, outputs: Any, **more: Any) -> None:
        """A run has ended."""
        if isinstance(outputs, GroundedContext):
            self._tell(outputs)
