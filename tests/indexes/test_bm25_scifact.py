"""The default analyzer and the default BM25 together reach the published quality on real data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import ir_measures
import numpy as np

from ragkit.encoders.lexical import Analyzer
from ragkit.encoders.vocabulary import Vocabulary
from ragkit.indexes.bm25 import BM25Index
from ragkit.sparse_vectors import SparseVectors


def test_scifact(data: Path) -> None:
    folder = data / "scifact"

    def lines(name: str) -> list[dict[str, str]]:
        with gzip.open(folder / name, "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    docs = lines("corpus.jsonl.gz")
    qrels = list(ir_measures.read_trec_qrels(_trec((folder / "qrels/test.tsv").read_text())))
    wanted = {qrel.query_id for qrel in qrels}
    questions = {q["_id"]: q["text"] for q in lines("queries.jsonl.gz") if q["_id"] in wanted}

    analyzer, vocabulary, index = Analyzer(), Vocabulary(), BM25Index()
    terms = analyzer.analyze([f"{doc['title']} {doc['text']}" for doc in docs])
    index.add(np.arange(len(docs)), SparseVectors.count_flat(*vocabulary.add_all(terms)))
    queries = SparseVectors.count_flat(*vocabulary.lookup_all(analyzer.analyze(list(questions.values()))))
    run = [
        ir_measures.ScoredDoc(query_id, docs[position]["_id"], score)
        for query_id, ranking in zip(questions, index.search(queries, 100), strict=True)
        for position, score in zip(ranking.positions, ranking.scores, strict=True)
    ]
    # Lucene with these parameters: 0.680 (reported for BEIR)
    assert ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10] >= 0.67


def _trec(tsv: str) -> str:
    rows = (line.split("\t") for line in tsv.splitlines()[1:])
    return "\n".join(f"{query} 0 {doc} {grade}" for query, doc, grade in rows)
