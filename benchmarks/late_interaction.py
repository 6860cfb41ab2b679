"""Retrieval by MaxSim: candidates by one vector per passage (MUVERA), then exact MaxSim, beside MaxSim over everything.

    OMP_NUM_THREADS=1 python benchmarks/late_interaction.py         # squad; writes benchmarks/results/late-interaction.md

Token vectors are those of all-MiniLM-L6-v2, which no one trained for this. The dataset is a folder below $RAGKIT_DATA (default:
../shared/data); token vectors are kept in .cache/benchmarks/squad-tokens. What is recommended was chosen on training questions.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from retrieval import DATA, ROOT

from ragkit import Store
from ragkit.encoders.multi_vector_base import MultiVectorEncoder
from ragkit.evaluation.datasets import Dataset, load_dataset
from ragkit.evaluation.metrics import evaluate
from ragkit.evaluation.tables import Table
from ragkit.indexes.maxsim import Matrix
from ragkit.indexes.multi_vector import MultiVectorIndex
from ragkit.indexes.muvera import Muvera
from ragkit.retrievers.late_interaction import LateInteractionRetriever

CUT = 10
GOAL = 0.95
"""The share of the exact best ten that has to be found."""
SIZES: dict[str, dict[str, Any]] = {
    "10 repetitions, 2^3 cells, 16 numbers": {"repetitions": 10, "bits": 3},
    "20 repetitions, 2^3 cells, 16 numbers": {"bits": 3},
    "10 repetitions, 2^4 cells, 16 numbers": {"repetitions": 10},
    "20 repetitions, 2^4 cells, 16 numbers (default)": {},
    "the same, sketched to 2560": {"final": 2560},
    "20 repetitions, 2^5 cells, 16 numbers (the paper's)": {"bits": 5},
}
CANDIDATES = (50, 100, 200, 400)
TIMED = 20
"""Questions that are timed."""
REPETITIONS, SEEDS, PASSAGES = (5, 10, 20, 40, 80), 3, 200
RESULTS = ROOT / "benchmarks" / "results" / "late-interaction.md"
LEGEND = """The column "recall" is the share of the ten passages with the highest exact MaxSim that are among the candidates,
which exact MaxSim ranks; "numbers read" is what a question has to read: all encodings, and the candidates' token vectors.
"fewer" compares that with the token vectors of all passages, "fewer bytes" likewise, with 4 bytes for a number of an encoding
and 2 for one of a token vector. "CPU ms" is the processor time of a question asked alone, in one thread, its own encoding left
out."""
Scores = NDArray[np.float32]


class Tokens(NamedTuple):
    """The token vectors of all passages, one after the other in float32, and where each passage begins."""

    vectors: NDArray[np.float32]
    starts: NDArray[np.int64]


class Row(NamedTuple):
    """One way to search: means over the questions."""

    trained: float
    """Recall on training questions."""
    recall: float
    ndcg: float
    numbers: float
    size: float
    """Bytes read."""
    each: float
    """Milliseconds of processor time."""


def open_store(dataset: Dataset) -> Store:
    """The dataset's token vectors, computed on the first call."""
    path = ROOT / ".cache" / "benchmarks" / f"{dataset.name}-tokens"
    store = Store.open(path) if (path / "manifest.json").exists() else Store.create(path, LateInteractionRetriever.indexes())
    store.upsert(dataset.documents)
    return store


def sample(dataset: Dataset, count: int) -> dict[str, str]:
    """Some of the questions, by id."""
    ids = random.Random(0).sample(sorted(dataset.queries), min(count, len(dataset.queries)))
    return {id_: dataset.queries[id_] for id_ in ids}


def flat(matrices: Sequence[Matrix]) -> Tokens:
    """Passages that have one matrix each."""
    starts = np.cumsum([0, *map(len, matrices)])[:-1]
    return Tokens(np.concatenate(matrices).astype(np.float32), starts)


def brute_force(question: Matrix, tokens: Tokens) -> Scores:
    """MaxSim of one question and every passage, by one product of matrices."""
    best: Scores = np.maximum.reduceat(tokens.vectors @ question.T, tokens.starts).sum(1)
    return best


def best(scores: Scores, count: int) -> NDArray[np.int64]:
    """The passages with the highest scores."""
    return np.argsort(-scores, kind="stable")[:count]


def recall(candidates: NDArray[np.int64], scores: Scores) -> float:
    """The mean share of the exact best that is among the candidates, both [questions, passages]."""
    found = zip(candidates, scores, strict=True)
    return float(np.mean([len(np.intersect1d(row, best(exact, CUT))) for row, exact in found])) / CUT


class Questions(NamedTuple):
    """Questions by id, as token vectors, and their MaxSim with every passage [questions, passages]."""

    ids: list[str]
    matrices: list[Matrix]
    exact: Scores

    @classmethod
    def of(cls, texts: dict[str, str], encoder: MultiVectorEncoder, tokens: Tokens) -> Self:
        """Encode questions, and score every passage."""
        matrices = encoder.encode_queries(list(texts.values()))
        return cls(list(texts), matrices, np.array([brute_force(matrix, tokens) for matrix in matrices]))


class Bench:
    """A store's passages by number, and questions: some that parameters are chosen on, and some that are reported."""

    def __init__(self, store: Store, train: Dataset, test: Dataset, counts: tuple[int, int]) -> None:
        self.dataset = test
        index: Any = store.snapshot.index("late-interaction")
        positions = store.snapshot.corpus.all_positions()
        self.documents = store.snapshot.documents(positions)
        self.matrices: list[Matrix] = index.index.vectors(positions)
        self.tokens = flat(self.matrices)
        self.lengths = np.array([len(matrix) for matrix in self.matrices])
        self.train = Questions.of(sample(train, counts[0]), index.encoder, self.tokens)
        self.test = Questions.of(sample(test, counts[1]), index.encoder, self.tokens)

    @property
    def numbers(self) -> int:
        """How many numbers the token vectors of all passages are."""
        return int(self.tokens.vectors.size)

    def ndcg(self, scores: Scores) -> float:
        """nDCG@10 of passages ranked by these scores [questions, passages]."""
        found = {id_: [self.documents[n] for n in best(row, CUT)] for id_, row in zip(self.test.ids, scores, strict=True)}
        return evaluate(found, {id_: self.dataset.qrels[id_] for id_ in self.test.ids}, ["nDCG@10"])["nDCG@10"]

    def milliseconds(self, ask: Callable[[Matrix], Any]) -> float:
        """Processor time of one question."""
        ask(self.test.matrices[0])
        some = self.test.matrices[:TIMED]
        started = process_time()
        for question in some:
            ask(question)
        return (process_time() - started) / len(some) * 1000

    def searched(self, options: dict[str, Any]) -> dict[int, Row]:
        """A search through encodings of one size, by the number of candidates."""
        index = MultiVectorIndex(self.matrices[0].shape[1], **options)
        index.add(np.arange(len(self.matrices)), self.matrices)
        encodings = index.muvera.documents(self.matrices)
        train, test = (
            np.argsort(-(index.muvera.queries(asked.matrices) @ encodings.T), axis=1, kind="stable")
            for asked in (self.train, self.test)
        )
        rows = {}
        for count in CANDIDATES:
            taken = test[:, :count]
            scores = np.full_like(self.test.exact, -np.inf)
            np.put_along_axis(scores, taken, np.take_along_axis(self.test.exact, taken, 1), 1)
            read = index.dimension * float(self.lengths[taken].sum(1).mean())
            index.candidates = count
            rows[count] = Row(
                recall(train[:, :count], self.train.exact),
                recall(taken, self.test.exact),
                self.ndcg(scores),
                encodings.size + read,
                4 * encodings.size + 2 * read,
                self.milliseconds(lambda question: index.search([question], CUT)),
            )
        return rows

    def exhaustive(self) -> dict[str, Row]:
        """MaxSim over all passages: by the index, when all are candidates, and by one product over float32 in memory."""
        index = MultiVectorIndex(self.matrices[0].shape[1], candidates=len(self.matrices), repetitions=1, bits=0)
        index.add(np.arange(len(self.matrices)), self.matrices)
        ndcg = self.ndcg(self.test.exact)
        each = self.milliseconds(lambda question: index.search([question], CUT))
        product = self.milliseconds(lambda question: brute_force(question, self.tokens))
        return {
            "exact MaxSim over all": Row(1.0, 1.0, ndcg, self.numbers, 2 * self.numbers, each),
            "the same, one product over float32": Row(1.0, 1.0, ndcg, self.numbers, 4 * self.numbers, product),
        }

    def errors(self) -> list[list[str]]:
        """How far inner products of encodings are from MaxSim, by repetitions."""
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.matrices))[:PASSAGES])
        some, exact = [self.matrices[n] for n in chosen], self.test.exact[:, chosen]
        rows = []
        for repetitions in REPETITIONS:
            made = []
            for seed in range(SEEDS):
                muvera = Muvera(some[0].shape[1], repetitions=repetitions, seed=seed)
                made.append(muvera.queries(self.test.matrices) @ muvera.documents(some).T)
            errors = np.array(made) - exact
            noise = np.sqrt(errors.var(0, ddof=1).mean())
            correlation = np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(made[0], exact, strict=True)])
            figures = (errors.mean(), noise, noise * repetitions**0.5, np.sqrt((errors**2).mean()), correlation)
            rows.append([str(repetitions), *(f"{figure:.3f}" for figure in figures)])
        return rows


def report(bench: Bench) -> str:
    """Everything measured, as Markdown."""
    name, dimension, counts = bench.dataset.name, bench.matrices[0].shape[1], (len(bench.train.ids), len(bench.test.ids))
    rows = [[label, "", *_cells(row, bench.numbers)] for label, row in bench.exhaustive().items()]
    results = {}
    for label, options in SIZES.items():
        for count, row in bench.searched(options).items():
            results[label, count] = row
            rows.append([f"{label}: {Muvera(dimension, **options).size:,}", str(count), *_cells(row, bench.numbers)])
    lines = [
        "# Late interaction: candidates by MUVERA, then MaxSim",
        "",
        f"{name}: {len(bench.matrices):,} passages with {len(bench.tokens.vectors):,} token vectors of {dimension} numbers "
        f"({bench.lengths.mean():.0f} a passage); {counts[1]} {bench.dataset.split} and {counts[0]} training questions, drawn at "
        "random.",
        "",
        LEGEND,
        "",
    ]
    enough = [key for key, row in results.items() if row.trained >= GOAL]
    if enough:
        chosen = min(enough, key=lambda key: results[key].numbers)
        row = results[chosen]
        lines += [
            f"The least to read with a recall of at least {GOAL} on training questions: {chosen[0]}, {chosen[1]} candidates. "
            f"On {bench.dataset.split} questions it has {row.recall:.3f}, with {bench.numbers / row.numbers:.1f} times fewer "
            "numbers.",
            "",
        ]
    header = ["encoding", "candidates", "recall, train", "recall", "nDCG@10", "numbers read, M", "fewer", "fewer bytes", "CPU ms"]
    table = Table("Searches", header, rows).markdown()
    header = ["repetitions", "mean error", "noise", "noise times root of repetitions", "root mean square error", "correlation"]
    caption = (
        f"The error of the inner product as an estimate of MaxSim, 2^4 cells and 16 numbers, {counts[1]} questions "
        f"by {min(PASSAGES, len(bench.matrices))} passages. Noise is the standard deviation over {SEEDS} seeds, which falls with "
        "the root of the repetitions, as that of a mean of independent estimates has to. The mean error is of vectors that share "
        "a cell with worse ones, and does not depend on them. The correlation is that over the passages of a question, seed 0."
    )
    return "\n".join(
        [*lines, table, "", Table(caption, header, bench.errors()).markdown(), "", f"`{_command(name, counts)}`", ""]
    )


def _cells(row: Row, every: int) -> list[str]:
    return [
        f"{row.trained:.3f}",
        f"{row.recall:.3f}",
        f"{row.ndcg:.4f}",
        f"{row.numbers / 1e6:.1f}",
        f"{every / row.numbers:.1f}",
        f"{2 * every / row.size:.1f}",
        f"{row.each:.1f}",
    ]


def _command(name: str, counts: tuple[int, int]) -> str:
    return f"OMP_NUM_THREADS=1 python benchmarks/late_interaction.py {name} --train {counts[0]} --questions {counts[1]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="squad")
    parser.add_argument("--train", type=int, default=300)
    parser.add_argument("--questions", type=int, default=300)
    given = parser.parse_args(arguments)
    train, test = load_dataset(DATA / given.dataset, "train"), load_dataset(DATA / given.dataset, "test")
    RESULTS.write_text(report(Bench(open_store(test), train, test, (given.train, given.questions))))
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
