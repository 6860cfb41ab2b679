"""What a key may see: nothing of anybody else's passages, however it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from ragkit.retrievers.feedback import RM3Retriever, RocchioRetriever
from ragkit.retrievers.hybrid import HybridRetriever
from ragkit.retrievers.multi_hop import MultiHopRetriever
from ragkit.serving.keys import add_key
from tests.serving.conftest import call

pytest.importorskip("fastapi", reason="needs ragkit[serve]")
pytest.importorskip("prometheus_client", reason="needs ragkit[serve]")

WORDS = ["otter", "seal", "river", "boat", "swims", "blue", "fast"]
RETRIEVERS: list[Callable[[Any], Any]] = [
    lambda store: HybridRetriever(store=store, k=20),
    lambda store: MultiHopRetriever(store=store, k=20),
    lambda store: RM3Retriever(store=store, k=20),
    lambda store: RocchioRetriever(store=store, k=20),
]
# ways to ask for more than one may have; all name fields that the key may filter by
WIDE = [
    None,
    {},
    {"tenant": "b"},
    {"$or": [{"tenant": "b"}, {"tenant": "a"}]},
    {"$not": {"tenant": "a"}},
    {"tenant": {"$ne": "a"}},
    {"tenant": {"$nin": []}},
    {"$or": [{"lang": "en"}, {"$not": {"lang": "en"}}]},
    {"lang": "en"},
]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(lambda words: " ".join(words).capitalize() + ".")
OWNED = st.tuples(st.sampled_from(["a", "b", None]), st.lists(SENTENCES, min_size=1, max_size=3), st.sampled_from(["en", "de"]))


def documents(drawn: Sequence[tuple[str | None, list[str], str]]) -> list[Document]:
    """Whatever is not A's says so everywhere: in text, id, source, and names and values of its metadata."""
    made = []
    for n, (tenant, sentences, lang) in enumerate(drawn):
        metadata: dict[str, Any] = {"lang": lang, **({} if tenant is None else {"tenant": tenant})}
        if tenant == "a":
            made.append(Document(id=f"a{n}", page_content=" ".join(sentences), metadata=metadata))
        else:
            metadata |= {"title": f"hidden{n}", f"hidden{n}": 1, "source": f"/hidden/{n}.txt"}
            text = " ".join(f"{sentence} Hidden{n} it is." for sentence in sentences)
            made.append(Document(id=f"hidden{n}", page_content=text, metadata=metadata))
    return made


def passes(metadata: Mapping[str, Any], filter: Any) -> bool:
    """The filters above, in Python."""
    for key, value in (filter or {}).items():
        if key == "$or":
            good = any(passes(metadata, part) for part in value)
        elif key == "$not":
            good = not passes(metadata, value)
        elif isinstance(value, dict):
            [(operator, operand)] = value.items()
            good = metadata.get(key) != operand if operator == "$ne" else metadata.get(key) not in operand
        else:
            good = metadata.get(key) == value
        if not good:
            return False
    return True


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OWNED, min_size=1, max_size=8), SENTENCES, st.sampled_from(WIDE), st.sampled_from(RETRIEVERS), st.booleans())
def test_a_key_never_sees_what_is_not_its_own(
    make_service: Any, tmp_path: Path, drawn: Any, query: str, filter: Any, retriever: Any, written: bool
) -> None:
    corpus = documents([("a", ["Otter."], "en"), *drawn, ("b", ["Seal."], "en")])
    keys = tmp_path / "keys.json"
    keys.unlink(missing_ok=True)
    mine = add_key(keys, "a", filter={"tenant": "a"}, filter_fields=["tenant", "lang"])
    everything = add_key(keys, "operator")
    prompts: list[str] = []
    llm = RunnableLambda(lambda prompt: prompts.append(prompt.to_string()) or "Otters swim [1].") if written else None
    service = make_service(corpus, retriever=retriever, keys=keys, llm=llm)
    # what others asked before changes nothing
    [others] = call(service, ("/v1/ground", {"query": query, "k": 50, "explain": True}), key=everything)
    # a retriever over vectors finds everything; one over words may find nothing else for these words
    assert "idden" in others.text or not isinstance(service.pipeline.retriever, HybridRetriever)
    prompts.clear()
    asked = {"query": query, "filter": filter}
    search, *answers = call(
        service,
        ("/v1/search", {**asked, "k": 50}),
        ("/v1/ground", {**asked, "explain": True, "k": 50}),
        ("/v1/ask", {**asked, "k": 50, "abstain_below": 0}),
        ("/v1/ask", {**asked, "stream": True}),
        key=mine,
    )
    for response in (search, *answers):
        assert response.status_code == 200, response.text
        assert "idden" not in response.text
    assert answers[0].json()["trace"][0]["entered"] is None  # not even how many there are
    found = {hit["id"] for hit in search.json()["hits"]}
    allowed = {one.id for one in corpus if one.metadata.get("tenant") == "a" and passes(one.metadata, filter)}
    # a retriever over vectors finds all that it may; one over words only what has them
    assert found == allowed if isinstance(service.pipeline.retriever, HybridRetriever) else found <= allowed
    assert not any("idden" in prompt for prompt in prompts)
    for batcher in service._batchers:
        batcher._thread.shutdown()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.mark.parametrize(
    "filter", [{"hidden1": 1}, {"secret": 1}, {"$not": {"hidden1": 1}}, {"lang": "en", "hidden1": {"$ne": 2}}]
)
def test_fields_of_others_are_not_told_apart(make_service: Any, keys: Path, filter: Any) -> None:
    """A field that only others have, and one that nobody has, are refused in the same words."""
    mine = add_key(keys, "a", filter={"tenant": "a"}, filter_fields=["lang"])
    service = make_service(documents([("a", ["Otter."], "en"), ("b", ["Seal."], "en")]), keys=keys)
    asked = {"query": "otter", "filter": filter}
    for response in call(service, ("/v1/search", asked), ("/v1/ask", {**asked, "stream": True}), key=mine):
        assert response.status_code == 422
        assert response.json()["error"] == {
            "field": "filter",
            "message": "filter: this key may filter by lang; leave the rest out",
        }


def test_errors_of_the_pipeline_name_no_field_of_others(make_service: Any, keys: Path) -> None:
    """The key's own field is in no passage at all: then nothing is found, and nothing is listed."""
    mine = add_key(keys, "a", filter={"owner": "a"})
    service = make_service(documents([("b", ["Seal."], "en")]), keys=keys)
    asked = {"query": "seal"}
    answers = call(
        service,
        ("/v1/search", asked),
        ("/v1/ground", asked),
        ("/v1/ask", asked),
        ("/v1/ask", {**asked, "stream": True}),
        key=mine,
    )
    for response in answers:
        assert response.status_code == 422
        assert response.json()["error"]["field"] == "filter"
        assert "idden" not in response.text
        assert "tenant" not in response.text


def test_an_open_key_may_filter_by_anything(make_service: Any, keys: Path) -> None:
    everything = add_key(keys, "operator")
    service = make_service(documents([("a", ["Otter."], "en"), ("b", ["Seal."], "en")]), keys=keys)
    asked = ("/v1/search", {"query": "otter", "filter": {"hidden1": 1}})
    found, unknown = call(service, asked, ("/v1/search", {"query": "otter", "filter": {"nobody": 1}}), key=everything)
    assert [hit["id"] for hit in found.json()["hits"]] == ["hidden1"]
    assert "known fields: " in unknown.json()["error"]["message"]
