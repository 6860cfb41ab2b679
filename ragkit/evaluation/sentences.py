"""Datasets in which people marked, for a question and a passage, the sentences that hold the evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from ragkit.documents.lines import trim
from ragkit.documents.model import Unit
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.errors import InputError
from ragkit.evaluation.datasets import read_jsonl

_PREFERRED = ("test", "dev")


@dataclass(frozen=True)
class LabelledPassage:
    """A passage whose units are the dataset's own sentences; `gold` has the positions of those units that hold evidence."""

    document: Document
    gold: tuple[int, ...]


@dataclass(frozen=True)
class LabelledQuestion:
    """A question and its candidate passages; `record` is the question's whole line in `queries.jsonl`."""

    id: str
    text: str
    passages: tuple[LabelledPassage, ...]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class SentenceDataset:
    """The questions of one split, in the order of the file; `left_out` counts the rows that are marked as ambiguous."""

    name: str
    split: str
    questions: tuple[LabelledQuestion, ...]
    left_out: int

    @property
    def passages(self) -> list[LabelledPassage]:
        """The passages of all questions, in order."""
        return [passage for question in self.questions for passage in question.passages]


def load_sentences(folder: str | Path, split: str | None = None, questions: int | None = None) -> SentenceDataset:
    """`read_sentences` for who measures by them: raises `InputError` also if there is no gold sentence."""
    dataset = read_sentences(folder, split, questions)
    if not any(passage.gold for passage in dataset.passages):
        raise InputError(
            f"dataset: {Path(folder) / f'sentences.{dataset.split}.jsonl'} has no gold sentence among its first "
            f"{len(dataset.questions)} questions, so nothing can be measured"
        )
    return dataset


def read_sentences(folder: str | Path, split: str | None = None, questions: int | None = None) -> SentenceDataset:
    """Read `sentences.<split>.jsonl[.gz]`, with questions from `queries.jsonl[.gz]` and titles from `corpus.jsonl[.gz]`.

    A row holds `query_id`, `corpus_id`, `sentences` (joined they are the passage) and `gold`, the positions of the evidence; a
    passage without evidence has none. Rows with `"unambiguous": false` are left out, and so is a repeated row. Without `split`
    it is test, else dev, else the first by name. `questions` takes that many from the start of the file.

    Raises `InputError`, naming the file, if one is missing or malformed.
    """
    folder = Path(folder)
    split = _split(folder, split)
    path = folder / f"sentences.{split}.jsonl"
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    left_out = 0
    for where, row in _records(path, {"query_id", "corpus_id", "sentences", "gold"}):
        question, passage = str(row["query_id"]), str(row["corpus_id"])
        if question not in rows and questions is not None and len(rows) == questions:
            continue
        if row.get("unambiguous") is False:
            left_out += 1
        elif rows.setdefault(question, {}).setdefault(passage, row) != row:
            raise InputError(f"dataset: {where}: question {question!r} has passage {passage!r} twice, with different content")
        else:
            _check(row, where)
    titles = _needed(folder / "corpus.jsonl", {"_id"}, {passage for its_rows in rows.values() for passage in its_rows})
    queries = _needed(folder / "queries.jsonl", {"_id", "text"}, set(rows))
    found = tuple(
        LabelledQuestion(
            id_,
            queries[id_]["text"],
            tuple(_passage(f"{id_} {corpus_id}", row, titles[corpus_id].get("title")) for corpus_id, row in its_rows.items()),
            queries[id_],
        )
        for id_, its_rows in rows.items()
    )
    return SentenceDataset(folder.name, split, found, left_out)


def _split(folder: Path, split: str | None) -> str:
    names = {path.name.removesuffix(".gz") for path in folder.glob("sentences.*.jsonl*")}
    splits = sorted(name.removeprefix("sentences.").removesuffix(".jsonl") for name in names if name.endswith(".jsonl"))
    if not splits:
        raise InputError(f"dataset: {folder} has no sentences.<split>.jsonl or sentences.<split>.jsonl.gz")
    if split is None:
        split = next((name for name in _PREFERRED if name in splits), splits[0])
    if split not in splits:
        raise InputError(f"split: {split!r} is none of those in {folder}; use one of {', '.join(splits)}")
    return split


def _records(path: Path, fields: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, record in enumerate(read_jsonl(path), 1):
        where = f"{path}, record {number}"
        if not isinstance(record, dict) or not fields <= record.keys():
            raise InputError(f"dataset: {where}: must be an object with {', '.join(sorted(fields))}")
        yield where, record


def _needed(path: Path, fields: set[str], ids: set[str]) -> dict[str, dict[str, Any]]:
    found = {str(record["_id"]): record for _, record in _records(path, fields) if str(record["_id"]) in ids}
    for id_ in sorted(ids - found.keys()):
        raise InputError(f"dataset: {path} has no record with _id {id_!r}, which the sentences refer to")
    return found


def _check(row: dict[str, Any], where: str) -> None:
    sentences, gold = row["sentences"], row["gold"]
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise InputError(f"dataset: {where}: sentences must be a list of strings")
    if not "".join(sentences).strip():
        raise InputError(f"dataset: {where}: sentences hold no text")
    if not isinstance(gold, list) or not all(type(at) is int and 0 <= at < len(sentences) for at in gold):
        raise InputError(f"dataset: {where}: gold must be a list of positions in sentences, from 0 to {len(sentences) - 1}")


def _passage(id_: str, row: dict[str, Any], title: object) -> LabelledPassage:
    text = "".join(row["sentences"])
    units: list[Unit] = []
    gold: list[int] = []
    end = 0
    for at, sentence in enumerate(row["sentences"]):
        start, end = end, end + len(sentence)
        unit = Unit(*trim(text, start, end))
        # white space between sentences is a sentence of its own in some datasets
        if unit.start < unit.end:
            if at in row["gold"]:
                gold.append(len(units))
            units.append(unit)
    document = Document(id=id_, page_content=text, metadata={"title": str(title)} if title else {})
    return LabelledPassage(with_provenance(document, Provenance(units=tuple(units))), tuple(gold))
