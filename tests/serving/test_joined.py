"""Many callers through one encoder and one pipeline: the same answers as each alone, in fewer passes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from ragkit import ExtractivePruner, HybridRetriever, InputError, Pipeline, Store
from ragkit.compressor import Compressor
from ragkit.rerankers.blend import BlendReranker
from ragkit.serving.batcher import Batcher
from ragkit.serving.joined import JoinedEncoder, runs_in_threads
from ragkit.serving.limits import Limits
from ragkit.store.store import bm25_and_dense
from tests.serving.conftest import DOCUMENTS, OverlapReranker

pytest.importorskip("prometheus_client", reason="needs ragkit[serve]")

QUESTIONS = [
    f"{verb} {noun} {n}?"
    for n, (verb, noun) in enumerate(
        (verb, noun) for verb in ("Which swim in", "What float on", "Who eat") for noun in ("rivers", "water", "fish", "boats")
    )
]


async def test_an_encoder_is_asked_together(make_encoder: Any) -> None:
    encoder, gate = make_encoder(), threading.Event()
    asked: list[list[str]] = []
    entered = threading.Event()

    def work(texts: list[str]) -> Any:
        asked.append(texts)
        entered.set()
        assert gate.wait(20)
        return encoder.encode_queries(texts)

    joined = JoinedEncoder(encoder, lambda _: Batcher(work, most_items=64, most_waiting=64))
    first = asyncio.create_task(joined.aencode_queries(["zero"]))
    assert await asyncio.to_thread(entered.wait, 20)
    others = [asyncio.create_task(joined.aencode_queries(texts)) for texts in (["one"], ["two", "three"], [])]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.set()
    found = await asyncio.gather(first, *others)
    for vectors, texts in zip(found, (["zero"], ["one"], ["two", "three"], []), strict=True):
        np.testing.assert_array_equal(vectors, encoder.encode_queries(texts))
    assert asked == [["zero"], ["one", "two", "three"]]
    np.testing.assert_array_equal(joined.encode_documents(["a b"]), encoder.encode_documents(["a b"]))
    assert (joined.dimension, joined.fingerprint, joined.tokenizer) == (
        encoder.dimension,
        encoder.fingerprint,
        encoder.tokenizer,
    )


def test_a_joined_pipeline_answers_as_a_plain_one(make_service: Any, make_encoder: Any) -> None:
    """Side by side, each within its own filter, against one after the other through an ordinary pipeline."""
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert(DOCUMENTS)
    plain = Pipeline(
        retriever=HybridRetriever(store=store, k=20), stages=[OverlapReranker(), ExtractivePruner(scorer="bm25")], k=3
    )
    filters = [None, {"tenant": "a"}, {"tenant": "b"}]
    service = make_service(k=3)

    async def together() -> list[Any]:
        tasks = [service.grounding(filter, None).aground(question) for question in QUESTIONS for filter in filters]
        return await asyncio.gather(*tasks)

    found = asyncio.run(together())
    expected = [plain.ground(question, filter=filter) for question in QUESTIONS for filter in filters]
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.citations for one in found] == [one.citations for one in expected]
    assert [[stage.stage for stage in one.trace] for one in found] == [[stage.stage for stage in one.trace] for one in expected]
    batches = service.pipeline.stages[0].batches
    assert sorted(question for batch in batches for question in batch) == sorted([*QUESTIONS] * 3)


def test_what_waits_for_others_is_not_put_in_a_queue() -> None:
    class Async(Compressor):
        def process(self, tasks: Any) -> Any:
            return []

        async def aprocess(self, tasks: Any) -> Any:
            return []

    assert runs_in_threads(OverlapReranker())
    assert runs_in_threads(BlendReranker())
    assert not runs_in_threads(Async())
    assert not runs_in_threads(Document(page_content="x"))


@pytest.mark.parametrize("field", ["body_bytes", "in_flight", "waiting", "batch_items", "timeout_s", "drain_s"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(InputError, match=field):
        Limits(**{field: 0})
    with pytest.raises(InputError, match="batch_wait_s"):
        Limits(batch_wait_s=-1)
