"""Examples to rows of a network, as they would be read in use, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.documents.model import Unit
from ragkit.encoders.pairs import PairTokenizer
from ragkit.provence.company import accompanied
from ragkit.provence.inputs import Row, rows
from ragkit.provence.pair import Pair
from ragkit.provence.titles import name_of, title_of
from ragkit.provence.windows import cut
from ragkit.training.examples import Example

_CHUNK = 512


class Labelled(NamedTuple):
    """A window and what is known of it."""

    row: Row
    group: str
    gold: NDArray[np.float32] | None
    """1 for each unit of the passage that is gold, else 0, [units]; None if not known."""
    relevant: bool
    teacher: float | None
    source: str


def pair_of(example: Example) -> Pair:
    """What a model reads of an example: the same title and name as for a document."""
    edges = [0, *accumulate(map(len, example.sentences))]
    units = tuple(Unit(start, end) for start, end in pairwise(edges))
    document = Document(page_content=example.passage, metadata={"title": example.title})
    return Pair(example.question, example.passage, units, title_of(document, units), name_of(document))


def labelled(
    examples: Sequence[Example],
    tokenizer: PairTokenizer,
    rarity: NDArray[np.float32] | None,
    advance: Callable[[int], None],
) -> list[Labelled]:
    """All windows of all examples; `advance` is told how many examples were read.

    Of a relevant passage in several windows, those without a gold sentence are irrelevant, as the passage's score is that of
    its best window. Where gold is not known every window counts as relevant.
    """
    found: dict[int, list[Labelled]] = {}
    for chunk in _chunks(examples):
        pairs = [pair for group in chunk for pair in _pairs([examples[at] for at in group], rarity)]
        places = [at for group in chunk for at in group]
        for at, windows in zip(places, cut(tokenizer, pairs), strict=True):
            found[at] = [_labelled(examples[at], row) for row in rows(windows, rarity)]
        advance(len(places))
    return [window for at in range(len(examples)) for window in found[at]]


def _chunks(examples: Sequence[Example]) -> Iterator[list[list[int]]]:
    """Where the examples of each question stand, about `_CHUNK` examples at a time."""
    groups: dict[str, list[int]] = {}
    for at, example in enumerate(examples):
        groups.setdefault(example.group, []).append(at)
    chunk: list[list[int]] = []
    for places in groups.values():
        chunk.append(places)
        if sum(map(len, chunk)) >= _CHUNK:
            yield chunk
            chunk = []
    yield chunk


def _pairs(group: Sequence[Example], rarity: NDArray[np.float32] | None) -> list[Pair]:
    """The passages of a question are each other's company, as those that are retrieved for it will be."""
    pairs = [pair_of(example) for example in group]
    return pairs if rarity is None else accompanied(pairs, rarity)


def _labelled(example: Example, row: Row) -> Labelled:
    if example.gold is None:
        return Labelled(_slim(row), example.group, None, example.relevant, example.teacher, example.source)
    gold = np.zeros(len(example.sentences), np.float32)
    gold[list(example.gold)] = 1
    shown = bool(gold[row.owners[row.owners >= 0]].any())
    return Labelled(_slim(row), example.group, gold, example.relevant and shown, example.teacher, example.source)


def _slim(row: Row) -> Row:
    """The same numbers in a quarter of the memory."""
    small = (row.ids.astype(np.int32), row.marks.astype(np.int8), row.owners.astype(np.int16))
    return Row(*small, row.units, row.whole)  # type: ignore[arg-type]
