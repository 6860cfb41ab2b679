"""Filters against a plain Python reading of the same grammar."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit.corpus.corpus import Corpus
from ragkit.errors import InputError

FIELDS = ["a", "b", 'odd "key"', "x.y", "$[0]"]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.5]), st.sampled_from(["", "1", "de", "é'\""])
)
METADATA = st.dictionaries(st.sampled_from(FIELDS), st.one_of(SCALARS, st.lists(st.integers(), max_size=2)), max_size=3)
NUMBERS_OR_TEXT = st.one_of(st.integers(-3, 3), st.just(0.5), st.sampled_from(["1", "de"]))
OPERATION = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), SCALARS),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=3)),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS_OR_TEXT),
)
FIELD_ENTRY = st.dictionaries(
    st.sampled_from([field for field in FIELDS if not field.startswith("$")]),
    st.one_of(SCALARS, st.lists(OPERATION, min_size=1, max_size=2).map(dict)),
    max_size=2,
)
FILTER = st.recursive(
    FIELD_ENTRY,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2).map(lambda parts: {"$and": parts}),
        st.lists(inner, max_size=2).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=5,
)


def same(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool) or value is None or wanted is None:
        return value is wanted
    numbers = isinstance(value, int | float) and isinstance(wanted, int | float)
    return (numbers or (isinstance(value, str) and isinstance(wanted, str))) and value == wanted


def compare(value: Any, operator: str, wanted: Any) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (value, wanted))
    if not numbers and not (isinstance(value, str) and isinstance(wanted, str)):
        return False
    return {"$gt": value > wanted, "$gte": value >= wanted, "$lt": value < wanted, "$lte": value <= wanted}[operator]


MISSING = object()


def passes(filter: dict[str, Any], metadata: dict[str, Any]) -> bool:
    return all(entry(key, value, metadata) for key, value in filter.items())


def entry(key: str, value: Any, metadata: dict[str, Any]) -> bool:
    if key == "$and":
        return all(passes(part, metadata) for part in value)
    if key == "$or":
        return any(passes(part, metadata) for part in value)
    if key == "$not":
        return not passes(value, metadata)
    have = metadata.get(key, MISSING)
    if not isinstance(value, dict):
        return same(have, value)
    return all(operation(have, operator, operand) for operator, operand in value.items())


def operation(have: Any, operator: str, operand: Any) -> bool:
    if operator == "$eq":
        return same(have, operand)
    if operator == "$ne":
        return not same(have, operand)
    if operator == "$in":
        return any(same(have, value) for value in operand)
    if operator == "$nin":
        return not any(same(have, value) for value in operand)
    return compare(have, operator, operand)


def corpus_of(*metadatas: dict[str, Any]) -> Corpus:
    corpus = Corpus(None, 1)
    documents = [Document(id=str(n), page_content=f"text {n}", metadata=meta) for n, meta in enumerate(metadatas)]
    corpus.apply(corpus.plan(documents))
    return corpus


@settings(max_examples=200, deadline=None)
@given(st.lists(METADATA, min_size=1, max_size=6), FILTER)
def test_filter_equals_plain_reading(metadatas: list[dict[str, Any]], filter: dict[str, Any]) -> None:
    # every field exists somewhere, so that no filter is refused for naming an unknown one
    everything = dict.fromkeys(FIELDS, "present")
    corpus = corpus_of(*metadatas, everything)
    expected = [n for n, metadata in enumerate([*metadatas, everything]) if passes(filter, metadata)]
    assert corpus.allowed(filter).tolist() == expected


def nested(operator: str, depth: int) -> dict[str, Any]:
    filter: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        filter = {operator: [filter] if operator == "$and" else filter}
    return filter


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        ({"nope": 1}, "'nope'"),
        ({"$xor": []}, "$xor"),
        ({"a": {"$like": "x"}}, "$like"),
        ({"a": {"$in": "abc"}}, "$in"),
        ({"a": {"$gt": True}}, "$gt"),
        ({"a": [1]}, "list"),
        ({"$and": {"a": 1}}, "$and"),
        ({"a": 2**70}, "64 bits"),
        ({"a": float("nan")}, "finite"),
        ({"a": {"$in": [1, float("inf")]}}, "finite"),
        ({"a": {"$in": [[1]]}}, "list"),
        ("a=1", "mapping"),
        (nested("$not", 10), "10 deep"),
        (nested("$and", 5_000), "10 deep"),
        ({"\ud800": 1}, "half of a surrogate pair"),
        ({"a": {"$lt": "x\udfff"}}, "half of a surrogate pair"),
    ],
)
def test_bad_filters_name_the_key(filter: Any, names: str) -> None:
    with pytest.raises(InputError) as caught:
        corpus_of({"a": 1}).allowed(filter)
    assert names in str(caught.value)


@pytest.mark.parametrize("siblings", [0, 1, 60, 400])
def test_as_deep_as_a_filter_may_be(siblings: int) -> None:
    filter: dict[str, Any] = {"a": 1}
    for depth in range(9):
        others = [{"a": 2}] * siblings if depth % 3 else [{"a": {"$nin": [2, "2", None]}}] * min(siblings, 60)
        filter = {"b": 1, "$not" if depth % 2 else "$or": filter if depth % 2 else [filter, *others]}
    metadatas = [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 2}, {}]
    expected = [n for n, metadata in enumerate(metadatas) if passes(filter, metadata)]
    assert corpus_of(*metadatas).allowed(filter).tolist() == expected


def test_unknown_field_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'langg'.*lang, year"):
        corpus_of({"lang": "en", "year": 2020}).allowed({"langg": "en"})


def test_any_field_is_fine_in_an_empty_corpus() -> None:
    assert corpus_of().allowed({"nope": 1}).tolist() == []


def test_thousands_of_values() -> None:
    corpus = corpus_of({"a": 7}, {"a": "7"}, {"a": 70_000}, {"b": 1})
    assert corpus.allowed({"a": {"$in": list(range(5_000))}}).tolist() == [0]
    assert corpus.allowed({"a": {"$nin": [str(n) for n in range(5_000)]}}).tolist() == [0, 2, 3]


def test_thousands_of_conditions() -> None:
    corpus = corpus_of({"a": 7}, {"a": 8}, {"a": 70_000})
    assert corpus.allowed({"$or": [{"a": n} for n in range(3_000)]}).tolist() == [0, 1]
    assert corpus.allowed({"$and": [{"a": {"$ne": n}} for n in range(8, 3_000)]}).tolist() == [0, 2]
