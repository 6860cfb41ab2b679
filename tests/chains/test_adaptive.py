"""A pipeline that widens: for which questions, with what, what the trace says, and what happens when the wider search fails."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from pydantic import ValidationError

from ragkit import BM25Retriever, ExtractivePruner, HybridRetriever, InputError, Store, bm25_and_dense
from ragkit.chains.adaptive import STAGE, WideningPipeline, agreement
from ragkit.chains.answerer import GroundedAnswerer
from ragkit.chains.conversation import Conversation
from ragkit.chains.explain import explain_page
from ragkit.chains.pipeline import Pipeline
from ragkit.chains.signals import signals
from ragkit.documents.provenance import StageResult, provenance, with_stages
from ragkit.retrievers.decomposition import DecompositionRetriever
from ragkit.retrievers.documents import DocumentContextRetriever
from ragkit.retrievers.fused import FusedRetriever
from ragkit.retrievers.multi_hop import MultiHopRetriever
from ragkit.retrievers.restriction import is_restricted, restriction

PASSAGES = {
    "Blue Harbour": "Blue Harbour is a film by the director Ada Kessler.",
    "Ada Kessler": "Ada Kessler grew up in Lund.",
    "Green Harbour": "Green Harbour is a film that was made at sea.",
    "Lund": "Lund is a town in Sweden where many were born.",
    "Tea": "Tea holds caffeine.",
}
HARD, EASY = "Where was the director of the film Blue Harbour born?", "Does tea hold caffeine?"


@pytest.fixture
def store(encoder: Any) -> Store:
    store = Store.memory(bm25_and_dense(encoder))
    store.upsert([Document(id=name, page_content=text, metadata={"title": name}) for name, text in PASSAGES.items()])
    return store


def sure_of_tea(question: str, documents: Sequence[Document]) -> float:
    return 0.9 if "tea" in question.lower() else 0.1


def usage(context: Any) -> dict[str, Any]:
    return dict(context.trace[0].usage)


def ids(documents: Sequence[Any]) -> list[Any]:
    return [document.id for document in documents]


async def test_only_weak_questions_are_searched_for_again(store: Store) -> None:
    first = Pipeline(retriever=BM25Retriever(store=store, k=2), k=2)
    widening = WideningPipeline.of(first, MultiHopRetriever(retriever=first.retriever, k=4), confidence=sure_of_tea, k=3)
    hard, easy, blank = widening.ground_batch([HARD, EASY, " "])
    assert ids(hard.passages) == ids(Pipeline(retriever=widening.wider, k=3).ground(HARD).passages)
    assert ids(easy.passages) == ids(Pipeline(retriever=first.retriever, k=3).ground(EASY).passages)
    assert "Ada Kessler" in ids(hard.passages)
    assert "Ada Kessler" not in ids(first.ground(HARD).passages)
    said = usage(hard)
    assert said.pop("seconds") > 0
    assert said == {"confidence": 0.1, "widened": True, "wider": "MultiHopRetriever", "new": 1}
    assert usage(easy) == {"confidence": 0.9, "widened": False}
    assert (blank.passages, usage(blank)) == ((), {})
    assert [stage.stage for stage in hard.trace] == [STAGE]
    for context, again in zip([hard, easy, blank], await widening.aground_batch([HARD, EASY, " "]), strict=True):
        assert again.passages == context.passages
        assert {k: v for k, v in usage(again).items() if k != "seconds"} == {
            k: v for k, v in usage(context).items() if k != "seconds"
        }
    assert ids(widening.invoke(HARD)) == ids(await widening.ainvoke(HARD)) == ids(hard.passages)


def test_stages_see_what_the_wider_search_found(store: Store, encoder: Any) -> None:
    pruner = ExtractivePruner(encoder=encoder, threshold=0)
    widening = WideningPipeline.of(HybridRetriever(store=store, k=2) >> pruner, below=1.1, k=4)
    assert isinstance(widening.wider, MultiHopRetriever)
    context = widening.ground(HARD)
    assert [stage.stage for stage in context.trace] == [STAGE, "prune"]
    assert context.trace[1].entered == context.trace[0].left == 4
    assert signals(context).agreement is not None
    assert explain_page(context)
    stages = [result.stage for result in provenance(widening.invoke(HARD)[0]).stages]
    assert stages[-3:] == ["multi-hop", STAGE, "prune"]


class Broken(BM25Retriever):
    def rank(self, snapshot: Any, queries: Sequence[str], k: int, filter: Any) -> Any:
        raise ConnectionError("gone")

    async def arank(self, snapshot: Any, queries: Sequence[str], k: int, filter: Any) -> Any:
        raise ConnectionError("gone")


async def test_a_wider_search_that_fails_or_finds_nothing_leaves_the_first(store: Store) -> None:
    first = BM25Retriever(store=store, k=3)
    for wider in (Broken(store=store), BM25Retriever(store=store, filter={"title": "nobody"})):
        widening = WideningPipeline(retriever=first, wider=wider, k=3)
        contexts = [widening.ground(HARD), await widening.aground(HARD)]
        for context in contexts:
            assert ids(context.passages) == ids(Pipeline(retriever=first, k=3).ground(HARD).passages)
            assert usage(context)["widened"] is False
            assert ("ConnectionError: gone" in usage(context).get("failure", "")) == isinstance(wider, Broken)


def test_a_confidence_that_fails_fails_its_question_alone(store: Store) -> None:
    def fails(question: str, documents: Sequence[Document]) -> float:
        if "film" in question:
            raise ZeroDivisionError("no")
        return float("nan")

    widening = WideningPipeline.of(Pipeline(retriever=BM25Retriever(store=store)), confidence=fails)
    hard, easy = widening.ground_batch([HARD, EASY], return_exceptions=True)
    assert isinstance(hard, ZeroDivisionError)
    assert usage(easy)["widened"]


async def test_a_first_search_that_fails_is_not_widened(store: Store) -> None:
    widening = WideningPipeline(retriever=Broken(store=store), wider=BM25Retriever(store=store))
    [failure] = widening.ground_batch([HARD], return_exceptions=True)
    assert isinstance(failure, ConnectionError)
    [failure] = await widening.aground_batch([HARD], return_exceptions=True)
    assert isinstance(failure, ConnectionError)


def test_filters_hold_in_both_searches(store: Store) -> None:
    widening = WideningPipeline.of(Pipeline(retriever=HybridRetriever(store=store)), below=2, filter={"title": {"$ne": "Lund"}})
    found = ids(widening.ground(HARD, filter={"title": {"$ne": "Ada Kessler"}}, k=5).passages)
    assert set(found) == {"Blue Harbour", "Green Harbour", "Tea"}


@pytest.mark.parametrize("nested", [False, True])
def test_filters_of_the_first_search_hold_in_the_wider_one(nested: bool) -> None:
    texts = [Document(id=tenant, page_content="harbour plans", metadata={"tenant": tenant}) for tenant in "ab"]
    plain = BM25Retriever.from_documents(texts)
    own = BM25Retriever(store=plain.store, filter={"tenant": "a"})
    first = DocumentContextRetriever(retriever=own) if nested else own
    for wider in (plain, first):
        pipeline = WideningPipeline(retriever=first, wider=wider, confidence=lambda *_: 0.0)
        assert [document.id for document in pipeline.invoke("harbour")] == ["a"]
        assert usage(pipeline.ground("harbour"))["widened"]
        assert [document.id for document in pipeline.invoke("harbour", filter={"tenant": {"$in": ["a", "b"]}})] == ["a"]


def test_restrictions_of_retrievers_inside_others() -> None:
    plain = BM25Retriever.from_texts(["harbour"])
    a, b = (BM25Retriever(store=plain.store, filter={"tenant": tenant}) for tenant in "ab")
    pipeline = Pipeline(retriever=FusedRetriever(retrievers=[a, b]), filter={"lang": "en"})
    assert restriction(pipeline) == {"$and": [{"lang": "en"}, {"$or": [{"tenant": "a"}, {"tenant": "b"}]}]}
    assert restriction(FusedRetriever(retrievers=[a, plain])) is None
    assert is_restricted(FusedRetriever(retrievers=[a, plain]))
    assert not is_restricted(FusedRetriever(retrievers=[plain, plain]))


def test_what_a_model_cost_is_in_the_trace(store: Store) -> None:
    first = BM25Retriever(store=store)
    says = FakeListChatModel(responses=["1. director of the film Blue Harbour\n2. Where was #1 born?"])
    widening = WideningPipeline(retriever=first, wider=DecompositionRetriever(retriever=first, llm=says))
    said = usage(widening.ground(HARD))
    assert (said["widened"], said["calls"]) == (True, 1)
    assert said["questions"] == ["director of the film Blue Harbour", "Where was #1 born?"]
    silent = DecompositionRetriever(retriever=first, llm=FakeListChatModel(responses=["no idea"]))
    for context in (
        WideningPipeline(retriever=first, wider=silent).ground(HARD),
        asyncio.run(WideningPipeline(retriever=first, wider=silent).aground(HARD)),
    ):
        assert usage(context)["failures"] == 1
        assert ids(context.passages)[0] == ids(first.invoke(HARD))[0]


def test_agreement_is_the_overlap_of_the_searches() -> None:
    def found(id_: str, **ranks: int) -> Document:
        stages = [StageResult(name, 1.0, rank) for name, rank in ranks.items()]
        return with_stages(Document(id=id_, page_content=id_), *stages, StageResult("hybrid", 1.0, 1))

    assert agreement("q", [found("a", bm25=1, dense=2), found("b", bm25=2), found("c", dense=1)]) == pytest.approx(1 / 2)
    assert agreement("q", [found("a", bm25=1, dense=12), found("b", bm25=2)]) == 0
    assert agreement("q", [found("a", bm25=1), found("b", bm25=2)]) == 0
    assert agreement("q", [Document(id="x", page_content="y")]) == agreement("q", []) == 0


def test_it_is_a_pipeline_like_any_other(store: Store) -> None:
    widening = WideningPipeline.of(Pipeline(retriever=BM25Retriever(store=store), max_tokens=30), below=2)
    assert widening.max_tokens == 30
    model = FakeListChatModel(responses=["Ada Kessler grew up in Lund [1]."])
    assert GroundedAnswerer(pipeline=widening, llm=model).invoke(HARD).text
    assert Conversation(widening).ask(HARD).answer.context.trace[0].usage["widened"]
    assert len((widening >> ExtractivePruner(scorer="bm25")).stages) == 1


def test_mistakes_are_named(store: Store) -> None:
    from langchain_core.retrievers import BaseRetriever

    class Foreign(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return []

    with pytest.raises(ValidationError, match=r"wider: must be a retriever of ragkit, not Foreign"):
        WideningPipeline(retriever=BM25Retriever(store=store), wider=Foreign())
    with pytest.raises(InputError, match=r"^wider: .*say who is asked again"):
        WideningPipeline.of(Pipeline(retriever=Foreign()))
