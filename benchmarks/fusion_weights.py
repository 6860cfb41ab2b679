"""How the coefficients of `ragkit.retrievers.trust` were fitted: on training questions alone, of five sets in three languages.

    python benchmarks/fusion_weights.py

Every set is taken as it is and with one side made worse. Plausible alterations (fewer dimensions, blurred vectors) count 1, and
0.3 those that do not occur like that (swapped vectors, questions that lose words for BM25 only). Coefficients are worth their
mean gain in nDCG@10 over the better half of each condition, less four times what it loses by more than .004. The highest
weight is the lowest with which no plausible condition loses more than .005; higher ones only help where BM25 lacks words.
Vectors are kept in .cache/benchmarks/fusion_weights; without them the run takes some minutes.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from retrieval import DATA, ROOT

from ragkit.corpus.rows import IndexedText
from ragkit.encoders.factory import as_encoder
from ragkit.encoders.lexical import Analyzer
from ragkit.evaluation.datasets import load_dataset
from ragkit.indexes.base import Ranking, top_k
from ragkit.retrievers.fusion import convex_combination, normalise
from ragkit.retrievers.trust import AGREEMENT, DECISIVENESS, DEPTH, HIGHEST, LOWEST, USUAL, evidence
from ragkit.retrievers.weights import ndcg
from ragkit.store.text_index import LexicalIndex

Floats = NDArray[np.float64]
CACHE = ROOT / ".cache" / "benchmarks" / "fusion_weights"
SETS = {
    "scifact": ("train", "english", 300, 10**6),
    "squad": ("train", "english", 300, 10**6),
    "musique": ("train", "english", 300, 900),
    "cmrc2018": ("trial", "chinese", 400, 150),
    "jaquad": ("train", "japanese", 500, 0),
}
"""Split, language, at most how many questions, and at most how many passages beside their relevant ones."""
GRID = list(product((0, 0.8, 1.2, 1.6, 2.0), (0, -0.6, -0.9, -1.2, -1.5), (2.5, 3.0, 3.5, 4.0, 5.0)))
"""Agreement, decisiveness, highest weight."""
ARTIFICIAL = ("swapped", "words")


class Sample(NamedTuple):
    """A corpus and its questions; `relevant` has the gain of each relevant passage by its row."""

    texts: list[str]
    questions: list[str]
    relevant: list[Mapping[int, float]]


class Condition(NamedTuple):
    """All questions of a sample under one alteration, as arrays [questions, candidates]; `better` is the better half's nDCG."""

    bm25: Floats
    dense: Floats
    gains: Floats
    ideal: Floats
    agreement: Floats
    decisiveness: Floats
    better: float
    usual: float


def sample(name: str) -> Sample:
    """Training questions of a set, their relevant passages and some others."""
    split, _, most, others = SETS[name]
    chooser = random.Random(0)
    if name == "jaquad":  # whose training questions come with their passages
        asked: dict[str, list[str]] = {}
        with gzip.open(DATA / name / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                asked.setdefault(row["context"], []).append(row["question"])
        texts = chooser.sample(sorted(asked), most)
        return Sample(texts, [chooser.choice(asked[text]) for text in texts], [{row: 1.0} for row in range(most)])
    dataset = load_dataset(DATA / name, split)
    ids = chooser.sample(sorted(dataset.queries), min(most, len(dataset.queries)))
    gold = {id_ for query in ids for id_, gain in dataset.qrels[query].items() if gain > 0}
    rest = sorted(str(document.id) for document in dataset.documents if document.id not in gold)
    kept = gold | set(chooser.sample(rest, min(others, len(rest))))
    documents = [document for document in dataset.documents if document.id in kept]
    row = {document.id: n for n, document in enumerate(documents)}
    relevant = [{row[d]: float(gain) for d, gain in dataset.qrels[q].items() if gain > 0 and d in row} for q in ids]
    return Sample([document.page_content for document in documents], [dataset.queries[q] for q in ids], relevant)


def vectors(name: str, texts: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of passages and of questions, by the packaged encoder."""
    path = CACHE / f"{name}.npz"
    if not path.exists():
        encoder = as_encoder()
        CACHE.mkdir(parents=True, exist_ok=True)
        np.savez(path, passages=encoder.encode_documents(texts.texts), questions=encoder.encode_queries(texts.questions))
    with np.load(path) as kept:
        return kept["passages"], kept["questions"]


def conditions(name: str) -> Iterator[tuple[str, Condition]]:
    """A set as it is and altered; one in another language than English only as it is, for there the vectors are bad anyway."""
    texts, (_, language, _, _) = sample(name), SETS[name]
    passages, questions = vectors(name, texts)
    index, chooser = LexicalIndex(Analyzer(language)), np.random.default_rng(1)
    items = [IndexedText(text) for text in texts.texts]
    index.add(np.arange(len(items)), index.prepare(items, [None] * len(items)))

    def make(asked: list[str], documents: NDArray[np.float32], queries: NDArray[np.float32]) -> Condition:
        cosines = (_unit(queries) @ _unit(documents).T).astype(np.float64)
        everything = np.arange(len(documents))
        return condition(index.search(asked, DEPTH), [top_k(everything, row, DEPTH) for row in cosines], texts.relevant)

    def fewer_words(share: float) -> list[str]:
        kept = random.Random(0)
        return [" ".join(word for word in text.split() if kept.random() > share) or text for text in texts.questions]

    yield "as it is", make(texts.questions, passages, questions)
    if language != "english":
        return
    for dimensions in (24, 64):
        yield f"{dimensions} dimensions", make(texts.questions, passages[:, :dimensions], questions[:, :dimensions])
    blurred = [(one + 0.1 * chooser.standard_normal(one.shape)).astype(np.float32) for one in map(_unit, (passages, questions))]
    yield "blurred", make(texts.questions, *blurred)
    for share in (0.3, 1.0):
        swapped, rows = passages.copy(), np.flatnonzero(chooser.random(len(passages)) < share)
        swapped[rows] = passages[chooser.permutation(rows)]
        yield f"{share:.0%} swapped", make(texts.questions, swapped, questions)
    for share in (0.35, 0.6):
        yield f"{share:.0%} words lost", make(fewer_words(share), passages, questions)
    yield "35% words lost, 24 dimensions", make(fewer_words(0.35), passages[:, :24], questions[:, :24])


def condition(sparse: list[Ranking], dense: list[Ranking], relevant: list[Mapping[int, float]]) -> Condition:
    """Rankings of both sides as arrays of the normalised scores that `convex_combination` adds up."""
    arrays = np.zeros((3, len(relevant), 2 * DEPTH))
    arrays[0] = -np.inf
    found, halves, usual = [], [], []
    for row, (a, b, gains) in enumerate(zip(sparse, dense, relevant, strict=True)):
        positions = np.union1d(a.positions, b.positions)
        for side, (ranking, floor) in enumerate(((a, 0.0), (b, -1.0))):
            scores = normalise(ranking.scores, "theoretical-min-max", floor)
            arrays[side, row, : len(positions)] = scores.min() if len(scores) >= DEPTH else 0.0
            arrays[side, row, np.searchsorted(positions, ranking.positions)] = scores
        arrays[2, row, : len(positions)] = [gains.get(int(position), 0.0) for position in positions]
        found.append(evidence(a, b))
        halves.append([ndcg(one.positions, gains) for one in (a, b)])
        fused = convex_combination((a, b), (1, USUAL), 10, normaliser="theoretical-min-max", floors=(0.0, -1.0), depth=DEPTH)
        usual.append(ndcg(fused.positions, gains))
    # relevant candidates first: only their ranks have to be counted
    order = np.argsort(-arrays[2], axis=1, kind="stable")
    bm25, vectors_, gained = (np.take_along_axis(one, order, axis=1) for one in arrays)
    wanted = max(int((gained > 0).sum(axis=1).max()), 1)
    ideal = np.array(
        [sum(g / math.log2(n + 2) for n, g in enumerate(sorted(one.values(), reverse=True)[:10])) for one in relevant]
    )
    agreement = np.array([one.agreement if one else 0.0 for one in found])
    decisiveness = np.array([one.decisiveness if one else 1.0 for one in found])
    better, mean = float(np.mean(halves, axis=0).max()), float(np.mean(usual))
    return Condition(bm25, vectors_, gained[:, :wanted], ideal, agreement, decisiveness, better, mean)


def gain(one: Condition, agreement: float, decisiveness: float, highest: float) -> float:
    """Mean nDCG@10 over that of the better half."""
    weights = np.clip(np.exp(agreement * one.agreement) * one.decisiveness**decisiveness, LOWEST, highest)
    scores = one.bm25 + weights[:, None] * one.dense
    total = np.zeros(len(scores))
    for column, gains in enumerate(one.gains.T):
        rank = (scores > scores[:, [column]] + 1e-9).sum(axis=1)
        total += np.where(rank < 10, gains / np.log2(rank + 2), 0.0)
    return float((total / np.maximum(one.ideal, 1e-9)).mean()) - one.better


def worth(gains: Floats, weights: Floats) -> Any:
    """Of gains [..., conditions]."""
    return ((gains - 4 * np.maximum(-0.004 - gains, 0)) * weights).sum(axis=-1) / weights.sum()


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def main() -> None:
    """Command line."""
    table = {(name, about): one for name in SETS for about, one in conditions(name)}
    gains = np.array([[gain(one, *choice) for one in table.values()] for choice in GRID])
    plausible = np.array([not any(word in about for word in ARTIFICIAL) for _, about in table])
    weights = np.where(plausible, 1.0, 0.3)
    print("best by highest weight: agreement, decisiveness, highest; worth, and the mean and least gain of plausible conditions")
    for highest in sorted({choice[2] for choice in GRID}):
        rows = [n for n, choice in enumerate(GRID) if choice[2] == highest]
        best = max(rows, key=lambda n: float(worth(gains[n], weights)))
        some = gains[best][plausible]
        print(f"{GRID[best]}  {worth(gains[best], weights):+.4f}  {some.mean():+.4f}  {some.min():+.4f}")
    usual = np.array([one.usual - one.better for one in table.values()])
    print(f"constant {USUAL}  {worth(usual, weights):+.4f}  {usual[plausible].mean():+.4f}  {usual[plausible].min():+.4f}")
    for name in SETS:
        others = np.array([other != name for other, _ in table])
        print(f"without {name}:", GRID[int(np.argmax(worth(gains[:, others], weights[others])))])
    chosen = gains[GRID.index((AGREEMENT, DECISIVENESS, HIGHEST))]
    print("\n| set | altered | better half | constant | per question |\n|---|---|---:|---:|---:|")
    for (name, about), one, ours, constant in zip(table, table.values(), chosen, usual, strict=True):
        print(f"| {name} | {about} | {one.better:.4f} | {constant:+.4f} | {ours:+.4f} |")


if __name__ == "__main__":
    main()
