"""Retrieval datasets in the layout of BEIR: corpus, queries and relevance judgements (qrels) as plain files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
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


def data_folder(dataset: str) -> Path:
    """The folder of that path, or of that name below $RAGKIT_DATA. Raises `InputError` if there is neither."""
    home = os.environ.get("RAGKIT_DATA")
    for folder in (Path(dataset), *([Path(home) / dataset] if home else [])):
        if folder.is_dir():
            return folder
    known = f"nor one below RAGKIT_DATA ({home})" if home else "and RAGKIT_DATA, below which it could be, is not set"
    raise InputError(f"DATASET: {dataset} is no folder, {known}")


def load_dataset(folder: str | Path, split: str = "test") -> Dataset:
    """Read `corpus.jsonl[.gz]`, `queries.jsonl[.gz]` and `qrels/<split>.tsv`; only questions with judgements are kept.

    A document's text is its title, a space, and its text. Raises `InputError`, naming the file, if one is missing or malformed.
    """
    folder = Path(folder)
    qrels = _read_qrels(folder / "qrels" / f"{split}.tsv")
    documents = [
        Document(
            id=str(record["_id"]),
            page_content=f"{record.get('title') or ''} {record['text']}".strip(),
            metadata={"title": record.get("title") or ""},
        )
        for record in _read_texts(folder / "corpus.jsonl")
    ]
    texts = {str(record["_id"]): record["text"] for record in _read_texts(folder / "queries.jsonl")}
    return Dataset(folder.name, split, documents, {id_: texts[id_] for id_ in qrels if id_ in texts}, qrels)


def _read_texts(path: Path) -> Iterator[dict[str, Any]]:
    for record in read_jsonl(path):
        if not isinstance(record, dict) or "_id" not in record or not isinstance(record.get("text"), str):
            raise InputError(f"dataset: {path}: a record is no object with _id and text, a string: {str(record)[:80]}")
        yield record


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    rows = csv.DictReader(io.StringIO(_open(path, "dataset")), delimiter="\t")
    for row in rows:
        try:
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
        except (KeyError, TypeError, ValueError):
            wanted = "query-id, corpus-id and score (a whole number), named by a header and separated by tabs"
            raise InputError(f"dataset: {path}, line {rows.line_num}: must hold {wanted}") from None
    return qrels


def read_jsonl(path: Path, field: str = "dataset") -> Iterator[dict[str, Any]]:
    """Records of a JSONL file, or of the gzipped file beside it with `.gz` appended.

    Raises `InputError`, naming `field` and the file, if it is missing or a line is not JSON.
    """
    for number, line in enumerate(_open(path, field).split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{field}: {path}, line {number}: {error.msg}") from None


def _open(path: Path, field: str) -> str:
    packed = path.with_name(path.name + ".gz")
    if packed.exists() and not path.exists():
        path = packed
    try:
        return gzip.decompress(path.read_bytes()).decode("utf-8-sig") if path == packed else path.read_text("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise InputError(f"{field}: cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
