"""Retrievers: k, filters, batches, async, callbacks, and what a hit carries."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from pydantic import ValidationError

from ragkit import BM25Retriever, DenseRetriever, ExactRetriever, HybridRetriever, InputError, provenance
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.encoders.lexical import Analyzer
from ragkit.encoders.vocabulary import Vocabulary
from ragkit.indexes.bm25 import BM25Index
from ragkit.retrievers.multi_hop import MultiHopRetriever
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.store import Store, bm25_and_dense

TEXTS = ["the cat sat on the mat", "dogs bark at the cat", "a fish swims", "cat and dog and fish", "nothing here"]
KINDS = [BM25Retriever, DenseRetriever, HybridRetriever]


@pytest.fixture
def store(make_encoder: Any) -> Store:
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert([Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)])
    return store


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


@pytest.mark.parametrize("kind", KINDS)
def test_call_k_overrides_constructor_and_may_exceed_the_corpus(kind: Any, store: Store) -> None:
    retriever = kind(store=store, k=1)
    assert len(retriever.invoke("cat")) == 1
    assert len(retriever.invoke("cat", k=2)) == 2
    assert len(retriever.invoke("cat", k=1000)) <= len(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_bad_k_is_named(kind: Any, store: Store, k: Any) -> None:
    with pytest.raises(InputError, match="k must be a positive integer"):
        kind(store=store).invoke("cat", k=k)
    with pytest.raises(InputError, match="k must be a positive integer"):
        kind(store=store).batch(["cat"], k=k)
    if isinstance(k, int) and not isinstance(k, bool):
        with pytest.raises(ValidationError, match="k"):
            kind(store=store, k=k)


@pytest.mark.parametrize("kind", KINDS)
def test_typos_are_refused(kind: Any, store: Store) -> None:
    with pytest.raises(ValidationError, match="top_n"):
        kind(store=store, top_n=3)
    with pytest.raises(InputError, match="unknown argument 'top_n'"):
        kind(store=store).invoke("cat", top_n=3)
    with pytest.raises(InputError, match="top_n"):
        kind(store=store).batch(["cat"], top_n=3)


@pytest.mark.parametrize("kind", KINDS)
def test_filter_is_applied_before_the_cut(kind: Any, store: Store) -> None:
    retriever = kind(store=store, k=2)
    everything = retriever.invoke("cat fish", k=5)
    for allowed in ({"n": {"$gte": 2}}, {"n": {"$in": [0, 3]}}, {"$not": {"n": 3}}):
        keep = store.snapshot.corpus.allowed(allowed)
        expected = [document.id for document in everything if int(document.id or -1) in keep][:2]
        assert ids(retriever.invoke("cat fish", filter=allowed)) == expected
        assert ids(kind(store=store, k=2, filter=allowed).invoke("cat fish")) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query", ["", "   \n"])
def test_blank_query_has_no_hits(kind: Any, store: Store, query: str) -> None:
    assert kind(store=store).invoke(query) == []


@pytest.mark.parametrize("kind", KINDS)
def test_empty_corpus_has_no_hits(kind: Any, make_encoder: Any) -> None:
    assert kind(store=Store.memory(bm25_and_dense(make_encoder()))).invoke("cat") == []


@pytest.mark.parametrize("kind", KINDS)
def test_huge_query(kind: Any, store: Store) -> None:
    assert len(kind(store=store).invoke("cat fish " * 12_000)) >= 3


def test_bm25_returns_only_passages_that_share_a_term(store: Store) -> None:
    assert set(ids(BM25Retriever(store=store).invoke("fishes"))) == {"2", "3"}
    assert BM25Retriever(store=store).invoke("zebra") == []


@pytest.mark.parametrize("kind", KINDS)
async def test_all_ways_to_ask_agree(kind: Any, store: Store) -> None:
    retriever = kind(store=store, k=3)
    queries = ["cat", "", "fish swims", "dogs"]
    one_by_one = [retriever.invoke(query) for query in queries]
    assert [ids(documents) for documents in retriever.batch(queries)] == [ids(documents) for documents in one_by_one]
    assert [ids(documents) for documents in await retriever.abatch(queries)] == [ids(documents) for documents in one_by_one]
    together = await asyncio.gather(*(retriever.ainvoke(query) for query in queries))
    assert [ids(documents) for documents in together] == [ids(documents) for documents in one_by_one]
    assert retriever.batch([]) == []


def test_a_hit_carries_scores_and_ranks_of_every_source_and_the_users_metadata(store: Store) -> None:
    [best, *_] = HybridRetriever(store=store).invoke("cat mat")
    assert best.metadata["n"] == 0
    stages = {result.stage: result for result in provenance(best).stages}
    assert set(stages) == {"bm25", "dense", "hybrid"}
    assert best.metadata["relevance_score"] == stages["hybrid"].score
    [alone, *_] = BM25Retriever(store=store).invoke("cat mat")
    assert provenance(alone).stages[0].score == stages["bm25"].score


def test_inputs_are_not_mutated(make_encoder: Any) -> None:
    documents = [Document(page_content=text, metadata={"tags": ["a"]}) for text in TEXTS]
    copies = [document.model_copy(deep=True) for document in documents]
    retriever = HybridRetriever.from_documents(documents, encoder=make_encoder())
    for hit in retriever.invoke("cat"):
        hit.metadata["tags"].append("changed by the caller")
    assert documents == copies
    assert all(hit.metadata["tags"] == ["a"] for hit in retriever.invoke("cat"))


def test_same_text_with_other_metadata_is_another_document(make_encoder: Any) -> None:
    retriever = HybridRetriever.from_texts(["same", "same", "same"], [{"p": 1}, {"p": 2}, {"p": 2}], encoder=make_encoder())
    assert sorted(hit.metadata["p"] for hit in retriever.invoke("same")) == [1, 2]


def test_from_texts_checks_lengths() -> None:
    with pytest.raises(InputError, match="metadatas has 1 entries for 2 texts"):
        BM25Retriever.from_texts(["a", "b"], [{}])
    with pytest.raises(InputError, match="ids has 1 entries for 2 texts"):
        BM25Retriever.from_texts(["a", "b"], ids=["1"])


def test_upsert_and_delete_are_seen_at_once(store: Store) -> None:
    retriever = HybridRetriever(store=store)
    retriever.upsert([Document(id="0", page_content="zebra crossing"), Document(id="new", page_content="zebra zebra")])
    assert set(ids(BM25Retriever(store=store).invoke("zebra"))) == {"0", "new"}
    assert "0" not in ids(BM25Retriever(store=store).invoke("mat"))
    retriever.delete(["0", "absent"])
    assert ids(BM25Retriever(store=store).invoke("zebra")) == ["new"]
    assert "0" not in ids(DenseRetriever(store=store).invoke("zebra", k=10))


def test_one_string_is_no_list_of_ids(store: Store) -> None:
    retriever = BM25Retriever(store=store)
    for ask in (retriever.get, retriever.delete, store.delete):
        with pytest.raises(InputError, match=r"ids: .*\['12'\]"):
            ask("12")  # type: ignore[arg-type]
    assert len(retriever.get(["1", "2"])) == 2


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
        self.events.append(("start", query))

    def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
        self.events.append(("end", len(documents)))

    def on_retriever_error(self, error: BaseException, **kwargs: Any) -> None:
        self.events.append(("error", type(error)))


async def test_callbacks_see_one_run_per_question(store: Store) -> None:
    for run in ("batch", "abatch"):
        recorder = Recorder()
        retriever = BM25Retriever(store=store, k=1)
        answer = getattr(retriever, run)(["cat", "fish"], {"callbacks": [recorder]})
        if run == "abatch":
            await answer
        assert recorder.events == [("start", "cat"), ("start", "fish"), ("end", 1), ("end", 1)]


def test_errors_reach_callbacks_and_may_be_returned(store: Store) -> None:
    recorder = Recorder()
    retriever = BM25Retriever(store=store)
    answers = retriever.batch(["cat"], {"callbacks": [recorder]}, filter={"nope": 1}, return_exceptions=True)
    assert isinstance(answers[0], InputError)
    assert recorder.events == [("start", "cat"), ("error", InputError)]


@pytest.mark.parametrize("wrong", [None, 3, b"cat", ["cat"]])
async def test_a_wrong_question_fails_alone(store: Store, wrong: Any) -> None:
    retriever = BM25Retriever(store=store, k=1)
    asked: list[Any] = ["cat", wrong, "", "fish"]
    expected = [retriever.invoke(query) if isinstance(query, str) else None for query in asked]
    for results in (
        retriever.batch(asked, return_exceptions=True),
        await retriever.abatch(asked, return_exceptions=True),
    ):
        assert isinstance(results[1], InputError)
        assert [results[0], None, *results[2:]] == expected
    for refused in (lambda: retriever.batch(asked), lambda: asyncio.run(retriever.abatch(asked))):
        with pytest.raises(InputError, match=f"query must be a string, not {type(wrong).__name__}"):
            await asyncio.to_thread(refused)
    assert [type(error) for error in retriever.batch([wrong, wrong], return_exceptions=True)] == [InputError, InputError]


@pytest.mark.parametrize("kind", [BM25Retriever, DenseRetriever, HybridRetriever, ExactRetriever, MultiHopRetriever])
async def test_what_is_not_known_is_named_with_its_class(kind: Any, make_encoder: Any) -> None:
    options = {"encoder": make_encoder()} if kind not in (BM25Retriever, ExactRetriever) else {}
    with pytest.raises(InputError, match=f"unknown option 'kk': {kind.__name__} has the fields k, filter, ") as caught:
        kind.from_texts(["tea"], kk=3, **options)
    others = {"BM25Retriever", "DenseRetriever", "HybridRetriever"} - {kind.__name__}
    assert not any(other in str(caught.value) for other in others)
    retriever = kind.from_texts(["tea"], **options)
    for refused in (
        lambda: retriever.invoke("tea", kk=3),
        lambda: retriever.batch(["tea"], kk=3),
        lambda: asyncio.run(retriever.ainvoke("tea", kk=3)),
    ):
        with pytest.raises(InputError, match="unknown argument 'kk'; a retriever takes k and filter"):
            await asyncio.to_thread(refused)
    retriever.k = -1
    with pytest.raises(InputError, match=rf"{kind.__name__}\.k must be a positive integer, got -1"):
        retriever.invoke("tea")
    assert retriever.invoke("tea", k=1)[0].page_content == "tea"


def test_composes_with_lcel(store: Store) -> None:
    chain = BM25Retriever(store=store, k=1) | RunnableLambda(lambda documents: documents[0].id)
    assert chain.invoke("mat") == "0"


def test_hybrid_checks_its_parts(store: Store, make_encoder: Any) -> None:
    other = Store.memory(bm25_and_dense(make_encoder()))
    with pytest.raises(ValidationError, match="share one store"):
        HybridRetriever(retrievers=[BM25Retriever(store=store), DenseRetriever(store=other)])
    with pytest.raises(ValidationError, match="weights has 1 entries"):
        HybridRetriever(store=store, weights=[1.0])
    with pytest.raises(ValidationError, match="not all zero"):
        HybridRetriever(store=store, weights=[0.0, 0.0])
    only_bm25 = HybridRetriever(retrievers=[BM25Retriever(store=store), DenseRetriever(store=store)], weights=[1.0, 0.0])
    assert ids(only_bm25.invoke("mat"))[0] == "0"


def test_missing_index_is_named(store: Store) -> None:
    alone = BM25Retriever.from_texts(["a b c"])
    with pytest.raises(InputError, match="no 'dense' index; it has: bm25"):
        DenseRetriever(store=alone.store).invoke("a")


def test_text_that_comes_again_is_not_encoded_again(make_encoder: Any) -> None:
    encoder = make_encoder()
    retriever = DenseRetriever.from_texts(["one", "two"], ids=["1", "2"], encoder=encoder)
    retriever.upsert([Document(id="3", page_content="one")])
    assert encoder.encoded == 2
    assert set(ids(retriever.invoke("one", k=2))) == {"1", "3"}


def test_titles_and_headings_are_found_and_weighted() -> None:
    """BM25 over fields: like one text in which the words of a field are repeated as often as the field counts."""
    texts = ["The pump is checked every year.", "The pump is checked.", "Nothing of that kind."]
    titles = ["Boilers", "Gardens and boilers", "Boilers"]
    documents = [
        with_provenance(Document(id=str(i), page_content=text, metadata={"title": title}), Provenance(headings=("Care",)))
        for i, (text, title) in enumerate(zip(texts, titles, strict=True))
    ]
    fields = BM25Retriever.from_documents(documents, title_weight=2, heading_weight=3, k=3)
    plain = BM25Retriever.from_texts(
        [" ".join([text, title, title, "Care", "Care", "Care"]) for text, title in zip(texts, titles, strict=True)],
        ids=["0", "1", "2"],
        k=3,
    )
    for query in ("boilers", "care", "pump boilers", "gardens"):
        ours, theirs = fields.invoke(query), plain.invoke(query)
        assert [d.id for d in ours] == [d.id for d in theirs]
        assert [d.metadata["relevance_score"] for d in ours] == pytest.approx([d.metadata["relevance_score"] for d in theirs])
    assert BM25Retriever.from_documents(documents, title_weight=0).invoke("gardens") == []
    with pytest.raises(InputError, match=r"^title_weight: "):
        BM25Retriever.from_documents(documents, title_weight=-1)


@pytest.mark.parametrize("options", [{"variant": "atire"}, {"variant": "bm25+", "delta": 0.5}, {"k1": 0.4}, {"b": 0.1}])
def test_bm25_options_reach_the_index(options: dict[str, Any], tmp_path: Path) -> None:
    texts = ["the capital of Germany is Berlin", "Germany, Germany", "a capital idea of the mayor, and a very long one"]
    index = BM25Index(**options)
    vocabulary = Vocabulary()
    analyzer = Analyzer()
    index.add(np.arange(3), SparseVectors.count_flat(*vocabulary.add_all(analyzer.analyze(texts))))
    (expected,) = index.search(SparseVectors.count_flat(*vocabulary.lookup_all(analyzer.analyze(["capital germany"]))), 3)
    for retriever in (
        BM25Retriever.from_texts(texts, **options),
        BM25Retriever.from_texts(texts, path=tmp_path / "index", **options),
        BM25Retriever.load(tmp_path / "index"),
    ):
        assert [hit.metadata["relevance_score"] for hit in retriever.invoke("capital germany")] == expected.scores.tolist()


@pytest.mark.parametrize(
    ("options", "field"), [({"titel_weight": 2}, "titel_weight"), ({"k1": "a"}, "k1"), ({"title_weight": "2"}, "title_weight")]
)
def test_wrong_bm25_options_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        BM25Retriever.from_texts(["a"], **options)


def test_what_is_no_document_is_named() -> None:
    with pytest.raises(InputError, match=r"^documents: .*not str"):
        BM25Retriever.from_documents(["a text"])  # type: ignore[list-item]
    for options, field in (
        ({"language": None}, "language"),
        ({"stopwords": ["a"]}, "stopwords"),
        ({"stemming": "porter"}, "stemming"),
    ):
        with pytest.raises(InputError, match=rf"^{field}: "):
            BM25Retriever.from_texts(["a text"], **options)
