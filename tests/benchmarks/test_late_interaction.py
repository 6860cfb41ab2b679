"""The report on late interaction, on a dataset of a few passages with a stand-in encoder."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragkit.documents.tokens import RegexTokenizer
from ragkit.indexes.maxsim import maxsim
from ragkit.retrievers.late_interaction import LateInteractionRetriever
from ragkit.store.store import Store

pytest.importorskip("ir_measures", reason="ir-measures is not installed")

WORDS = [f"word{n}" for n in range(60)]


class WordVectors:
    """A vector of length 1 for each word, whatever stands beside it."""

    dimension = 8
    tokenizer = RegexTokenizer()
    fingerprint: Mapping[str, Any] = {"kind": "words"}

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        made = [
            np.stack([np.random.default_rng(zlib.crc32(word.encode())).standard_normal(8) for word in text.split()])
            for text in texts
        ]
        return [(matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32) for matrix in made]

    async def aencode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> list[np.ndarray]:
        return self.encode_queries(texts)

    def encode_spans(self, texts: Sequence[str], spans: Any) -> list[list[np.ndarray]]:
        raise NotImplementedError


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script, over a small dataset "squad"."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    rng, folder = np.random.default_rng(0), tmp_path / "squad"
    passages = [rng.choice(WORDS, rng.integers(3, 12)) for _ in range(40)]
    records = [{"_id": str(n), "title": "", "text": " ".join(words)} for n, words in enumerate(passages)]
    questions = [{"_id": f"q{n}", "text": " ".join(passages[n][:3])} for n in range(20)]
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, questions)))
    for split, numbers in (("train", range(10)), ("test", range(10, 20))):
        rows = [f"q{n}\t{n}\t1" for n in numbers]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    import late_interaction

    def open_store(dataset: Any) -> Store:
        return LateInteractionRetriever.from_documents(dataset.documents, encoder=WordVectors()).store

    changed = {"DATA": tmp_path, "RESULTS": tmp_path / "r.md", "open_store": open_store, "CANDIDATES": (12, 40), "TIMED": 2}
    for name, value in (
        changed | {"REPETITIONS": (4, 16), "SIZES": {"small": {"repetitions": 4, "bits": 2, "projected": 4}}}
    ).items():
        monkeypatch.setattr(late_interaction, name, value)
    yield late_interaction
    sys.modules.pop("late_interaction")


def test_it_is_written_with_what_is_true_by_construction(script: Any) -> None:
    script.main(["squad", "--train", "6", "--questions", "8"])
    text = script.RESULTS.read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    searches = {(row[0], row[1]): row[2:] for row in rows if len(row) == 9}
    # with all passages as candidates the search is exact; twelve of forty cannot always hold the best ten
    exact = searches["exact MaxSim over all", ""][:3]
    assert exact[:2] == ["1.000", "1.000"]
    assert searches["small: 64", "40"][:3] == exact
    assert float(searches["small: 64", "12"][1]) < 1
    assert "--train 6 --questions 8" in text
    errors = {row[0]: row[1:] for row in rows if len(row) == 6}
    assert float(errors["16"][1]) < float(errors["4"][1])


def test_one_product_is_maxsim(script: Any) -> None:
    rng = np.random.default_rng(1)
    matrices = [rng.standard_normal((rng.integers(1, 6), 5)).astype(np.float32) for _ in range(30)]
    question = rng.standard_normal((4, 5)).astype(np.float32)
    np.testing.assert_allclose(script.brute_force(question, script.flat(matrices)), maxsim(question, matrices), rtol=1e-5)
