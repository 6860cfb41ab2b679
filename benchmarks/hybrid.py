"""nDCG@10, recall@100 and milliseconds per question of BM25, dense retrieval and every way of fusing the two.

    python benchmarks/hybrid.py scifact squad vaswani cacm covidqa hotpotqa
    python benchmarks/hybrid.py jaquad cmrc2018 xquad/de      # also BM25 over tokens split at white space

Writes benchmarks/results/hybrid.md, where the sets of earlier runs stay. Datasets are folders below $RAGKIT_DATA (default:
../shared/data); indexes are kept in .cache/benchmarks. The fitted weight comes from the training split of the set, or else of
scifact, and never from the questions it is reported on.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

from retrieval import DATA, ROOT

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, Store
from ragkit.encoders.lexical import Analyzer
from ragkit.evaluation.datasets import Dataset, load_dataset
from ragkit.evaluation.metrics import evaluate
from ragkit.retrievers.base import StoreRetriever
from ragkit.retrievers.fast_forward import FastForwardRetriever
from ragkit.retrievers.fusion import convex_combination
from ragkit.retrievers.weights import Labelled, fit_weights
from ragkit.store.store import bm25_and_dense
from ragkit.store.text_index import LexicalIndex

LANGUAGES = {"jaquad": "japanese", "cmrc2018": "chinese"}
SPLITS = {"hotpotqa": "dev", "jaquad": "dev", "cmrc2018": "dev", "qed": "dev"}
"""What is reported, where that is not the test split."""
MEASURES = ("nDCG@10", "R@100")
RESULTS = ROOT / "benchmarks" / "results" / "hybrid.md"
FIGURES = ROOT / ".cache" / "benchmarks" / "hybrid.json"
LABELLED = 200
"""Training questions that the weight is fitted on."""


@dataclass(frozen=True)
class Whitespace(Analyzer):
    """Lower-cased tokens between white space: what BM25 is often run on, whatever the language."""

    def _pieces(self, text: str) -> list[str]:
        return text.lower().split()

    def _terms(self, pieces: Iterable[str]) -> dict[str, tuple[str, ...]]:
        return {piece: (piece,) for piece in pieces}


class Row(NamedTuple):
    """One system on one dataset: the measures, and milliseconds per question."""

    values: dict[str, float]
    each: float


def language(name: str) -> str:
    """The language of a dataset, as an analyzer takes it."""
    return name.removeprefix("xquad/") if name.startswith("xquad/") else LANGUAGES.get(name, "english")


@cache
def load(name: str, split: str) -> Dataset:
    """One split of a dataset."""
    return load_dataset(DATA / name, split)


def open_store(name: str) -> Store:
    """The dataset's corpus, indexed for BM25 and dense retrieval on the first call."""
    path = ROOT / ".cache" / "benchmarks" / name
    indexes = bm25_and_dense(language=language(name))
    store = Store.open(path) if (path / "manifest.json").exists() else Store.create(path, indexes)
    store.upsert(load(name, SPLITS.get(name, "test")).documents)
    return store


@cache
def fitted(name: str) -> list[float]:
    """Weights of BM25 and dense retrieval under min-max, fitted on training questions of this set, or of scifact."""
    home = name if (DATA / name / "qrels" / "train.tsv").exists() else "scifact"
    store, dataset = open_store(home), load(home, "train")
    ids = random.Random(0).sample(sorted(dataset.queries), min(LABELLED, len(dataset.queries)))
    texts = [dataset.queries[id_] for id_ in ids]
    sources = [retriever.rank(store.snapshot, texts, 100, None) for retriever in halves(store)]
    questions = []
    for i, id_ in enumerate(ids):
        # found documents by position, and the relevant ones that nothing found under numbers that no document has
        rankings = [source[i].ranking for source in sources]
        found = sorted({int(position) for ranking in rankings for position in ranking.positions})
        names = {str(document.id): position for position, document in zip(found, store.snapshot.documents(found), strict=True)}
        gains = {names.get(document, -1 - n): float(gain) for n, (document, gain) in enumerate(dataset.qrels[id_].items())}
        questions.append(Labelled(rankings, gains))
    return list(fit_weights(questions, partial(convex_combination, normaliser="min-max")).weights)


def halves(store: Store) -> list[StoreRetriever]:
    """What is fused."""
    return [BM25Retriever(store=store), DenseRetriever(store=store)]


def systems(name: str, store: Store) -> dict[str, StoreRetriever]:
    """Every row of the table, by its name."""
    bm25, dense = halves(store)
    rows: dict[str, StoreRetriever] = {}
    if language(name) != "english":
        plain = Store.memory({"bm25": LexicalIndex(Whitespace())})
        plain.upsert(load(name, SPLITS.get(name, "test")).documents)
        rows["BM25, tokens between white space"] = BM25Retriever(store=plain)
    return rows | {
        "BM25": bm25,
        "dense (all-MiniLM-L6-v2)": dense,
        "RRF": HybridRetriever(store=store, fusion="rrf"),
        "CC, min-max, 0.5": HybridRetriever(store=store, normaliser="min-max"),
        "CC, min-max, fitted": HybridRetriever(store=store, normaliser="min-max", weights=fitted(name)),
        "DBSF": HybridRetriever(store=store, normaliser="dbsf"),
        "Fast-Forward": FastForwardRetriever(store=store),
        "default": HybridRetriever(store=store),
    }


def measure(name: str) -> dict[str, Row]:
    """All systems on one dataset."""
    dataset, store = load(name, SPLITS.get(name, "test")), open_store(name)
    ids, texts = list(dataset.queries), list(dataset.queries.values())
    rows = {}
    for system, retriever in systems(name, store).items():
        retriever.batch(texts[:8], k=100)  # what is compiled, mapped or loaded at first use is not a question's cost
        started = time.perf_counter()
        results = dict(zip(ids, retriever.batch(texts, k=100), strict=True))
        each = (time.perf_counter() - started) / len(texts) * 1000
        rows[system] = Row(evaluate(results, dataset.qrels, MEASURES), each)
        print(f"{name}: {system}: {rows[system]}")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    names = parser.parse_args(arguments).datasets
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for name in names:
        dataset, rows = load(name, SPLITS.get(name, "test")), measure(name)
        figures[name] = {
            "about": f"{name} {dataset.split}: {len(dataset.documents)} documents, {len(dataset.queries)} questions; "
            f"BM25 has {fitted(name)[0]:.2f} of the fitted weight",
            "rows": {system: [*(row.values[measure] for measure in MEASURES), row.each] for system, row in rows.items()},
        }
        FIGURES.write_text(json.dumps(figures, indent=1))
    RESULTS.write_text(report(figures))
    print(RESULTS.read_text())


def report(figures: dict[str, dict[str, object]]) -> str:
    """All figures so far, as Markdown."""
    lines = ["# BM25, dense, and the two fused", ""]
    for name in figures:
        about, rows = figures[name]["about"], figures[name]["rows"]
        assert isinstance(rows, dict)
        best = max(rows["BM25"][0], rows["dense (all-MiniLM-L6-v2)"][0])
        lines += [
            str(about),
            "",
            "| system | nDCG@10 | over the better half | R@100 | ms/question |",
            "|---|---:|---:|---:|---:|",
        ]
        lines += [f"| {s} | {n:.4f} | {n - best:+.4f} | {r:.4f} | {each:.1f} |" for s, (n, r, each) in rows.items()]
        lines += ["", f"`python benchmarks/hybrid.py {name}`", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
