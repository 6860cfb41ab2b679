"""nDCG@10, recall@100 and milliseconds per question of BM25, dense retrieval, all that fuses them, feedback and reranking.

    python benchmarks/hybrid.py scifact squad vaswani cacm covidqa hotpotqa
    python benchmarks/hybrid.py jaquad cmrc2018 xquad/zh xquad/de      # also BM25 over tokens split at white space
    python benchmarks/hybrid.py xquad/ar xquad/el xquad/es xquad/hi xquad/ro xquad/ru xquad/th xquad/tr xquad/vi    # BM25 alone

Writes benchmarks/results/hybrid.md, where the sets of earlier runs stay. Datasets are folders below $RAGKIT_DATA (default:
../shared/data); indexes are kept in .cache/benchmarks. What is fitted comes from the training split of the set, or else of
scifact, and never from the questions it is reported on. MaxSim encodes what it ranks on the fly, which takes minutes; so it is
measured on some of the questions only (`--maxsim`, 0 leaves it out).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from langchain_core.documents import Document
from retrieval import DATA, ROOT

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, Store
from ragkit.encoders.languages import language_name
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import MissingExtraError
from ragkit.evaluation.datasets import Dataset, load_dataset
from ragkit.evaluation.metrics import evaluate
from ragkit.evaluation.tables import Table
from ragkit.rerankers.maxsim import MaxSimReranker
from ragkit.retrievers.base import StoreRetriever
from ragkit.retrievers.fast_forward import FastForwardRetriever
from ragkit.retrievers.feedback import RM3Retriever, RocchioRetriever
from ragkit.retrievers.fusion import convex_combination
from ragkit.retrievers.lambdamart import LambdaMART
from ragkit.retrievers.learned_fusion import LearnedFusionRetriever, fit_fusion
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
"""Training questions that weights are fitted on."""
K, RERANKED = 100, 50
FIXED = [1.0, 2.5]
"""Weights that do not depend on the question."""
SINGLES, FEW = 30, 3
"""Questions asked one at a time, and those of MaxSim."""
BM25, DENSE, DEFAULT, WHITESPACE = "BM25", "dense (all-MiniLM-L6-v2)", "default", "BM25, tokens between white space"

Ask = Callable[[list[str]], list[list[Document]]]
"""Questions to at most `K` documents for each, best first."""


LEGEND = """The column "ms/question" is that of one call with all questions, their encoding included; "p50 ms alone" is the median
of calls with one question each. CC is a convex combination of normalised scores, with the weights of BM25 and dense as they are
said, or fitted; LTR is the default's candidates reordered by trees. Both are fitted on training questions of the set, or of
scifact where it has none."""


@dataclass(frozen=True)
class Whitespace(Analyzer):
    """Lower-cased tokens between white space: what BM25 is often run on, whatever the language."""

    def _pieces(self, text: str) -> list[str]:
        return text.lower().split()

    def _terms(self, pieces: Iterable[str]) -> dict[str, tuple[str, ...]]:
        return {piece: (piece,) for piece in pieces}


class Row(NamedTuple):
    """One system on some questions of a dataset."""

    ndcg: float
    recall: float
    each: float
    """Milliseconds for a question when all are asked at once."""
    single: float
    """The median of milliseconds for a question that is asked alone."""


class Figures(NamedTuple):
    """A dataset in words, and its rows by system: on all questions, and on some."""

    about: str
    rows: dict[str, Row]
    some: dict[str, Row]


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


def encoded(name: str) -> bool:
    """Whether there are vectors of a dataset's passages; the model is one for English, others are there to see what it costs."""
    return not name.startswith("xquad/") or name in ("xquad/de", "xquad/en", "xquad/zh")


@cache
def labelled(name: str) -> tuple[str, dict[str, str]]:
    """The set whose training questions are for fitting, this one or scifact, and some of them by id."""
    home = name if (DATA / name / "qrels" / "train.tsv").exists() else "scifact"
    queries = load(home, "train").queries
    ids = random.Random(0).sample(sorted(queries), min(LABELLED, len(queries)))
    return home, {id_: queries[id_] for id_ in ids}


@cache
def fitted(name: str) -> list[float]:
    """Weights of BM25 and dense retrieval under min-max, fitted on labelled questions."""
    home, asked = labelled(name)
    store, dataset = open_store(home), load(home, "train")
    ids, texts = list(asked), list(asked.values())
    sources = [retriever.rank(store.snapshot, texts, K, None) for retriever in halves(store)]
    questions = []
    for i, id_ in enumerate(ids):
        # found documents by position, and the relevant ones that nothing found under numbers that no document has
        rankings = [source[i].ranking for source in sources]
        found = sorted({int(position) for ranking in rankings for position in ranking.positions})
        names = {str(document.id): position for position, document in zip(found, store.snapshot.documents(found), strict=True)}
        gains = {names.get(document, -1 - n): float(gain) for n, (document, gain) in enumerate(dataset.qrels[id_].items())}
        questions.append(Labelled(rankings, gains))
    return list(fit_weights(questions, partial(convex_combination, normaliser="min-max")).weights)


@cache
def learned(home: str) -> LambdaMART | None:
    """The trees of the learned fusion, fitted on the same questions; None where LightGBM is not installed."""
    try:
        retriever = fit_fusion(HybridRetriever(store=open_store(home)), labelled(home)[1], load(home, "train").qrels).retriever
    except MissingExtraError:
        return None
    assert isinstance(retriever.model, LambdaMART)
    return retriever.model


def halves(store: Store) -> list[StoreRetriever]:
    """What is fused."""
    return [BM25Retriever(store=store), DenseRetriever(store=store)]


def lexical(name: str, analyzer: Analyzer) -> StoreRetriever:
    """BM25 over a dataset's corpus, in memory."""
    store = Store.memory({"bm25": LexicalIndex(analyzer)})
    store.upsert(load(name, SPLITS.get(name, "test")).documents)
    return BM25Retriever(store=store)


def systems(name: str) -> dict[str, StoreRetriever]:
    """Every row of the table that is for all questions, by its name."""
    rows: dict[str, StoreRetriever] = {}
    if language(name) != "english":
        rows[WHITESPACE] = lexical(name, Whitespace())
    if not encoded(name):
        return rows | {BM25: lexical(name, Analyzer(language(name)))}
    store = open_store(name)
    bm25, dense = halves(store)
    rm3, rocchio = RM3Retriever(store=store), RocchioRetriever(store=store)
    rows |= {
        BM25: bm25,
        DENSE: dense,
        "RRF": HybridRetriever(store=store, fusion="rrf"),
        "CC, min-max, 0.5": HybridRetriever(store=store, normaliser="min-max"),
        "CC, min-max, fitted": HybridRetriever(store=store, normaliser="min-max", weights=fitted(name)),
        "CC, theoretical min-max, 1 to 2.5": HybridRetriever(store=store, weights=FIXED),
        "CC, z-score, 0.5": HybridRetriever(store=store, normaliser="z-score"),
        "DBSF": HybridRetriever(store=store, normaliser="dbsf"),
        "Fast-Forward": FastForwardRetriever(store=store),
        "PRF: RM3 over BM25": rm3,
        "PRF: Rocchio over dense": rocchio,
        "PRF: both, CC, 1 to 2.5": HybridRetriever(store=store, retrievers=[rm3, rocchio], weights=FIXED),
        DEFAULT: HybridRetriever(store=store),
    }
    if trees := learned(labelled(name)[0]):
        rows["LTR: the default's candidates, reordered"] = LearnedFusionRetriever(store=store, model=trees)
    return rows


def by_maxsim(first: Ask) -> Ask:
    """The first `RERANKED` documents of another system, by MaxSim of token vectors of MiniLM; the others stay behind them."""
    reranker = MaxSimReranker()

    def ask(texts: list[str]) -> list[list[Document]]:
        found = first(texts)
        heads = reranker.batch(
            [{"query": text, "documents": documents[:RERANKED]} for text, documents in zip(texts, found, strict=True)]
        )
        return [[*head, *documents[RERANKED:]] for head, documents in zip(heads, found, strict=True)]

    return ask


def measure(dataset: Dataset, ids: list[str], ask: Ask, singles: int) -> Row:
    """One system on the questions with these ids."""
    texts = [dataset.queries[id_] for id_ in ids]
    ask(texts[:2])  # what is compiled, mapped or loaded at first use is not a question's cost
    started = time.perf_counter()
    results = dict(zip(ids, ask(texts), strict=True))
    each = (time.perf_counter() - started) / len(texts) * 1000
    alone = []
    for text in texts[:singles]:
        started = time.perf_counter()
        ask([text])
        alone.append((time.perf_counter() - started) * 1000)
    ndcg, recall = evaluate(results, {id_: dataset.qrels[id_] for id_ in ids}, MEASURES).values()
    return Row(ndcg, recall, each, float(np.median(alone)))


def compare(name: str, most: int, sampled: int) -> Figures:
    """All systems on one dataset, on at most `most` questions; those that are slow on `sampled`."""
    dataset, found = load(name, SPLITS.get(name, "test")), systems(name)
    asked: dict[str, Ask] = {system: partial(retriever.batch, k=K) for system, retriever in found.items()}
    ids = random.Random(0).sample(sorted(dataset.queries), min(most, len(dataset.queries)))
    rows = {}
    for system, ask in asked.items():
        rows[system] = measure(dataset, ids, ask, SINGLES)
        print(f"{name}: {system}: {rows[system]}", flush=True)
    about = f"{name} {dataset.split}: {len(dataset.documents)} documents, {len(ids)} of {len(dataset.queries)} questions"
    some = {}
    if encoded(name):
        about += f"; BM25 has {fitted(name)[0]:.2f} of the fitted weight"
        drawn = random.Random(0).sample(sorted(ids), min(sampled, len(ids)))
        if drawn:
            slow = {"default": asked[DEFAULT], f"its first {RERANKED} by MaxSim": by_maxsim(asked[DEFAULT])}
            some = {
                f"{system}, {len(drawn)} questions": measure(dataset, drawn, ask, FEW if n else SINGLES)
                for n, (system, ask) in enumerate(slow.items())
            }
            print(f"{name}: {some}", flush=True)
    return Figures(about, rows, some)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--questions", type=int, default=600, help="the most questions of a set, drawn at random")
    parser.add_argument("--maxsim", type=int, default=30, help="questions to rerank by MaxSim, drawn at random")
    given = parser.parse_args(arguments)
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for name in given.datasets:
        kept[name] = compare(name, given.questions, given.maxsim)
        FIGURES.write_text(json.dumps(kept, indent=1))
    RESULTS.write_text(report({name: read(values) for name, values in json.loads(FIGURES.read_text()).items()}))
    print(RESULTS.read_text())


def read(values: list[object]) -> Figures:
    """A dataset's figures, as they were written."""
    about, *parts = values
    rows, some = ({system: Row(*row) for system, row in part.items()} for part in parts if isinstance(part, dict))
    return Figures(str(about), rows, some)


def report(figures: dict[str, Figures]) -> str:
    """All figures so far, as Markdown."""
    lines = ["# BM25, dense, and the two fused", "", LEGEND, ""]
    for name, (about, rows, some) in figures.items():
        if DENSE not in rows:
            continue
        best = max(rows[BM25].ndcg, rows[DENSE].ndcg)
        table = [[system, f"{row.ndcg:.4f}", f"{row.ndcg - best:+.4f}", *_rest(row)] for system, row in rows.items()]
        table += [[system, f"{row.ndcg:.4f}", "", *_rest(row)] for system, row in some.items()]
        header = ["system", "nDCG@10", "over the better half", "R@100", "ms/question", "p50 ms alone"]
        lines += [f"## {name}", "", Table(about, header, table).markdown(), "", f"`python benchmarks/hybrid.py {name}`", ""]
    foreign = {name: its for name, its in figures.items() if WHITESPACE in its.rows}
    if foreign:
        header = ["set", "language", "nDCG@10, white space", "nDCG@10", "gain", "R@100, white space", "R@100"]
        cells = []
        for name, its in foreign.items():
            plain, own = its.rows[WHITESPACE], its.rows[BM25]
            measures = (f"{plain.ndcg:.4f}", f"{own.ndcg:.4f}", f"{own.ndcg - plain.ndcg:+.4f}")
            cells.append([name, language_name(language(name)), *measures, f"{plain.recall:.4f}", f"{own.recall:.4f}"])
        caption = "BM25 over the terms of the language's analyzer, beside lower-cased tokens between white space."
        lines += ["## Languages", "", Table(caption, header, cells).markdown(), ""]
        lines += [f"`python benchmarks/hybrid.py {' '.join(foreign)}`", ""]
    return "\n".join(lines)


def _rest(row: Row) -> list[str]:
    return [f"{row.recall:.4f}", f"{row.each:.1f}", f"{row.single:.1f}"]


if __name__ == "__main__":
    main()
