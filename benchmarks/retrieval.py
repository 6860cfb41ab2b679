"""nDCG@10 and recall@100 of the retrievers on BEIR-style datasets.

    python benchmarks/retrieval.py scifact            # prints, and writes benchmarks/results/retrieval-scifact-test.md
    python benchmarks/retrieval.py squad --split train

Datasets are folders below $RAGKIT_DATA (default: ../shared/data). Indexes are kept in .cache/benchmarks, so that a
second run takes seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, Store
from ragkit.evaluation.datasets import Dataset, load_dataset
from ragkit.evaluation.metrics import evaluate
from ragkit.store.store import bm25_and_dense

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("RAGKIT_DATA", ROOT.parent / "shared" / "data"))
MEASURES = ("nDCG@10", "R@100", "RR@10")


def open_store(dataset: Dataset) -> Store:
    """The dataset's corpus, indexed for BM25 and dense retrieval on the first call."""
    path = ROOT / ".cache" / "benchmarks" / dataset.name
    store = Store.open(path) if (path / "manifest.json").exists() else Store.create(path, bm25_and_dense())
    # what is there already costs little, and a first run that was interrupted is made up for
    started = time.perf_counter()
    store.upsert(dataset.documents)
    print(f"indexed {len(dataset.documents)} documents in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return store


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    dataset = load_dataset(DATA / arguments.dataset, arguments.split)
    store = open_store(dataset)
    systems = {
        "BM25 (Lucene, English stems)": BM25Retriever(store=store),
        "dense (all-MiniLM-L6-v2)": DenseRetriever(store=store),
        "hybrid, RRF": HybridRetriever(store=store, fusion="rrf"),
        "hybrid, convex, z-score": HybridRetriever(store=store, normaliser="z-score"),
        "hybrid, convex, min-max": HybridRetriever(store=store, normaliser="min-max", weights=[1, 1]),
        "hybrid, convex (default)": HybridRetriever(store=store),
    }
    lines = [
        f"{dataset.name} {dataset.split}: {len(dataset.documents)} documents, {len(dataset.queries)} questions",
        "",
        f"| system | {' | '.join(MEASURES)} | ms/question |",
        f"|---|{'---:|' * (len(MEASURES) + 1)}",
    ]
    ids, texts = list(dataset.queries), list(dataset.queries.values())
    for name, retriever in systems.items():
        started = time.perf_counter()
        results = dict(zip(ids, retriever.batch(texts, k=100), strict=True))
        each = (time.perf_counter() - started) / len(texts) * 1000
        values = evaluate(results, dataset.qrels, MEASURES)
        lines.append(f"| {name} | {' | '.join(f'{values[measure]:.4f}' for measure in MEASURES)} | {each:.1f} |")
    table = "\n".join([*lines, "", f"`python benchmarks/retrieval.py {dataset.name} --split {dataset.split}`", ""])
    print(table)
    (ROOT / "benchmarks" / "results" / f"retrieval-{dataset.name}-{dataset.split}.md").write_text(table)


if __name__ == "__main__":
    main()
