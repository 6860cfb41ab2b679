"""The analyzer in several languages, and the vocabulary."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.encoders.languages import LANGUAGES
from ragkit.encoders.lexical import Analyzer, Vocabulary
from ragkit.errors import InputError


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        # the stems are those that Snowball publishes in its sample vocabularies
        ("english", "The generalizations of vitamin D aren't consistently ﬁne.", "general vitamin d aren consist fine"),
        ("english", "snake_case, C3PO & naïve Résumés", "snake case c3po naïv résumé"),
        ("german", "Die Aufeinanderfolge der Straßen", "aufeinanderfolg strass"),
        ("french", "l'homme continuellement", "homm continuel"),
        ("ru", "важнейшие книги", "важн книг"),
        ("hindi", "किताबों", "किताब"),
        ("turkish", "ISI Işık", "ıs ışık"),
        ("zh", "检索增强生成 with RAG", "检索 索增 增强 强生 生成 with rag"),
        ("english", "京", "京"),
        ("ja", "データ検索", "デー ータ タ検 検索"),
        ("korean", "검색 엔진", "검색 엔진"),
        ("thai", "ค้น", "ค้ ้น"),
        ("vi", "tìm kiếm", "tìm kiếm"),
        ("english", "ＦＵＬＬ ｗｉｄｔｈ ﾃﾞｰﾀ", "full width デー ータ"),
        ("english", " \t\n!?", ""),
    ],
)
def test_terms(language: str, text: str, terms: str) -> None:
    assert Analyzer(language)(text) == terms.split()


def test_switches() -> None:
    text = "The cats were running"
    assert Analyzer(stopwords=False)(text) == ["the", "cat", "were", "run"]
    assert Analyzer(stemming=False)(text) == ["cats", "were", "running"]


@given(st.lists(st.text(max_size=60), max_size=5), st.sampled_from(list(LANGUAGES)))
def test_a_batch_is_its_texts_one_by_one(texts: list[str], language: str) -> None:
    analyzer = Analyzer(language)
    assert analyzer.analyze(texts) == [analyzer(text) for text in texts]


@given(st.text(alphabet="京都検索データ", min_size=2, max_size=20))
def test_bigrams_rebuild_their_run(run: str) -> None:
    bigrams = Analyzer()(run)
    assert bigrams[0] + "".join(bigram[1] for bigram in bigrams[1:]) == run


def test_languages() -> None:
    import Stemmer

    assert set(Stemmer.algorithms()) - set(LANGUAGES.values()) == {"porter", "dutch_porter"}
    assert Analyzer("de") == Analyzer("German") == Analyzer("german")
    with pytest.raises(InputError, match=r"^language: 'klingon'.*german \(de\)"):
        Analyzer("klingon")


def test_content_words_of_long_stop_lists_stay() -> None:
    assert Analyzer()("computer system fire") == ["comput", "system", "fire"]


def test_fingerprint() -> None:
    analyzer = Analyzer("fr", stopwords=False)
    assert Analyzer.from_fingerprint(json.loads(json.dumps(analyzer.fingerprint))) == analyzer
    assert analyzer.fingerprint != Analyzer("fr").fingerprint
    with pytest.raises(InputError, match="fingerprint"):
        Analyzer.from_fingerprint({**analyzer.fingerprint, "rules": 0})


def test_threads_agree() -> None:
    texts = [f"running wolves number {i} were generalizing" for i in range(200)]
    analyzer = Analyzer()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(analyzer, texts)) == analyzer.analyze(texts)


@pytest.mark.parametrize("text", ["a" * 100_000, "word " * 20_000, "京" * 100_000, "é!" * 50_000])
def test_long_queries_are_fast(text: str) -> None:
    analyzer = Analyzer()
    analyzer("é京")
    start = time.perf_counter()
    analyzer(text)
    assert time.perf_counter() - start < 1


@given(st.lists(st.lists(st.text(max_size=3), max_size=8), max_size=8), st.lists(st.text(max_size=3)))
def test_vocabulary(documents: list[list[str]], query: list[str]) -> None:
    vocabulary, seen = Vocabulary(), list[str]()
    for tokens in documents:
        ids = vocabulary.add(tokens)
        seen += [token for token in dict.fromkeys(tokens) if token not in seen]
        assert ids.dtype == np.int32
        assert [seen[i] for i in ids] == tokens
    assert len(vocabulary) == len(seen)
    assert [seen[i] for i in vocabulary.lookup(query)] == [token for token in query if token in seen]


def test_vocabulary_is_saved_as_json(tmp_path: Path) -> None:
    vocabulary = Vocabulary()
    vocabulary.add(["b", "京", "a", "b"])
    vocabulary.save(tmp_path / "terms.json")
    assert json.loads((tmp_path / "terms.json").read_bytes()) == ["b", "京", "a"]
    loaded = Vocabulary.load(tmp_path / "terms.json")
    assert loaded.lookup(["a", "x", "京"]).tolist() == [2, 1]
    assert loaded.add(["new"]).tolist() == [3]


def test_importing_the_rooms_is_cheap() -> None:
    modules = "lexical, dense, factory, langchain, wordpieces"
    heavy = "{'torch', 'transformers', 'faiss', 'Stemmer', 'stop_words', 'tokenizers', 'huggingface_hub'}"
    code = f"import sys; from ragkit.encoders import {modules}; import ragkit.indexes.bm25; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "set()"
