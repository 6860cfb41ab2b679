"""BM25 systems, side by side: all get the same term ids, k1 = 1.2, b = 0.75 and Lucene's idf, and use one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sparse_problem import K1, B, Hits, Problem
from synthetic import Texts

from ragkit.sparse_vectors import SparseVectors

SMALL = 20_000


class TooLarge(Exception):
    """A system is not asked to hold so many documents, because it would take hours."""


class _Ragkit:
    """The index of this repository."""

    def build(self, problem: Problem, folder: Path) -> None:
        from ragkit.indexes.bm25 import BM25Index

        index = BM25Index(k1=K1, b=B, threads=1)
        documents = problem.documents
        index.add(np.arange(len(documents)), SparseVectors.count_flat(documents.starts, documents.tokens))
        index.save(folder)

    def load(self, problem: Problem, folder: Path) -> None:
        from ragkit.indexes.bm25 import BM25Index

        self.index = BM25Index.load(folder)

    def prepare(self, questions: Texts, rows: NDArray[np.int64]) -> Any:
        return SparseVectors.count([questions[i] for i in rows])

    def search(self, prepared: Any, k: int) -> list[Hits]:
        return [(ranking.positions, ranking.scores) for ranking in self.index.search(prepared, k)]


class _Bm25s:
    """bm25s with its numba backend."""

    def build(self, problem: Problem, folder: Path) -> None:
        import bm25s

        index = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numba", csc_backend="scipy")
        documents = problem.documents
        vocabulary = {str(term): term for term in range(int(documents.tokens.max()) + 1)}
        index.index(([documents[i].tolist() for i in range(len(documents))], vocabulary), show_progress=False)
        index.save(folder, show_progress=False)

    def load(self, problem: Problem, folder: Path) -> None:
        import bm25s

        self.index = bm25s.BM25.load(folder, mmap=True)
        self.index.backend = "numba"
        self.count = self.index.scores["num_docs"]

    def prepare(self, questions: Texts, rows: NDArray[np.int64]) -> Any:
        return [questions[i].tolist() for i in rows]

    def search(self, prepared: Any, k: int) -> list[Hits]:
        found = self.index.retrieve(prepared, k=min(k, self.count), show_progress=False, n_threads=1)
        return list(zip(found.documents, found.scores, strict=True))


class _Tantivy:
    """tantivy, on disk. Its length norms are rounded to 8 bits, so its scores differ from the exact ones."""

    def build(self, problem: Problem, folder: Path) -> None:
        import tantivy

        schema = tantivy.SchemaBuilder()
        schema.add_text_field("text", tokenizer_name="whitespace", index_option="freq")
        schema.add_integer_field("position", fast=True)
        index = tantivy.Index(schema.build(), path=str(folder))
        _register(index)
        writer = index.writer(heap_size=1_000_000_000, num_threads=1)
        for i in range(len(problem.documents)):
            writer.add_document(tantivy.Document(text=" ".join(map(str, problem.documents[i].tolist())), position=i))
        writer.commit()
        writer.wait_merging_threads()

    def load(self, problem: Problem, folder: Path) -> None:
        import tantivy

        index = tantivy.Index.open(str(folder))
        _register(index)
        self.schema, self.searcher = index.schema, index.searcher()

    def prepare(self, questions: Texts, rows: NDArray[np.int64]) -> Any:
        return [list(map(str, questions[i].tolist())) for i in rows]

    def search(self, prepared: Any, k: int) -> list[Hits]:
        from tantivy import Occur, Query

        answers = []
        for terms in prepared:
            clauses = [(Occur.Should, Query.term_query(self.schema, "text", term, index_option="freq")) for term in terms]
            hits = self.searcher.search(Query.boolean_query(clauses), limit=k, count=False).hits
            positions = self.searcher.fast_field_values("position", [address for _, address in hits])
            scores = [score / (K1 + 1) for score, _ in hits]  # a constant factor, which Lucene has dropped
            answers.append((np.array(positions, np.int64), np.array(scores)))
        return answers


class _RankBm25:
    """rank_bm25, with Lucene's idf put in place of its own so that scores can be compared. It cannot be saved."""

    def build(self, problem: Problem, folder: Path) -> None:
        self._make(problem.documents)

    def load(self, problem: Problem, folder: Path) -> None:
        self._make(problem.documents)

    def _make(self, documents: Texts) -> None:
        from rank_bm25 import BM25Okapi

        if len(documents) > SMALL:
            raise TooLarge(f"more than {SMALL} documents")
        self.index = BM25Okapi([documents[i].tolist() for i in range(len(documents))], k1=K1, b=B)
        having: dict[int, int] = {}
        for frequencies in self.index.doc_freqs:
            for term in frequencies:
                having[term] = having.get(term, 0) + 1
        self.index.idf = {term: np.log1p((len(documents) - n + 0.5) / (n + 0.5)) for term, n in having.items()}

    def prepare(self, questions: Texts, rows: NDArray[np.int64]) -> Any:
        return [questions[i].tolist() for i in rows]

    def search(self, prepared: Any, k: int) -> list[Hits]:
        answers = []
        for terms in prepared:
            scores = self.index.get_scores(terms) / (K1 + 1)
            best = np.argsort(-scores, kind="stable")[:k]
            answers.append((best, scores[best]))
        return answers


class _LangChain:
    """LangChain's BM25Retriever, over rank_bm25 with that package's idf. It gives no scores and cannot be saved."""

    def build(self, problem: Problem, folder: Path) -> None:
        self._make(problem.documents)

    def load(self, problem: Problem, folder: Path) -> None:
        self._make(problem.documents)

    def _make(self, documents: Texts) -> None:
        from langchain_community.retrievers import BM25Retriever

        if len(documents) > SMALL:
            raise TooLarge(f"more than {SMALL} documents")
        joined = [" ".join(map(str, documents[i].tolist())) for i in range(len(documents))]
        self.retriever = BM25Retriever.from_texts(
            joined,
            metadatas=[{"position": i} for i in range(len(documents))],
            bm25_params={"k1": K1, "b": B},
            preprocess_func=str.split,
        )

    def prepare(self, questions: Texts, rows: NDArray[np.int64]) -> Any:
        return [" ".join(map(str, questions[i].tolist())) for i in rows]

    def search(self, prepared: Any, k: int) -> list[Hits]:
        self.retriever.k = k
        found = [[each.metadata["position"] for each in self.retriever.invoke(text)] for text in prepared]
        return [(np.array(positions, np.int64), np.full(len(positions), np.nan)) for positions in found]


def _register(index: Any) -> None:
    import tantivy

    index.register_tokenizer("whitespace", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())


SYSTEMS: dict[str, Any] = {
    "ragkit": _Ragkit,
    "bm25s": _Bm25s,
    "tantivy": _Tantivy,
    "rank_bm25": _RankBm25,
    "langchain": _LangChain,
}
