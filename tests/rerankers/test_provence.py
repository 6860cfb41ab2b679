"""The Provence reranker over a fake network: what it reads, its order, and what it does when the model fails."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from pydantic import ValidationError

from ragkit import InputError, ProvencePruner, ProvenceReranker, provenance
from ragkit.documents import sentences
from ragkit.documents.provenance import Provenance, StageResult, with_provenance
from ragkit.documents.sentences import units
from ragkit.provence.pair import Logits

WORDS = ["cat", "dog", "fish", "bird", "horse", "cow", "sheep"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), max_size=6)


def documents(texts: list[str], **metadata: Any) -> list[Document]:
    return [Document(id=str(n), page_content=text, metadata=metadata) for n, text in enumerate(texts)]


@given(texts=TEXTS, top_k=st.none() | st.integers(1, 4), max_length=st.sampled_from([16, 512]))
@settings(max_examples=60, deadline=None)
def test_the_order_is_that_of_the_passage_scores(
    make_provence: Any, make_network: Any, texts: list[str], top_k: int | None, max_length: int
) -> None:
    """The fake network ranks a passage by its best token, in whatever window that stands."""
    found = documents(texts, own={"n": 1})
    before = copy.deepcopy(found)
    model = make_provence(make_network(lambda text: WORDS.index(text) / 8 if text in WORDS else 0.0), max_length=max_length)
    ranked = ProvenceReranker(model=model, top_k=top_k).compress_documents(found, "which animal?")
    assert found == before
    best = [max((WORDS.index(word) for word in text.split()), default=0) - 4 for text in texts]
    order = sorted(range(len(texts)), key=lambda at: -best[at])[:top_k]
    assert [document.id for document in ranked] == [str(at) for at in order]
    for rank, (at, document) in enumerate(zip(order, ranked, strict=True), 1):
        assert document.metadata["relevance_score"] == pytest.approx(best[at])
        assert provenance(document).stages == (StageResult("rerank", document.metadata["relevance_score"], rank),)
        assert (document.page_content, document.metadata["own"]) == (texts[at], {"n": 1})


def test_titles_and_headings_are_read(make_provence: Any, make_network: Any) -> None:
    network = make_network()
    reranker = ProvenceReranker(model=make_provence(network))
    headed = with_provenance(Document(id="h", page_content="It is red."), Provenance(headings=("Fruit", "Apple")))
    reranker.compress_documents(
        [headed, *documents(["It is blue."], title="Plum"), *documents(["Plum. It is blue."], title="Plum")], "q"
    )
    assert {(pair.title, pair.passage) for pair in network.pairs} == {
        ("Fruit > Apple", "It is red."),
        ("Plum", "It is blue."),
        ("", "Plum. It is blue."),
    }


def test_sentences_follow_the_language(make_provence: Any, make_network: Any) -> None:
    """A network may use the sentences, so they are a part of what is asked, and the same ones as the pruner's."""
    text = "Er kam z. B. gestern. Sie kam heute."
    for language, count in (("german", 2), ("de", 2)):
        network = make_network()
        model = make_provence(network)
        ranked = ProvenceReranker(model=model, language=language).compress_documents(documents([text]), "q")
        ProvencePruner(model=model, language=language).compress_documents(ranked, "q")
        assert [len(pair.units) for pair in network.pairs] == [count]
    with pytest.raises(InputError, match="klingon"):
        ProvenceReranker(model=make_provence(), language="klingon").compress_documents(documents([text]), "q")


def test_a_pruned_passage_is_judged_whole(make_provence: Any, make_network: Any) -> None:
    network = make_network()
    pruned = with_provenance(Document(id="0", page_content="One."), Provenance(), passage="One. Two plums.", spans=((0, 4),))
    [found] = ProvenceReranker(model=make_provence(network)).compress_documents([pruned], "q")
    assert [pair.passage for pair in network.pairs] == ["One. Two plums."]
    assert (found.page_content, provenance(found).spans) == ("One.", ((0, 4),))


def test_a_model_that_gives_nan_leaves_the_order(make_provence: Any, make_network: Any, caplog: pytest.LogCaptureFixture) -> None:
    def network(windows: Any) -> Logits:
        logits = make_network()(windows)
        for number, window in enumerate(windows):
            if window.pair.question == "broken" and window.pair.passage == "fig":
                logits.rank[number] = math.nan
        return logits

    network.accompany = list  # type: ignore[attr-defined]
    reranker = ProvenceReranker(model=make_provence(network, activation="sigmoid"))
    inputs: list[Any] = [{"documents": documents(["apple", "fig", "plum"]), "query": query} for query in ("broken", "sound")]
    broken, sound = reranker.outcomes(inputs)
    assert [document.id for document in broken.documents] == ["0", "1", "2"]
    assert broken.usage == {"failures": 1}
    assert not any("relevance_score" in document.metadata for document in broken.documents)
    assert all(0 < document.metadata["relevance_score"] < 1 for document in sound.documents)
    assert len(re.findall("did not give one finite score", caplog.text)) == 1


@pytest.mark.parametrize(("length", "once"), [(1, True), (4000, False)])
def test_sentences_are_found_once_for_all_stages(
    make_provence: Any, monkeypatch: pytest.MonkeyPatch, length: int, once: bool
) -> None:
    """But texts that take much memory are not held on to."""
    found: list[str] = []

    def find(text: str, *args: Any) -> Any:
        found.append(text)
        return units(text, *args)

    monkeypatch.setattr(sentences, "units", find)
    sentences._found_lately.cache_clear()
    model, texts = make_provence(), [f"The {word} sleeps. {'It eats. ' * length}" for word in WORDS]
    ranked = ProvenceReranker(model=model).compress_documents(documents(texts), "which animal?")
    ProvencePruner(model=model).compress_documents(ranked, "which animal?")
    assert set(found) == set(texts)
    assert (len(found) == len(texts)) == once


async def test_every_door_leads_to_the_same_result(make_provence: Any) -> None:
    reranker = ProvenceReranker(model=make_provence())
    inputs: list[Any] = [
        {"documents": documents(WORDS[:count]), "query": query} for count, query in ((7, "a"), (0, "b"), (3, ""))
    ]
    expected = [reranker.compress_documents(**value) for value in inputs]
    assert reranker.batch(inputs) == expected
    assert await reranker.abatch(inputs) == expected
    assert [await reranker.acompress_documents(**value) for value in inputs] == expected


def test_fields_may_be_changed_after_the_first_call(make_provence: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a copy, which takes over what was loaded."""
    loaded: list[Any] = []

    def load(model: Any, **settings: Any) -> Any:
        loaded.append((model, settings))
        return make_provence()

    monkeypatch.setattr("ragkit.provence.stage.ProvenceModel.from_pretrained", load)
    reranker = ProvenceReranker(model="one", max_length=64)
    for _ in range(2):
        reranker.compress_documents(documents(WORDS), "q")
    reranker.model_copy(update={"model": "two"}).compress_documents(documents(WORDS), "q")
    reranker.model_copy(update={"top_k": 2}).compress_documents(documents(WORDS), "q")
    reranker.model_copy(update={"dtype": "int8"}).compress_documents(documents(WORDS), "q")
    settings = {"device": None, "dtype": None, "max_length": 64}
    assert loaded == [("one", settings), ("two", settings), ("one", {**settings, "dtype": "int8"})]


def test_nothing_is_loaded_for_no_documents() -> None:
    assert ProvenceReranker(model="no/such-model").batch([{"documents": [], "query": "q"}]) == [[]]


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"max_length": 15}, {"batch_tokens": 0}, {"model": 3}, {"threshold": 0.5}])
def test_wrong_fields_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ProvenceReranker(**wrong)
