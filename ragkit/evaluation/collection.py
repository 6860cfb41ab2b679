"""Test collections: a corpus, questions and judgements, with answers and evidence where they are known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from ragkit.documents.provenance import provenance
from ragkit.documents.spans import Span
from ragkit.errors import InputError
from ragkit.evaluation.datasets import data_folder, load_dataset, read_jsonl
from ragkit.evaluation.sentences import read_sentences

_PREFERRED = ("test", "dev")


@dataclass(frozen=True)
class Gold:
    """A sentence that holds evidence for a question."""

    document: str
    text: str
    span: Span | None
    """Where it stands in the document's text, in characters; None if it is not there verbatim."""


@dataclass(frozen=True)
class Collection:
    """A dataset as it is evaluated. All mappings are by question id, and have no question that `queries` has not."""

    name: str
    split: str
    documents: Mapping[str, Document]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    """Question to document to relevance; 0 and less is irrelevant."""
    answers: Mapping[str, tuple[str, ...]]
    """Any of them will do; only questions with answers are here."""
    gold: Mapping[str, tuple[Gold, ...]]
    """Only questions with gold sentences are here."""

    @cached_property
    def digest(self) -> str:
        """Changes with ids, texts and titles of the documents."""
        found = hashlib.blake2b(digest_size=16)
        for id_, document in self.documents.items():
            for part in (id_, document.page_content, str(document.metadata.get("title", ""))):
                encoded = part.encode("utf-8", "surrogatepass")
                found.update(len(encoded).to_bytes(8, "little") + encoded)
        return found.hexdigest()


def load_collection(name: str, split: str | None = None, limit: int | None = None) -> Collection:
    """A dataset in BEIR's layout, by its folder or its name below $RAGKIT_DATA, or else one of ir_datasets by its id.

    Without `split` that of a folder is test, else dev, else the first by name; that of an ir_datasets id is the id itself, and
    with it the id has `/split` appended. `limit` takes that many questions, in the order of the judgements. A folder's
    `queries.jsonl` may have `answers` (a list of strings) beside a question, and `sentences.<split>.jsonl` has gold sentences.

    Raises `InputError`, naming the file or the id, if something is missing or malformed, or there is no question to ask.
    """
    try:
        folder = data_folder(name)
    except InputError as error:
        found = _from_ir_datasets(name, split, f"{error}")
    else:
        found = _from_folder(folder, split)
    ids = [id_ for id_ in found.qrels if id_ in found.queries][:limit]
    if not ids:
        raise InputError(f"split: {found.split!r} of {name} has no question with judgements, so nothing can be measured")
    return Collection(
        found.name,
        found.split,
        found.documents,
        {id_: found.queries[id_] for id_ in ids},
        {id_: found.qrels[id_] for id_ in ids},
        {id_: found.answers[id_] for id_ in ids if id_ in found.answers},
        {id_: found.gold[id_] for id_ in ids if id_ in found.gold},
    )


def _from_folder(folder: Path, split: str | None) -> Collection:
    split = _split(folder, split)
    dataset = load_dataset(folder, split)
    documents = {str(document.id): document for document in dataset.documents}
    if len(documents) < len(dataset.documents):
        raise InputError(f"dataset: {folder / 'corpus.jsonl'} has an _id twice; every document needs its own")
    answers = {
        str(record["_id"]): tuple(str(answer) for answer in record["answers"] if str(answer).strip())
        for record in read_jsonl(folder / "queries.jsonl")
        if isinstance(record.get("answers"), list) and str(record["_id"]) in dataset.queries
    }
    return Collection(
        folder.resolve().name,
        split,
        documents,
        dataset.queries,
        dataset.qrels,
        {id_: its for id_, its in answers.items() if its},
        _gold(folder, split, documents),
    )


def _split(folder: Path, split: str | None) -> str:
    splits = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    splits += sorted({path.name.removesuffix(".tsv.gz") for path in (folder / "qrels").glob("*.tsv.gz")} - {*splits})
    if not splits:
        raise InputError(f"dataset: {folder} has no qrels/<split>.tsv, which says what is relevant to which question")
    if split is None:
        return next((name for name in _PREFERRED if name in splits), splits[0])
    if split not in splits:
        raise InputError(f"split: {split!r} is none of those in {folder / 'qrels'}; use one of {', '.join(splits)}")
    return split


def _gold(folder: Path, split: str, documents: Mapping[str, Document]) -> dict[str, tuple[Gold, ...]]:
    if not any((folder / f"sentences.{split}.jsonl{packed}").exists() for packed in ("", ".gz")):
        return {}
    found: dict[str, tuple[Gold, ...]] = {}
    for question in read_sentences(folder, split).questions:
        gold: list[Gold] = []
        for passage in question.passages:
            id_ = str(passage.document.id).removeprefix(f"{question.id} ")
            units = provenance(passage.document).units or ()
            spans = [(units[at].start, units[at].end) for at in passage.gold]
            gold += _placed(id_, documents, passage.document.page_content, spans)
        if gold:
            found[question.id] = tuple(gold)
    return found


def _placed(id_: str, documents: Mapping[str, Document], passage: str, spans: list[Span]) -> Iterator[Gold]:
    """The sentences of a passage where the document has it, behind its title; else each where it is found first."""
    whole = documents[id_].page_content
    # both may have lost white space at their ends
    shift = whole.find(passage.strip()) - (len(passage) - len(passage.lstrip()))
    for start, end in spans:
        text = passage[start:end]
        at = start + shift if whole.startswith(text, max(start + shift, 0)) else whole.find(text)
        yield Gold(id_, text, (at, at + len(text)) if at >= 0 else None)


def _from_ir_datasets(name: str, split: str | None, no_folder: str) -> Collection:
    try:
        ir_datasets = import_module("ir_datasets")
    except ImportError:
        raise InputError(f"{no_folder}; for an id of ir_datasets, install it: pip install 'ragkit[eval]'") from None
    id_ = name if split is None else f"{name}/{split}"
    try:
        dataset = ir_datasets.load(id_)
    except KeyError:
        raise InputError(f"{no_folder}; nor is {id_!r} an id of ir_datasets") from None
    for what in ("docs", "queries", "qrels"):
        if not getattr(dataset, f"has_{what}")():
            raise InputError(
                f"DATASET: {id_} of ir_datasets has no {what}; name a part of it that has documents, questions and qrels"
            )
    qrels: dict[str, dict[str, int]] = {}
    for judged in dataset.qrels_iter():
        qrels.setdefault(judged.query_id, {})[judged.doc_id] = int(judged.relevance)
    documents = {doc.doc_id: Document(id=doc.doc_id, page_content=_text(doc).strip()) for doc in dataset.docs_iter()}
    queries = {query.query_id: _text(query) for query in dataset.queries_iter()}
    return Collection(name, split or os.path.basename(id_), documents, queries, qrels, {}, {})


def _text(record: Any) -> str:
    """What ir_datasets takes as the text of a document or a question."""
    text = record.default_text() if hasattr(record, "default_text") else record.text
    return str(text)
