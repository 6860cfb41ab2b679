"""Examples: a question, a passage in sentences, and which of them to keep. What a Provence model is trained on."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from ragkit.documents.blocks import text_blocks
from ragkit.documents.sentences import units
from ragkit.errors import InputError
from ragkit.training.jsonl import read_lines


class Passage(NamedTuple):
    """A passage that belongs to no question yet; `"".join(sentences)` is its text."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One passage for one question, with what is known of it. Raises `InputError`, naming the field, for what cannot be.

    A passage whose sentences are known is relevant exactly if one of them is to be kept.
    """

    id: str
    group: str
    """Id of the question; all passages of one question share it."""
    question: str
    title: str = ""
    sentences: tuple[str, ...]
    """The passage, cut into pieces that are kept or dropped as a whole; joined without anything between, they are its text."""
    gold: tuple[int, ...] | None
    """Indices of the sentences to keep, ascending; empty if nothing here helps, None if nobody has said."""
    relevant: bool
    """Whether the passage helps to answer the question."""
    teacher: float | None = None
    """Relevance by a teacher model."""
    source: str = ""
    """The data set it comes from."""

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise InputError(f"example {self.id!r}: {fault}")

    @property
    def passage(self) -> str:
        """The whole text."""
        return "".join(self.sentences)

    def _fault(self) -> str:
        for field in ("id", "group", "question"):
            if not getattr(self, field).strip():
                return f"{field}: must not be blank"
        if not self.sentences:
            return "sentences: a passage has at least one"
        blank = next((at for at, sentence in enumerate(self.sentences) if not sentence.strip()), None)
        if blank is not None:
            return f"sentences: number {blank} is blank; join it to its neighbour"
        if self.teacher is not None and not math.isfinite(self.teacher):
            return f"teacher: {self.teacher} is no finite number; use null where there is none"
        return "" if self.gold is None else self._gold_fault(self.gold)

    def _gold_fault(self, gold: tuple[int, ...]) -> str:
        outside = next((at for at in gold if not 0 <= at < len(self.sentences)), None)
        if outside is not None:
            return f"gold: {outside} is none of the {len(self.sentences)} sentences, which count from 0"
        if any(first >= second for first, second in pairwise(gold)):
            return f"gold: {list(gold)} must be ascending, each sentence once"
        if self.relevant != bool(gold):
            return f"relevant: {self.relevant} contradicts gold {list(gold)}; gold is null where the sentences are not known"
        return ""


EXAMPLE = TypeAdapter(Example)


def read_examples(path: str | Path) -> list[Example]:
    """Examples of a JSONL file, one object per line (`.gz` is unpacked). Fields that an example does not have are ignored.

    Raises `InputError`, naming file, line and field, for a malformed line and for an id that occurs twice.
    """
    examples: dict[str, Example] = {}
    for place, example in read_lines(Path(path), EXAMPLE, strict=True):
        if example.id in examples:
            raise InputError(f"{place}: id: {example.id!r} occurs a second time")
        examples[example.id] = example
    return list(examples.values())


def write_examples(path: str | Path, examples: Iterable[Example]) -> None:
    """Write a JSONL file that `read_examples` reads back; gzipped, the same bytes for the same examples, if it ends in `.gz`."""
    data = b"".join(EXAMPLE.dump_json(example) + b"\n" for example in examples)
    path = Path(path)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def split_sentences(text: str, language: str = "en") -> tuple[str, ...]:
    """The text cut where ragkit cuts it for pruning, white space going to the sentence before. None for a blank text."""
    starts = [unit.start for unit in units(text, text_blocks(text), language)]
    return tuple(text[start:end] for start, end in pairwise([0, *starts[1:], len(text)])) if starts else ()


def same_text(text: str) -> str:
    """A form in which texts that differ only in white space and case are equal."""
    return " ".join(text.split()).casefold()
