"""Examples to rows of a network, as they would be read in use, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.documents.model import Unit
from ragkit.encoders.pairs import PairTokenizer
from ragkit.provence.inputs import Row, rows
from ragkit.provence.pair import Pair
from ragkit.provence.titles import title_of
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
    """What a model reads of an example: the same title as for a document."""
    edges = [0, *accumulate(map(len, example.sentences))]
    units = tuple(Unit(start, end) for start, end in pairwise(edges))
    document = Document(page_content=example.passage, metadata={"title": example.title})
    return Pair(example.question, example.passage, units, title_of(document, units))


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
    found = []
    for start in range(0, len(examples), _CHUNK):
        chunk = examples[start : start + _CHUNK]
        for example, windows in zip(chunk, cut(tokenizer, [pair_of(example) for example in chunk]), strict=True):
            for row in rows(windows, rarity):
                found.append(_labelled(example, row))
        advance(len(chunk))
    return found


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
