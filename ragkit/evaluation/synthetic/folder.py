"""Questions and passages as a dataset in the layout of BEIR, with the sentence that each question was made from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragkit.errors import InputError
from ragkit.evaluation.synthetic.make import Question
from ragkit.store.passages import Passage

ABOUT = "about.json"
"""The file that says how the questions were made."""
_FILES = ("corpus.jsonl", "queries.jsonl", "sentences.test.jsonl", ABOUT)


def check_free(folder: Path) -> None:
    """Raises `InputError` if the folder is a file, or holds a dataset already."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out: {folder} is a file; a dataset needs a folder")
    if any((folder / name).exists() for name in (*_FILES, "qrels")):
        raise InputError(f"--out: {folder} already holds a dataset; choose another folder, or delete it")


def write_dataset(folder: Path, passages: Sequence[Passage], questions: Sequence[Question], about: Mapping[str, Any]) -> None:
    """Write `corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv` and `sentences.test.jsonl`, and `about` into `about.json`.

    Questions are numbered from q1 on; a passage's title is its headings. `load_dataset` and `load_sentences` read it back.
    """
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    numbered = [(f"q{n}", question) for n, question in enumerate(questions, 1)]
    _write_lines(
        folder / "corpus.jsonl",
        ({"_id": p.id, "title": p.headings, "text": p.text, "source": p.source} for p in passages),
    )
    _write_lines(folder / "queries.jsonl", ({"_id": id_, "text": question.text} for id_, question in numbered))
    with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8", newline="") as file:
        # quotes ids that hold a tab, a line break or a quotation mark
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("query-id", "corpus-id", "score"))
        writer.writerows((id_, passage, 1) for id_, question in numbered for passage in question.relevant)
    _write_lines(
        folder / "sentences.test.jsonl",
        ({"query_id": id_, "corpus_id": q.passage.id, "sentences": q.passage.sentences, "gold": [q.gold]} for id_, q in numbered),
    )
    (folder / ABOUT).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
