"""Evidence kept against text removed, for the model-free pruners over a sweep of thresholds.

    python benchmarks/pruning.py squad --split train        # writes benchmarks/results/pruning-squad-train.md
    python benchmarks/pruning.py hotpotqa --split train

Datasets are folders below $RAGKIT_DATA (default: ../shared/data) with `sentences.<split>.jsonl.gz`: question, passage,
sentences and gold sentences. A passage without gold sentences counts as irrelevant.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document

from ragkit import ExtractivePruner, provenance
from ragkit.documents.model import Unit
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.evaluation.datasets import read_jsonl

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("RAGKIT_DATA", ROOT.parent / "shared" / "data"))
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def as_document(row: dict[str, Any]) -> Document:
    """The passage of one row, with the dataset's own sentences as its units."""
    ends = np.cumsum([len(sentence) for sentence in row["sentences"]]).tolist()
    units = []
    for sentence, end in zip(row["sentences"], ends, strict=True):
        start = end - len(sentence.lstrip())
        units.append(Unit(start, max(start, end - len(sentence) + len(sentence.rstrip()))))
    document = Document(id=f"{row['query_id']} {row['corpus_id']}", page_content="".join(row["sentences"]))
    return with_provenance(document, Provenance(units=tuple(units)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--split", default="train")
    parser.add_argument("--questions", type=int, default=1000, help="how many questions to use, from the start of the file")
    arguments = parser.parse_args()
    folder = DATA / arguments.dataset
    texts = {record["_id"]: record["text"] for record in read_jsonl(folder / "queries.jsonl")}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(folder / f"sentences.{arguments.split}.jsonl"):
        if row["query_id"] in rows or len(rows) < arguments.questions:
            rows.setdefault(row["query_id"], []).append(row)
    inputs: list[Any] = [
        {"query": texts[question], "documents": [as_document(row) for row in its_rows]} for question, its_rows in rows.items()
    ]
    gold = [set(row["gold"]) for its_rows in rows.values() for row in its_rows]
    lines = [
        f"{arguments.dataset} {arguments.split}, first {len(rows)} questions, {len(gold)} passages "
        f"({sum(map(bool, gold))} with gold sentences)",
        "",
        "| scorer | threshold | gold sentences kept | text removed, relevant | text removed, irrelevant |",
        "|---|---:|---:|---:|---:|",
    ]
    for scorer in ("dense", "bm25", "hybrid"):
        pruner = ExtractivePruner(scorer=scorer, threshold=0, drop_empty=False)
        records = [provenance(document) for documents in pruner.batch(inputs) for document in documents]
        for threshold in THRESHOLDS:
            lines.append(f"| {scorer} | {threshold:.1f} | {' | '.join(measure(records, gold, threshold))} |")
    table = "\n".join(
        [*lines, "", f"`python benchmarks/pruning.py {arguments.dataset} --split {arguments.split} --questions {len(rows)}`", ""]
    )
    print(table)
    (ROOT / "benchmarks" / "results" / f"pruning-{arguments.dataset}-{arguments.split}.md").write_text(table)


def measure(records: list[Provenance], gold: list[set[int]], threshold: float) -> list[str]:
    """Share of gold sentences kept; mean share of characters removed from passages with and without gold sentences."""
    kept, total, removed = 0, 0, {True: [], False: []}
    for record, its_gold in zip(records, gold, strict=True):
        units, scores = record.units or (), np.array(record.unit_scores or ())
        keep = (scores >= threshold) & (scores > 0)
        kept += sum(bool(keep[at]) for at in its_gold)
        total += len(its_gold)
        lengths = np.array([unit.end - unit.start for unit in units])
        removed[bool(its_gold)].append(1 - lengths[keep].sum() / max(lengths.sum(), 1))
    return [
        f"{kept / max(total, 1):.3f}",
        *(f"{np.mean(removed[side]):.3f}" if removed[side] else "-" for side in (True, False)),
    ]


if __name__ == "__main__":
    main()
