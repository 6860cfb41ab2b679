"""An encoder and a pipeline whose models see the questions of several callers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from langchain_core.runnables import RunnableConfig

from ragkit.chains.pipeline import Pipeline
from ragkit.compressor import Compressor, CompressorInput, Outcome
from ragkit.corpus.filters import Filter
from ragkit.encoders.base import Encoder, Vectors
from ragkit.encoders.over import EncoderOver
from ragkit.serving.batcher import Batcher
from ragkit.serving.deadline import current

_CHARS = 4  # of a token, about


class JoinedEncoder(EncoderOver):
    """An `Encoder` whose async calls go through a batcher, question by question; all else is the encoder's own."""

    def __init__(self, encoder: Encoder, batcher: Callable[[Callable[[list[str]], Vectors]], Batcher[str, Any]]) -> None:
        """`batcher` makes a batcher of the encoder's work."""
        self._encoder = encoder
        self._batcher = batcher(encoder.encode_queries)

    @property
    def encoder(self) -> Encoder:
        """See `EncoderOver.encoder`."""
        return self._encoder

    async def aencode_queries(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.aencode_queries`; raises what `Batcher.submit` does."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return np.stack(await asyncio.gather(*(self._batcher.submit(text, current()) for text in texts)))


class Asked(NamedTuple):
    """What a stage is asked for one question, with the question's callbacks."""

    input: CompressorInput
    config: RunnableConfig


StageBatcher = Batcher[Asked, Outcome]


def stage_work(stage: Compressor) -> Callable[[list[Asked]], Sequence[Outcome | Exception]]:
    """A stage as the work of a batcher. Raises what fails the stage as a whole."""

    def work(asked: list[Asked]) -> Sequence[Outcome | Exception]:
        results = stage.outcomes([one.input for one in asked], [one.config for one in asked], return_exceptions=True)
        # what the stage raises is returned for every question, the very same exception
        if isinstance(results[0], Exception) and all(result is results[0] for result in results):
            raise results[0]
        return results

    return work


def tokens_of(asked: Asked) -> int:
    """About how many tokens a model has to read for one question."""
    query, documents = asked.input["query"], asked.input["documents"]
    return sum(len(query) + len(document.page_content) for document in documents) // _CHARS + 1


async def submit_all(
    batcher: StageBatcher, inputs: Sequence[CompressorInput], configs: Sequence[RunnableConfig]
) -> list[Outcome | Exception]:
    """The outcomes of a stage, or the exceptions in their place."""
    asked = [batcher.submit(Asked(*one), current()) for one in zip(inputs, configs, strict=True)]
    results: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
    return results


class JoinedPipeline(Pipeline):
    """A pipeline whose async calls send what its stages are asked through their batchers."""

    batchers: list[Any] = []
    """For each stage its `StageBatcher`, or None for one that is asked directly."""

    def _steps(self, k: int, filter: Filter | None) -> list[Any]:
        retrieval, *steps = super()._steps(k, filter)
        return [
            retrieval,
            *(
                step if batcher is None else step._replace(arun=partial(submit_all, batcher))
                for step, batcher in zip(steps, self.batchers or [None] * len(steps), strict=True)
            ),
        ]


def runs_in_threads(stage: Any) -> bool:
    """Whether a stage computes, so that batches pay: one with an async form of its own waits for others, and does so at once."""
    return isinstance(stage, Compressor) and type(stage).aprocess is Compressor.aprocess
