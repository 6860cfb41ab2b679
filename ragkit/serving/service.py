"""What all requests share: the store, the pipeline with its batchers, and the care that both are up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig

from ragkit.chains.answerer import GroundedAnswerer
from ragkit.chains.confidence import calibration_for
from ragkit.chains.pipeline import Pipeline
from ragkit.compressor import Compressor, CompressorInput, Outcome
from ragkit.corpus.filters import Filter, both
from ragkit.errors import RagkitError
from ragkit.pruners.base import Pruner
from ragkit.rerankers.base import Reranker
from ragkit.rerankers.behind import BehindReranker
from ragkit.rerankers.blend import BlendReranker
from ragkit.rerankers.boosts import BoostReranker
from ragkit.serving.batcher import Batcher
from ragkit.serving.joined import JoinedPipeline, StageBatcher, runs_in_threads, stage_work, submit_all, tokens_of
from ragkit.serving.keys import Key, read_keys
from ragkit.serving.limits import Limits
from ragkit.serving.memory import give_back_now_and_then
from ragkit.serving.metrics import Metrics
from ragkit.serving.opening import open_pipeline
from ragkit.store.base import BaseStore

_log = logging.getLogger(__name__)
_LIGHT = 1 / 64  # of a full batch: a device that pays for larger batches is one on which small ones are mostly overhead
_Ask = Callable[[Sequence[CompressorInput], Sequence[RunnableConfig]], Awaitable[list[Outcome | Exception]]]


class Asking(NamedTuple):
    """A stage that callers may ask by itself, and what it is called."""

    names: tuple[str, ...]
    ask: _Ask

    async def __call__(self, query: str, documents: Sequence[Document], config: RunnableConfig) -> list[Document]:
        """The documents as the stage leaves them."""
        [outcome] = await self.ask([CompressorInput(query=query, documents=documents)], [config])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome.documents


class Service:
    """A pipeline that many callers share. Made before the event loop runs, used within one."""

    def __init__(
        self,
        open_: Callable[[Callable[[Any], Batcher[str, Any]]], tuple[BaseStore, JoinedPipeline]],
        *,
        limits: Limits,
        metrics: Metrics,
        llm: Any = None,
        keys: Path | None = None,
        aliases: Sequence[str] = (),
    ) -> None:
        """Use `Service.open`; `open_` makes store and pipeline, given what makes a batcher of an encoder's work."""
        self.limits, self.metrics, self._keys_file = limits, metrics, keys
        self._batchers: list[Batcher[Any, Any]] = []
        self.store, pipeline = open_(partial(self._batcher, "encoder", weigh=lambda text: len(text) // 4 + 1))
        batchers = [self._of_stage(stage) for stage in pipeline.stages]
        self.pipeline = pipeline.model_copy(update={"batchers": batchers, "name": pipeline.name or "Pipeline"})
        self.calibration = calibration_for(pipeline)
        self.answerer = None if llm is None else GroundedAnswerer(pipeline=self.pipeline, llm=llm, calibration=self.calibration)
        self.reranker, self.pruner = self._reranker(aliases), self._pruner()
        self.ready = False
        self.keys = self._read_keys()
        self._keys_seen: tuple[int, int] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def open(
        cls,
        place: str | Path | None,
        *,
        config: str | Path | None = None,
        encoder: str | None = None,
        llm: Any = None,
        keys: str | Path | None = None,
        aliases: Sequence[str] = (),
        limits: Limits | None = None,
        metrics: Metrics | None = None,
    ) -> Self:
        """A service over an index, with the pipeline of a YAML file or else ragkit's default one.

        `llm` is a chat model, which then writes the answers. `keys` is a file of keys; None lets everybody ask. `aliases` are
        more names that the reranker goes by. Raises `InputError` or `StoreError` for what cannot be opened.
        """
        return cls(
            lambda batcher: open_pipeline(place, config, encoder, batcher),
            limits=limits or Limits(),
            metrics=metrics or Metrics(),
            llm=llm,
            keys=None if keys is None else Path(keys),
            aliases=aliases,
        )

    def searching(self, filter: Filter | None, k: int) -> Pipeline:
        """The retriever alone, within a filter."""
        own = both(self.pipeline.filter, filter)
        return Pipeline(retriever=self.pipeline.retriever, k=k, filter=None if own is None else dict(own))

    def grounding(self, filter: Filter | None, k: int | None) -> JoinedPipeline:
        """The whole pipeline, within a filter."""
        own = both(self.pipeline.filter, filter)
        return self.pipeline.model_copy(update={"filter": own, "k": self.pipeline.k if k is None else k})

    async def start(self) -> None:
        """Load the models, and from now on look whether index and keys have changed, and give back memory."""
        self._tasks = [asyncio.create_task(self._care()), asyncio.create_task(give_back_now_and_then())]

    async def stop(self) -> None:
        """Finish what the models are at, and close the store."""
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(batcher.close(self.limits.drain_s) for batcher in self._batchers))
        self.store.close()

    async def refresh(self) -> None:
        """Take up what has changed of the index and the keys; what cannot be is logged, and the old one stays."""
        self._look_at_keys()
        try:
            moved = await asyncio.to_thread(self.store.refresh)
            if moved:
                await asyncio.to_thread(self._warm)
            self.metrics.index(await asyncio.to_thread(len, self.store), moved=moved)
        except (RagkitError, OSError) as error:
            _log.warning("the index cannot be brought up to date: %s", error)
        except Exception as error:
            _log.error("the index cannot be brought up to date", exc_info=error)

    def _look_at_keys(self) -> None:
        """On its own: a key that has been withdrawn must not go on because the index or a model is in trouble."""
        try:
            if (stamp := self._keys_stamp()) != self._keys_seen:
                self.keys, self._keys_seen = self._read_keys(), stamp
        except (RagkitError, OSError) as error:
            _log.warning("the keys stay as they were: %s", error)
        except Exception as error:
            _log.error("the keys stay as they were", exc_info=error)

    async def _care(self) -> None:
        while not self.ready:
            try:
                await asyncio.to_thread(self._warm)
                self.ready = True
            except Exception as error:
                _log.error("not ready", exc_info=error)
                await asyncio.sleep(self.limits.refresh_s)
                self._look_at_keys()
        while True:
            await self.refresh()
            await asyncio.sleep(self.limits.refresh_s)

    def _warm(self) -> None:
        """So that no caller waits for a model or an index that is loaded by its first use."""
        self.searching(None, 1).invoke("warm up")
        document = Document(id="0", page_content="Warm up. It is cold.")
        for stage, batcher in zip(self.pipeline.stages, self.pipeline.batchers, strict=True):
            if batcher is not None:
                stage.compress_documents([document], "warm up")

    def _read_keys(self) -> tuple[Key, ...] | None:
        return None if self._keys_file is None else read_keys(self._keys_file)

    def _keys_stamp(self) -> tuple[int, int] | None:
        if self._keys_file is None:
            return None
        status = self._keys_file.stat()
        return status.st_mtime_ns, status.st_ino

    def _batcher(self, model: str, work: Any, weigh: Any) -> Batcher[Any, Any]:
        batcher: Batcher[Any, Any] = Batcher(
            work,
            most_items=self.limits.batch_items,
            most_weight=self.limits.batch_tokens,
            most_waiting=self.limits.waiting,
            longest_wait=self.limits.batch_wait_s,
            light=self.limits.batch_tokens * _LIGHT,
            weigh=weigh,
            told=self.metrics.batches(model),
            refused=self.metrics.refusals(model),
        )
        self.metrics.watch(model, batcher)
        self._batchers.append(batcher)
        return batcher

    def _of_stage(self, stage: Any) -> StageBatcher | None:
        if not runs_in_threads(stage) or isinstance(stage, BlendReranker | BoostReranker):
            return None  # arithmetic on scores takes no longer for being asked one by one
        return self._batcher(stage.get_name(), stage_work(stage), tokens_of)

    def _reranker(self, aliases: Sequence[str]) -> Asking | None:
        """The first stage that reads text to score it; it returns every document."""
        for stage, batcher in zip(self.pipeline.stages, self.pipeline.batchers, strict=True):
            if isinstance(stage, Reranker) and not isinstance(stage, BlendReranker | BoostReranker | BehindReranker):
                names = ("ragkit", _name(stage), *aliases)
                return Asking(names, self._ask(stage, {"top_k": None}, batcher))
        return None

    def _pruner(self) -> Asking | None:
        """The first pruner; every document comes back, in its place."""
        for stage in self.pipeline.stages:
            if isinstance(stage, Pruner):
                wanted = {"top_k": None, "reorder": False, "drop_empty": False}
                return Asking(("ragkit",), self._ask(stage, wanted, None))
        return None

    def _ask(self, stage: Compressor, wanted: dict[str, Any], batcher: StageBatcher | None) -> _Ask:
        changes = {name: value for name, value in wanted.items() if name in type(stage).model_fields}
        if any(getattr(stage, name) != value for name, value in changes.items()):
            stage, batcher = stage.model_copy(update=changes), None
        if batcher is None:
            if not runs_in_threads(stage):
                return partial(_directly, stage)
            batcher = self._batcher(f"{stage.get_name()} by itself", stage_work(stage), tokens_of)
        return partial(submit_all, batcher)


async def _directly(
    stage: Compressor, inputs: Sequence[CompressorInput], configs: Sequence[RunnableConfig]
) -> list[Outcome | Exception]:
    return await stage.aoutcomes(inputs, list(configs), return_exceptions=True)


def _name(stage: Reranker) -> str:
    """The last part of the model's name: the rest may be a path of this machine."""
    model = getattr(stage, "model", None)
    if isinstance(model, str | Path):
        return Path(model).name
    return "provence-minilm" if model is None else stage.get_name()
