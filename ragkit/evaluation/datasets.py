"""Retrieval datasets in the layout of BEIR: corpus, queries and relevance judgements (qrels) as plain files."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from ragkit.errors import InputError


@dataclass(frozen=True)
class Dataset:
    """A corpus, the questions of one split, and their judgements: question id to document id to relevance (0 is irrelevant)."""

    name: str
    split: str
    documents: list[Document]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]


def load_dataset(folder: str | Path, split: str = "test") -> Dataset:
    """Read `corpus.jsonl[.gz]`, `queries.jsonl[.gz]` and `qrels/<split>.tsv`; only questions with judgements are kept.

    A document's text is its title, a space, and its text. Raises `InputError`, naming the file, if one is missing.
    """
    folder = Path(folder)
    qrels: dict[str, dict[str, int]] = {}
    for row in csv.DictReader(io.StringIO(_open(folder / "qrels" / f"{split}.tsv")), delimiter="\t"):
        qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    documents = [
        Document(
            id=str(record["_id"]),
            page_content=f"{record.get('title', '')} {record['text']}".strip(),
            metadata={"title": record.get("title", "")},
        )
        for record in read_jsonl(folder / "corpus.jsonl")
    ]
    texts = {str(record["_id"]): record["text"] for record in read_jsonl(folder / "queries.jsonl")}
    return Dataset(folder.name, split, documents, {id_: texts[id_] for id_ in qrels if id_ in texts}, qrels)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a JSONL file, or of the gzipped file beside it with `.gz` appended."""
    for line in _open(path).split("\n"):
        if line.strip():
            yield json.loads(line)


def _open(path: Path) -> str:
    packed = path.with_name(path.name + ".gz")
    try:
        if packed.exists():
            return gzip.decompress(packed.read_bytes()).decode("utf-8")
        return path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"dataset: cannot read {path}: {error.strerror or error}") from None
