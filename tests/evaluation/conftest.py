"""A test collection that is small enough to be computed by hand, with sentences and answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PASSAGES = {
    "p1": ("Apples", ["The apple is red. ", "Nobody knows why. ", "It grows on a tree."]),
    "p2": ("Pears", ["Pears are green. ", "A pear grows on a tree, too."]),
    "p3": ("", ["Boats float. ", "Cars have four wheels. ", "So do some boats."]),
    "p4": ("Cheese", ["Cheese is made of milk. ", "Milk comes from cows."]),
    "p5": ("Rivers", ["The Rhine flows to the sea. ", "Many boats float on it."]),
    "p6": ("Noise", ["Nothing of this matters."]),
}
QUESTIONS = {
    "q1": "What colour is the apple?",
    "q2": "How many wheels have cars?",
    "q3": "What is cheese made of?",
    "q4": "Where does the Rhine flow?",
    "q5": "Who knows why?",
}
QRELS = {"q1": {"p1": 2, "p2": 0}, "q2": {"p3": 1}, "q3": {"p4": 1}, "q4": {"p5": 1, "p3": 1}, "q5": {"p1": 1}}
GOLD = {"q1": ("p1", [0]), "q2": ("p3", [1]), "q3": ("p4", [0, 1])}
ANSWERS = {"q1": ["Red"], "q2": ["four   wheels"], "q3": ["butter", "milk"], "q4": ["the lake"]}


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """The collection as a folder in BEIR's layout, named `tiny`, with the splits test and train."""
    folder = tmp_path / "data" / "tiny"
    (folder / "qrels").mkdir(parents=True)
    records: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"_id": id_, "title": title, "text": "".join(its)} for id_, (title, its) in PASSAGES.items()],
        "queries": [
            {"_id": id_, "text": text, **({"answers": ANSWERS[id_]} if id_ in ANSWERS else {})} for id_, text in QUESTIONS.items()
        ],
        "sentences.test": [
            {"query_id": id_, "corpus_id": passage, "sentences": PASSAGES[passage][1], "gold": gold}
            for id_, (passage, gold) in GOLD.items()
        ],
    }
    for name, its_records in records.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in its_records))
    lines = [f"{id_}\t{passage}\t{gain}\n" for id_, its in QRELS.items() for passage, gain in its.items()]
    for split, its_lines in (("test", lines), ("train", lines[:2])):
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(its_lines))
    return folder


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes a pipeline's configuration, and says where."""

    def write(name: str, **fields: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(fields))
        return path

    return write
