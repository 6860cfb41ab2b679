"""The tables of a store, and the one row that says which of their versions belong together.

`ragkit_passages` has a row for each passage with all that the indexes know of it: for the n-th index `vector_n`, or `terms_n`,
`weights_n`, and for a lexical one `length_n` and `words_n`. `ragkit_sources` has the source texts, `ragkit_terms` in how many
passages a term of a lexical index occurs, as changes to be added up. `ragkit_published` has one row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ragkit.engines.base import Indexes
from ragkit.errors import InputError, StoreError
from ragkit.indexes.kinds import choose
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.text_index import DenseIndex, LexicalIndex

FORMAT = 1
PASSAGES, SOURCES, TERMS, PUBLISHED = "ragkit_passages", "ragkit_sources", "ragkit_terms", "ragkit_published"
DATA = (PASSAGES, SOURCES, TERMS)
"""The tables whose versions the row in `PUBLISHED` names."""
STORED = ("position", "digest", "source", "text", "metadata", "provenance")
"""Columns of a passage that `plan_upsert` compares."""
_LISTED = 4_000  # values in one condition
_TOKEN = 0xFFFFFFFFFF  # 40 bits: two terms in a million passages that share a token cost a candidate, not a hit


@dataclass
class State:
    """What is published: the versions of the tables, and what is known of all passages together."""

    settings: dict[str, dict[str, Any]]
    """Of each index, by name."""
    generation: int = 0
    split: dict[str, Any] | None = None
    next_position: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    """By table."""
    times: dict[str, float] = field(default_factory=dict)
    """When the writing of that version began, in seconds, by table."""
    passages: int = 0
    lengths: dict[str, float] = field(default_factory=dict)
    """The sum of the lengths of all passages, by lexical index."""
    writes: int = 0
    """Since the tables were last put in order."""
    changed: int = 0
    """Passages written or removed since then."""
    indexed: dict[str, int] = field(default_factory=dict)
    """How many passages there were when LanceDB's index on a column was built, by column."""
    format: int = FORMAT

    def to_json(self) -> str:
        """As it stands in the table; ASCII."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, place: str) -> Self:
        """Raises `StoreError` for another format version."""
        fields = json.loads(text)
        if fields.get("format") != FORMAT:
            raise StoreError(
                f"{place} has format {fields.get('format')}, this ragkit reads format {FORMAT}; index into another directory"
            )
        return cls(**fields)


def schemas(indexes: Indexes) -> dict[str, Any]:
    """The Arrow schema of each table."""
    import pyarrow as pa

    columns = [
        ("position", pa.int64()), ("key", pa.int64()), ("id", pa.string()), ("digest", pa.string()),
        ("source_key", pa.int64()), ("source", pa.string()), ("start", pa.int64()),
        ("text", pa.large_string()), ("metadata", pa.large_string()), ("provenance", pa.large_string()),
        ("keys", pa.list_(pa.binary())), ("held", pa.list_(pa.binary())),
    ]  # fmt: skip
    for number, name in enumerate(indexes.settings):
        index = indexes[name]
        if isinstance(index, DenseIndex):
            item = pa.float16() if index.index.precision == "float16" else pa.float32()
            columns.append((f"vector_{number}", pa.list_(item, index.encoder.dimension)))
            continue
        columns += [(f"terms_{number}", pa.list_(pa.int64())), (f"weights_{number}", pa.list_(pa.float32()))]
        if isinstance(index, LexicalIndex):
            columns += [(f"length_{number}", pa.float64()), (f"words_{number}", pa.large_string())]
    strings = [(name, pa.string()) for name in ("name", "file", "digest")]
    return {
        PASSAGES: pa.schema(columns),
        SOURCES: pa.schema([("name_key", pa.int64()), ("file_key", pa.int64()), *strings, ("text", pa.large_string())]),
        TERMS: pa.schema([("number", pa.int32()), ("term", pa.int64()), ("documents", pa.int64())]),
        PUBLISHED: pa.schema(
            [("generation", pa.int64()), ("state", pa.large_string()), ("writer", pa.string()), ("until", pa.float64())]
        ),
    }


def check(indexes: Indexes) -> None:
    """Raise `InputError` for settings that cannot be had here."""
    for name in indexes.settings:
        where, index = f"indexes: {name!r}", indexes[name]
        if isinstance(index, DenseIndex):
            if index.index.kind not in ("auto", "flat", "ivf"):
                raise InputError(f"{where} is of kind {index.index.kind!r}; LanceDB has auto, flat and ivf")
        elif index.index.budget is not None:
            raise InputError(f"{where}: has a budget, which only an index in a directory keeps; leave it out")
        elif isinstance(index, SparseIndex) and index.index.ceiling is not None:
            raise InputError(f"{where}: has a ceiling, but LanceDB keeps weights in 32 bits; leave it out")


def numbers(settings: Mapping[str, Any]) -> dict[str, int]:
    """The number of each index's columns."""
    return {name: number for number, name in enumerate(settings)}


def wants_lists(index: DenseIndex, count: int) -> bool:
    """Whether so many vectors are to be searched by an approximate index, rather than exactly."""
    match index.index.kind:
        case "ivf":
            return count >= index.index.codes_from
        case "auto":
            return choose(count) != "flat"
    return False


def key_of(text: str) -> int:
    """A text as a number that is looked up fast: the first 64 bits, signed, of its BLAKE2b digest."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True)


def token_of(term: int) -> str:
    """A term as LanceDB's full-text index sees it: ten hexadecimal digits of its key."""
    return f"{term & _TOKEN:010x}"


def among(column: str, values: Iterable[int] | Sequence[str]) -> str:
    """The condition that a column has one of these numbers, or of these texts of hexadecimal digits."""
    listed = ", ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in values)
    return f"{column} IN ({listed})" if listed else "false"


def among_each(column: str, values: Sequence[int] | Sequence[str]) -> Iterator[str]:
    """Conditions like that of `among` for all of the values together, of which none is too long."""
    for first in range(0, len(values), _LISTED):
        yield among(column, values[first : first + _LISTED])
