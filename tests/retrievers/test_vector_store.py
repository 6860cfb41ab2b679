"""LangChain's stores and retrievers as a first stage, and fusion by id."""

import asyncio
import gc
import threading
from typing import Any

import numpy as np
import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError

from ragkit import BM25Retriever, ExtractivePruner, InputError, Pipeline, provenance
from ragkit.documents.provenance import ensure_id
from ragkit.encoders.langchain import EncoderEmbeddings
from ragkit.retrievers.fused import FusedRetriever
from ragkit.retrievers.vector_store import VectorStoreRetriever, WrappedRetriever

TEXTS = ["the cat sat on the mat", "dogs bark at the cat", "a fish swims", "cat and dog and fish", "nothing here", "the end"]
DOCUMENTS = [Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)]


class FakeStore(VectorStore):
    """Gives a fixed list, cut to k, with distances; counts how many searches are under way at once, in the event loop."""

    def __init__(self, found: list[tuple[Document, float]]) -> None:
        self.found, self.asked = found, list[dict[str, Any]]()
        self.running = self.peak = 0
        self.threads: set[int] = set()

    @classmethod
    def from_texts(cls, texts: Any, embedding: Any, metadatas: Any = None, **kwargs: Any) -> "FakeStore":
        raise NotImplementedError

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        if query == "fail":
            raise ConnectionError("the store is down")
        self.asked.append({"k": k, **kwargs})
        return self.found[:k]

    async def asimilarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.threads.add(threading.get_ident())
        await asyncio.sleep(0.01)
        self.running -= 1
        return self.similarity_search_with_score(query, k, **kwargs)


class Fixed(BaseRetriever):
    """A retriever of somebody else: no k, no filter, no scores."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.documents


@pytest.fixture
def embeddings(make_encoder: Any) -> Embeddings:
    return EncoderEmbeddings(make_encoder())


@pytest.fixture
def memory(embeddings: Any) -> InMemoryVectorStore:
    store = InMemoryVectorStore(embeddings)
    store.add_documents(DOCUMENTS)
    return store


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


async def test_scores_ids_and_metadata_are_the_stores(memory: InMemoryVectorStore) -> None:
    retriever = VectorStoreRetriever(store=memory, scores="similarity", k=3)
    expected = memory.similarity_search_with_score("cat and dog", k=3)
    for found in (retriever.invoke("cat and dog"), await retriever.ainvoke("cat and dog")):
        assert ids(found) == [d.id for d, _ in expected]
        assert [d.metadata["relevance_score"] for d in found] == [score for _, score in expected]
        assert [provenance(d).stages for d in found] == [(("vector-store", s, n),) for n, (_, s) in enumerate(expected, 1)]
        assert [d.metadata["n"] for d in found] == [d.metadata["n"] for d, _ in expected]
    assert len(retriever.invoke("cat", k=5)) == 5
    assert "ragkit" not in memory.store["0"]["metadata"]
    unscored = VectorStoreRetriever(store=memory, scores=None, k=3, name="mine").invoke("cat and dog")
    assert ids(unscored) == [d.id for d, _ in expected]
    assert "relevance_score" not in unscored[0].metadata
    assert provenance(unscored[0]).stages == (("mine", None, 1),)


async def test_filters_pass_in_the_stores_own_form(memory: InMemoryVectorStore) -> None:
    def even(document: Document) -> bool:
        return bool(document.metadata["n"] % 2 == 0)

    plain = VectorStoreRetriever(store=memory, scores="similarity", k=2)
    in_constructor = VectorStoreRetriever(store=memory, scores="similarity", k=2, filter=even)
    in_kwargs = VectorStoreRetriever(store=memory, scores="similarity", k=2, search_kwargs={"filter": even})
    expected = [d.id for d in memory.similarity_search("cat", k=2, filter=even)]
    assert len(expected) == 2
    for found in (
        plain.invoke("cat", filter=even),
        await plain.ainvoke("cat", filter=even),
        plain.batch(["cat"], filter=even)[0],
        in_constructor.invoke("cat"),
        in_kwargs.invoke("cat"),
        Pipeline(retriever=plain, k=2).invoke("cat", filter=even),
    ):
        assert ids(found) == expected
    with pytest.raises(InputError, match=r"^filter: "):
        in_constructor.invoke("cat", filter=even)
    fake = FakeStore([(DOCUMENTS[0], 0.1)])
    VectorStoreRetriever(store=fake, scores="distance", filter_argument="expr", filter="n > 1", search_kwargs={"ef": 9}).invoke(
        "a"
    )
    assert fake.asked == [{"k": 10, "expr": "n > 1", "ef": 9}]


async def test_distances_become_scores_and_a_wrong_convention_is_noticed() -> None:
    store = FakeStore([(DOCUMENTS[0], 0.1), (DOCUMENTS[1], 0.5)])
    found = VectorStoreRetriever(store=store, scores="distance").invoke("q")
    assert [d.metadata["relevance_score"] for d in found] == [-0.1, -0.5]
    with pytest.raises(InputError, match="scores='distance'"):
        VectorStoreRetriever(store=store, scores="similarity").invoke("q")
    with pytest.raises(InputError, match="scores='similarity'"):
        await VectorStoreRetriever(store=FakeStore(store.found[::-1]), scores="distance").ainvoke("q")
    with pytest.raises(ValidationError, match="scores"):
        VectorStoreRetriever(store=store)


def test_ids_by_content_where_the_store_has_none() -> None:
    bare = [Document(page_content=text, metadata={"n": 1}) for text in ("a", "b")]
    found = VectorStoreRetriever(store=FakeStore([(d, 1.0) for d in bare]), scores="distance").invoke("q")
    assert ids(found) == [ensure_id(d).id for d in bare]
    assert all(d.id is None for d in bare)


async def test_async_batches_run_in_the_loop_and_at_once() -> None:
    store = FakeStore([(d, float(n)) for n, d in enumerate(DOCUMENTS)])
    retriever = VectorStoreRetriever(store=store, scores="distance", k=2, max_concurrency=3)
    answers = await retriever.abatch(["a", "fail", "", *"bcdef"], return_exceptions=True)
    assert isinstance(answers[1], ConnectionError)
    assert answers[2] == []
    assert [ids(a) for a in answers[3:]] == [["0", "1"]] * 5
    assert store.peak == 3
    assert store.threads == {threading.get_ident()}
    again = retriever.batch(["a", "fail", "", *"bcdef"], return_exceptions=True)
    assert [a if isinstance(a, Exception) else ids(a) for a in again][2:] == [ids(a) for a in answers[2:]]
    assert isinstance(again[1], ConnectionError)


def test_in_a_pipeline_with_grounding(memory: InMemoryVectorStore, make_encoder: Any) -> None:
    pipeline = VectorStoreRetriever(store=memory, scores="similarity", k=4) >> ExtractivePruner(encoder=make_encoder())
    context = pipeline.ground("where does the cat sit", k=2)
    assert context.passages
    assert context.trace[0].results[0].score is not None


async def test_any_retriever(memory: InMemoryVectorStore) -> None:
    scored = DOCUMENTS[1].model_copy(update={"metadata": {"relevance_score": 0.7}})
    wrapped = WrappedRetriever(retriever=Fixed(documents=[scored, *DOCUMENTS[2:]]), k=2)
    for found in (wrapped.invoke("q"), await wrapped.ainvoke("q")):
        assert ids(found) == ["1", "2"]
        assert [provenance(d).stages for d in found] == [(("Fixed", 0.7, 1),), (("Fixed", None, 2),)]
    with pytest.raises(InputError, match=r"^filter: Fixed takes none"):
        wrapped.invoke("q", filter={"n": 1})
    with pytest.raises(ValidationError, match="filter: Fixed takes none"):
        WrappedRetriever(retriever=Fixed(documents=[]), filter={"n": 1})
    many = WrappedRetriever(retriever=memory.as_retriever(search_kwargs={"k": 6}), k=5, search_kwargs={"filter": lambda d: True})
    assert len(many.invoke("cat")) == 5


def rrf(lists: list[list[str]], k: int) -> list[tuple[str, float]]:
    scores: dict[str, float] = {}
    for found in lists:
        for rank, id_ in enumerate(dict.fromkeys(found), 1):
            scores[id_] = scores.get(id_, 0) + 1 / (60 + rank)
    return sorted(scores.items(), key=lambda item: -item[1])[:k]


async def test_fusion_by_id(memory: InMemoryVectorStore) -> None:
    bm25 = BM25Retriever.from_documents(DOCUMENTS)
    store = VectorStoreRetriever(store=memory, scores="similarity")
    theirs = Fixed(documents=[DOCUMENTS[3], DOCUMENTS[3], DOCUMENTS[0]])
    fused = FusedRetriever(retrievers=[bm25, store, theirs], k=4)
    for query in ("cat", "fish swims", "the mat"):
        lists = [[str(d.id) for d in r.invoke(query, k=100)] for r in (bm25, store)] + [["3", "3", "0"]]
        expected = rrf(lists, 4)
        for found in (fused.invoke(query), (await fused.abatch([query]))[0]):
            assert [d.metadata["relevance_score"] for d in found] == pytest.approx([score for _, score in expected])
            assert dict(expected).keys() >= {
                i for i, s in zip(ids(found), [s for _, s in expected], strict=True) if s > expected[-1][1]
            }
    [best] = fused.invoke("cat and fish", k=1)
    assert [stage.stage for stage in provenance(best).stages] == ["bm25", "vector-store", "Fixed", "fused"]


def test_convex_fusion_needs_scores(memory: InMemoryVectorStore) -> None:
    bm25 = BM25Retriever.from_documents(DOCUMENTS)
    store = VectorStoreRetriever(store=memory, scores="similarity")
    fused = FusedRetriever(retrievers=[bm25, store], fusion="convex", weights=[1, 3], k=6)
    sides = [{d.id: d.metadata["relevance_score"] for d in r.invoke("cat", k=100)} for r in (bm25, store)]
    expected: dict[str | None, float] = {}
    for side, weight in zip(sides, (0.25, 0.75), strict=True):
        low, high = min(side.values()), max(side.values())
        for id_, score in side.items():
            expected[id_] = expected.get(id_, 0) + weight * ((score - low) / (high - low) if high > low else 1.0)
    found = {d.id: d.metadata["relevance_score"] for d in fused.invoke("cat")}
    assert found == pytest.approx(expected)
    with pytest.raises(InputError, match="without a relevance_score; use fusion='rrf'"):
        FusedRetriever(retrievers=[bm25, Fixed(documents=DOCUMENTS)], fusion="convex").invoke("cat")
    with pytest.raises(InputError, match=r"^filter: Fixed takes none"):
        FusedRetriever(retrievers=[bm25, Fixed(documents=DOCUMENTS)]).invoke("cat", filter={"n": 1})
    for wrong, message in (([1.0], "weights has 1"), ([0.0, 0.0], "not all zero")):
        with pytest.raises(ValidationError, match=message):
            FusedRetriever(retrievers=[bm25, store], weights=wrong)


def test_scores_of_numpy_count_and_those_that_are_not_finite_are_refused() -> None:
    def scored(*scores: Any) -> Fixed:
        return Fixed(
            documents=[Document(id=str(n), page_content="x", metadata={"relevance_score": s}) for n, s in enumerate(scores)]
        )

    wrapped = WrappedRetriever(retriever=scored(np.float32(3), np.float32(1)))
    assert [provenance(d).stages[-1].score for d in wrapped.invoke("q")] == [3.0, 1.0]
    found = FusedRetriever(retrievers=[scored(np.float32(3), np.float32(1))], fusion="convex").invoke("q")
    assert [d.metadata["relevance_score"] for d in found] == [1.0, 0.0]
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="not finite"):
            FusedRetriever(retrievers=[scored(3.0, bad, 1.0)], fusion="convex").invoke("q")


@pytest.mark.filterwarnings("error")
async def test_a_refused_filter_leaves_nothing_unawaited() -> None:
    fused = FusedRetriever(retrievers=[BM25Retriever.from_documents(DOCUMENTS), Fixed(documents=DOCUMENTS)])
    with pytest.raises(InputError, match=r"^filter: Fixed takes none"):
        await fused.ainvoke("cat", filter={"n": 1})
    gc.collect()


def test_a_failure_is_its_questions_alone(memory: InMemoryVectorStore) -> None:
    store = VectorStoreRetriever(store=FakeStore([(DOCUMENTS[0], 0.0)]), scores="distance")
    good, bad, blank = FusedRetriever(retrievers=[BM25Retriever.from_documents(DOCUMENTS), store]).batch(
        ["cat", "fail", ""], return_exceptions=True
    )
    assert ids(good)[0] == "0"
    assert isinstance(bad, ConnectionError)
    assert blank == []


class TestVectorStoreContract(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _memory(self, memory: InMemoryVectorStore) -> None:
        self.memory = memory

    @property
    def retriever_constructor(self) -> type[Any]:
        return VectorStoreRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.memory, "scores": "similarity"}

    @property
    def retriever_query_example(self) -> str:
        return "cat"


class TestWrappedContract(TestVectorStoreContract):
    @property
    def retriever_constructor(self) -> type[Any]:
        return WrappedRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retriever": self.memory.as_retriever(search_kwargs={"k": 6})}


class TestFusedContract(TestVectorStoreContract):
    @property
    def retriever_constructor(self) -> type[Any]:
        return FusedRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retrievers": [self.memory.as_retriever(), WrappedRetriever(retriever=self.memory.as_retriever())]}
