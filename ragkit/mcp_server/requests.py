"""What the tools take, and how a call that does not fit is told which argument is wrong and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ragkit.errors import InputError

MOST_PASSAGES = 50
LONGEST_QUESTION = 4000
"""Characters."""
LONGEST_FILTER = 4000
"""Characters, as JSON."""
DEEPEST_FILTER = 8
MOST_AROUND = 10_000
"""Characters on either side of a passage."""

Question = Annotated[
    str, Field(min_length=1, max_length=LONGEST_QUESTION, description="What to look for, in words; a whole question is best.")
]
Count = Annotated[int, Field(ge=1, le=MOST_PASSAGES)]
Conditions = Annotated[
    dict[str, Any] | None,
    Field(
        description='Conditions on metadata: {"source": SOURCE}, with SOURCE as a reply has it; {"year": {"$gte": 2020}}; '
        '{"lang": {"$in": ["en", "de"]}}; $ne, $nin, $gt, $lt, $lte, $and, $or and $not as well.'
    ),
]


class Request(BaseModel):
    """Base of the arguments of a tool."""

    model_config = ConfigDict(extra="forbid")


class _Asked(Request):
    question: Question
    filter: Conditions = None

    @field_validator("question")
    @classmethod
    def _says_something(cls, question: str) -> str:
        if not question.strip():
            raise ValueError("is blank; say what to look for")
        return question

    @field_validator("filter")
    @classmethod
    def _small(cls, filter: dict[str, Any] | None) -> dict[str, Any] | None:
        if _depth(filter) > DEEPEST_FILTER:
            raise ValueError(f"is nested more than {DEEPEST_FILTER} levels deep; make it flatter")
        if len(json.dumps(filter)) > LONGEST_FILTER:
            raise ValueError(f"has more than {LONGEST_FILTER} characters as JSON; make it shorter")
        return filter


class SearchRequest(_Asked):
    """Arguments of `search`."""

    k: Annotated[Count, Field(description="How many passages to return, best first.")] = 5


class AskRequest(_Asked):
    """Arguments of `ask`."""

    k: Annotated[Count | None, Field(description="How many passages to answer from; leave it out for the usual number.")] = None


class ReadRequest(Request):
    """Arguments of `read_source`."""

    id: Annotated[str, Field(min_length=1, max_length=1000, description="The id of a passage, as search and ask give it.")]
    around: Annotated[int, Field(ge=0, le=MOST_AROUND, description="Characters of the source to show on either side of it.")] = (
        1000
    )


R = TypeVar("R", bound=Request)


def read_request(kind: type[R], arguments: Mapping[str, Any] | None) -> R:
    """The checked arguments. Raises `InputError` that names the first wrong one and says what it may be."""
    try:
        return kind.model_validate(dict(arguments or {}))
    except ValidationError as error:
        raise InputError(_problem(error, kind)) from None


def _problem(error: ValidationError, kind: type[Request]) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"][:1]))
    if first["type"] == "extra_forbidden":
        return f"{place[:100]}: there is no such argument; use {', '.join(kind.model_fields)}"
    if first["type"] == "missing":
        return f"{place}: is missing; {kind.model_fields[place].description}"
    said = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    got = f", not {given!r}" if isinstance(given, int | float) or (isinstance(given, str) and len(given) <= 100) else ""
    return f"{place}: {said[0].lower()}{said[1:]}{got}"


def _depth(value: Any) -> int:
    """Levels of mappings and lists."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth
