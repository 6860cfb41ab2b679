"""A call that does not fit is told which argument is wrong, and what to do."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.mcp_server.requests import AskRequest, ReadRequest, Request, SearchRequest, read_request


def nested(depth: int) -> dict[str, Any]:
    filter: dict[str, Any] = {"lang": "en"}
    for _ in range(depth):
        filter = {"$not": filter}
    return filter


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (SearchRequest, {}, "question: is missing; What to look for"),
        (SearchRequest, None, "question: is missing"),
        (SearchRequest, {"question": " \n"}, "question: is blank; say what to look for"),
        (SearchRequest, {"question": "x" * 4001}, "question: string should have at most 4000 characters"),
        (SearchRequest, {"question": "x", "k": 0}, "k: input should be greater than or equal to 1, not 0"),
        (SearchRequest, {"question": "x", "k": 51}, "k: input should be less than or equal to 50, not 51"),
        (SearchRequest, {"question": "x", "k": "many"}, "k: input should be a valid integer"),
        (SearchRequest, {"question": "x", "top_k": 3}, "top_k: there is no such argument; use question, filter, k"),
        (SearchRequest, {"question": "x", "filter": "lang=en"}, "filter: input should be a valid dictionary, not 'lang=en'"),
        (SearchRequest, {"question": "x", "filter": nested(500)}, "filter: is nested more than 8 levels deep; make it flatter"),
        (AskRequest, {"question": "x", "filter": {"a": "x" * 4000}}, "filter: has more than 4000 characters as JSON"),
        (ReadRequest, {"id": "x", "around": 10_001}, "around: input should be less than or equal to 10000"),
        (ReadRequest, {"path": "/etc/passwd"}, "id: is missing; The id of a passage"),
        (ReadRequest, {"id": "x", "path": "/etc/passwd"}, "path: there is no such argument; use id, around"),
    ],
)
def test_errors_name_the_argument_and_the_way_out(kind: type[Request], arguments: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_request(kind, arguments)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


json = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["question", "k", "filter", "x"]), json | st.dictionaries(st.text(max_size=3), json)))
def test_whatever_comes_is_taken_or_refused_by_name(arguments: dict[str, Any]) -> None:
    named = ""
    try:
        request = read_request(SearchRequest, arguments)
    except InputError as error:
        named = str(error).split(":")[0]
    assert named in ("question", "k", "filter", "x") or (request.question.strip() and 1 <= request.k <= 50)
