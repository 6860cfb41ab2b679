"""What callers send, checked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from ragkit.serving import limits
from ragkit.serving.parts import is_unicode, parts


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 5.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)
Query = Annotated[
    str, Field(min_length=1, max_length=limits.QUERY_CHARS, description="The question.", examples=["Which animals swim?"])
]
Text = Annotated[str, Field(max_length=limits.DOCUMENT_CHARS)]
K = Annotated[int, Field(ge=1, le=limits.K, description="How many passages."), _WHOLE]
Timeout = Annotated[
    float | None,
    Field(gt=0, description="Seconds within which the answer must be there, else it is 504; cut to what the service allows."),
]
Filter = Annotated[
    dict[str, Any] | None,
    Field(description="Metadata to match, such as {'lang': 'en'}; within what the key lets through.", examples=[None]),
]
Tokens = Annotated[int, Field(ge=1, le=limits.CONTEXT_TOKENS, description="Token budget of the context."), _WHOLE]
Top = Annotated[int, Field(ge=1, description="Return the best so many; by default all."), _WHOLE]


class TextDocument(BaseModel):
    """A document as an object: its text, a title, and anything else, which comes back as it was given."""

    model_config = ConfigDict(strict=True, extra="allow")

    text: Text
    title: Annotated[str, Field(max_length=limits.QUERY_CHARS)] = ""

    @model_validator(mode="after")
    def _can_come_back(self) -> TextDocument:
        for name, value in (self.model_extra or {}).items():
            for part, level in parts(value):
                if level > limits.FIELD_DEPTH:
                    raise ValueError(f"{name[:100]} has more than {limits.FIELD_DEPTH} levels; make it flatter, or leave it out")
                if isinstance(part, str) and not is_unicode(part):
                    raise ValueError(f"{name[:100]} has half of a surrogate pair in place of a character; send valid Unicode")
        return self


AS_TEXT, AS_OBJECT = "a text", "an object"
"""The two forms of a document, as errors name them between its number and its field."""


def _form(document: Any) -> str:
    return AS_OBJECT if isinstance(document, dict | TextDocument) else AS_TEXT


Documents = Annotated[
    list[Annotated[Annotated[Text, Tag(AS_TEXT)] | Annotated[TextDocument, Tag(AS_OBJECT)], Discriminator(_form)]],
    Field(min_length=1, max_length=limits.DOCUMENTS, description="Texts, or objects with a field `text`."),
]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    query: Query
    timeout_s: Timeout = None

    @model_validator(mode="before")
    @classmethod
    def _knows_most_fields(cls, data: Any) -> Any:
        # an error for each unknown one of a hundred thousand would hold up the whole service for seconds
        if isinstance(data, dict) and len(data) > len(cls.model_fields):
            raise ValueError(f"has fields that it does not take; it takes {', '.join(cls.model_fields)}")
        return data


class SearchRequest(_Request):
    """A search in the index."""

    k: K = 10
    filter: Filter = None


class GroundRequest(_Request):
    """A question whose context is wanted."""

    k: K | None = None
    filter: Filter = None
    max_tokens: Tokens | None = None
    explain: bool = Field(default=False, description="Also show every candidate, and the sentences that were left out.")


class AskRequest(_Request):
    """A question whose answer is wanted."""

    k: K | None = None
    filter: Filter = None
    max_tokens: Tokens | None = None
    abstain_below: float | None = Field(
        default=None, ge=0, le=1, description="Give no answer that is less likely than this; by default, what is calibrated."
    )
    stream: bool = Field(default=False, description="Answer with server-sent events: sources, tokens, then the whole answer.")


class RerankRequest(BaseModel):
    """As clients of Cohere's and Jina's rerank endpoints send it; fields of theirs that are not named here change nothing."""

    model_config = ConfigDict(strict=True, extra="ignore")

    query: Query
    documents: Documents
    model: Annotated[
        str | None, Field(max_length=limits.NAME_CHARS, description="A name that the service goes by.", examples=[None])
    ] = None
    top_n: Top | None = None
    return_documents: bool | None = Field(
        default=None, description="Whether the documents come back; by default they do from /v1, and do not from /v2."
    )
    rank_fields: None = Field(default=None, description="Not supported: join what is to be read into `text`.")
    timeout_s: Timeout = None


class PruneRequest(_Request):
    """Documents of which only what helps to answer is wanted."""

    documents: Documents
