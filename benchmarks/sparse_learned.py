"""Systems for learned sparse vectors, side by side: exact ones, exhaustive ones and approximate ones, each with one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sparse_problem import Hits, Problem

from ragkit.indexes.base import top_k
from ragkit.sparse_vectors import SparseVectors

SEISMIC = [
    {"query_cut": cut, "heap_factor": factor} for cut, factor in ((3, 0.9), (5, 0.9), (5, 0.7), (10, 0.9), (10, 0.7), (20, 0.7))
]
BMP_LEVELS = 255 / 3.5  # to 8 bits, from weights up to 3.5


class _Ragkit:
    """The index of this repository."""

    options: dict[str, Any] = {}

    def build(self, problem: Problem, folder: Path) -> None:
        from ragkit.indexes.impact import ImpactIndex

        index = ImpactIndex(threads=1, **self.options)
        index.add(np.arange(len(problem.documents)), problem.documents)
        index.save(folder)

    def load(self, problem: Problem, folder: Path) -> None:
        from ragkit.indexes.impact import ImpactIndex

        self.index: Any = ImpactIndex.load(folder)

    def prepare(self, questions: SparseVectors, rows: NDArray[np.int64]) -> Any:
        return questions.take(rows)

    def search(self, prepared: Any, k: int) -> list[Hits]:
        return [(ranking.positions, ranking.scores) for ranking in self.index.search(prepared, k)]


class _RagkitBytes(_Ragkit):
    """The same with weights of 8 bits."""

    options = {"ceiling": 3.5}


class _RagkitSeismic(_Ragkit):
    """Seismic behind the contract of this repository's indexes."""

    variants = SEISMIC

    def build(self, problem: Problem, folder: Path) -> None:
        from ragkit.indexes.seismic import SeismicIndex

        index = SeismicIndex()
        index.add(np.arange(len(problem.documents)), problem.documents)
        index.save(folder)

    def load(self, problem: Problem, folder: Path) -> None:
        from ragkit.indexes.seismic import SeismicIndex

        self.index = SeismicIndex.load(folder)

    def choose(self, query_cut: int, heap_factor: float) -> None:
        """Settings of the searches from here on."""
        self.index.query_cut, self.index.heap_factor = query_cut, heap_factor


class _Seismic:
    """pyseismic-lsr by itself. It rounds weights to 16 bits, and so its scores."""

    variants = SEISMIC

    def build(self, problem: Problem, folder: Path) -> None:
        import seismic

        documents = problem.documents
        dataset = seismic.SeismicDataset(dim=int(documents.terms.max()) + 1)
        dataset.add_documents_by_id(
            list(map(str, range(len(documents)))), documents.terms.astype(np.int64), documents.weights, documents.starts
        )
        seismic.SeismicIndex.build_from_dataset(dataset, num_threads=1).save(str(folder / "it"))

    def load(self, problem: Problem, folder: Path) -> None:
        import seismic

        self.index = seismic.SeismicIndex.load(str(folder / "it.index.seismic"))
        self.choose(**SEISMIC[0])

    def choose(self, query_cut: int, heap_factor: float) -> None:
        """Settings of the searches from here on."""
        self.settings = {"query_cut": query_cut, "heap_factor": heap_factor}

    def prepare(self, questions: SparseVectors, rows: NDArray[np.int64]) -> Any:
        import seismic

        kind = seismic.get_seismic_string()
        pairs = [questions.row(int(i)) for i in rows]
        numbers = np.arange(len(rows)).astype(kind)
        return numbers, [terms.astype(kind) for terms, _ in pairs], [np.array(weights) for _, weights in pairs]

    def search(self, prepared: Any, k: int) -> list[Hits]:
        answers: list[Hits] = [(np.empty(0, np.int64), np.empty(0))] * len(prepared[0])
        for answer in self.index.batch_search(*prepared, k=k, num_threads=1, **self.settings):
            if answer:  # they come in any order
                positions = np.array([int(position) for *_, position in answer], np.int64)
                answers[int(answer[0][0])] = positions, np.array([score for _, score, _ in answer])
        return answers


class _Bmp:
    """bmp, exact but for rounding: it takes documents with whole weights, here 8 bits, and rounds those of questions itself."""

    def build(self, problem: Problem, folder: Path) -> None:
        import bmp

        indexer = bmp.Indexer(str(folder / "it.bmp"), bsize=32, compress_range=False)
        documents = problem.documents
        levels = np.maximum(1, np.rint(documents.weights * BMP_LEVELS)).astype(np.int64)
        for i in range(len(documents)):
            span = slice(documents.starts[i], documents.starts[i + 1])
            tokens = map(str, documents.terms[span].tolist())
            indexer.add_document(str(i), dict(zip(tokens, levels[span].tolist(), strict=True)))
        indexer.finish()
        np.save(folder / "known.npy", np.unique(documents.terms))

    def load(self, problem: Problem, folder: Path) -> None:
        import bmp

        self.searcher = bmp.Searcher(str(folder / "it.bmp"))
        self.known = set(np.load(folder / "known.npy").tolist())

    def prepare(self, questions: SparseVectors, rows: NDArray[np.int64]) -> Any:
        pairs = [questions.row(int(i)) for i in rows]
        # a term that no document has would make it panic
        return [{str(t): w for t, w in zip(*map(np.ndarray.tolist, pair), strict=True) if t in self.known} for pair in pairs]

    def search(self, prepared: Any, k: int) -> list[Hits]:
        found = [self.searcher.search(query, k=k, alpha=1.0, beta=1.0)[0] for query in prepared]
        return [(np.array(ids, np.int64), np.full(len(ids), np.nan)) for ids in found]


class _Scan:
    """Every document against the question, by a product of scipy's sparse matrix (a row per document) with a vector."""

    def build(self, problem: Problem, folder: Path) -> None:
        for name, array in vars(problem.documents).items():
            np.save(folder / f"{name}.npy", array)

    def load(self, problem: Problem, folder: Path) -> None:
        from scipy.sparse import csr_matrix

        starts, terms, weights = (np.load(folder / f"{name}.npy") for name in ("starts", "terms", "weights"))
        self.width = max(int(terms.max()), int(problem.questions.terms.max())) + 1
        self.matrix = csr_matrix((weights, terms, starts), (len(starts) - 1, self.width))

    def prepare(self, questions: SparseVectors, rows: NDArray[np.int64]) -> Any:
        return [questions.row(int(i)) for i in rows]

    def search(self, prepared: Any, k: int) -> list[Hits]:
        return [_best(self._scores(terms, weights), k) for terms, weights in prepared]

    def _scores(self, terms: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        query = np.zeros(self.width, np.float32)
        query[terms] = weights
        scores: NDArray[np.float32] = self.matrix @ query
        return scores


class _Lists(_Scan):
    """Every entry of the inverted lists of the question's terms, added up per document by compiled code."""

    def build(self, problem: Problem, folder: Path) -> None:
        from scipy.sparse import csr_matrix

        documents = problem.documents
        shape = len(documents), int(documents.terms.max()) + 1
        lists = csr_matrix((documents.weights, documents.terms, documents.starts), shape).tocsc()
        for name in ("indptr", "indices", "data"):
            np.save(folder / f"{name}.npy", getattr(lists, name))

    def load(self, problem: Problem, folder: Path) -> None:
        self.lists = [np.load(folder / f"{name}.npy", "r") for name in ("indptr", "indices", "data")]
        self.count, self.add = len(problem.documents), _adder()

    def _scores(self, terms: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.zeros(self.count, np.float32)
        self.add(*self.lists, terms, weights, scores)
        return scores


def _best(scores: NDArray[np.float32], k: int) -> Hits:
    near = np.argpartition(scores, max(0, len(scores) - k))[max(0, len(scores) - k) :]
    return top_k(near[scores[near] > 0], scores[near][scores[near] > 0], k)


def _adder() -> Any:
    from numba import njit

    @njit(fastmath=True, cache=True)
    def add(starts: Any, rows: Any, values: Any, terms: Any, weights: Any, scores: Any) -> None:
        for i in range(len(terms)):
            if terms[i] < len(starts) - 1:
                for at in range(starts[terms[i]], starts[terms[i] + 1]):
                    scores[rows[at]] += values[at] * weights[i]

    return add


SYSTEMS: dict[str, Any] = {
    "ragkit": _Ragkit,
    "ragkit, 8 bits": _RagkitBytes,
    "exhaustive, scipy rows": _Scan,
    "exhaustive, inverted lists": _Lists,
    "bmp": _Bmp,
    "ragkit's SeismicIndex": _RagkitSeismic,
    "pyseismic-lsr": _Seismic,
}
