"""The analyzer in several languages, against one that reads character by character."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.encoders import lexical
from ragkit.encoders.languages import LANGUAGES
from ragkit.encoders.lexical import Analyzer, words
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


MARKS = {chr(c) for c in range(0x0300, 0xFE30) if unicodedata.category(chr(c)) in ("Mn", "Mc")}
PIECES = [
    "a",
    "I",
    "İ",
    "ı",
    "ß",
    "ﬁ",
    "é",
    "e\u0301",
    "\u0301",
    "_",
    " ",
    "-",
    "—",
    "'",
    "7",
    "½",
    "²",
    "京",
    "都",
    "ー",
    "ｶﾞ",
    "ค้",
    "한",
]
PIECES += [
    "κόσμος",
    "कि",
    "\u2028",
    "\x1c",
    "\xa0",
    "=\u0338",
    "\ud800",
    "\udc00",
    "\0",
    "the ",
    "running ",
    "runs",
    "𝒜",
    "\u0345",
]
texts = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=()), max_size=12).map("".join)


def one_by_one(text: str, language: str) -> list[str]:
    """The tokens of a text, one character after the other."""
    if language == "turkish":
        text = text.replace("I", "ı").replace("İ", "i")
    tokens, run, word = list[str](), "", ""
    for character in [*unicodedata.normalize("NFKC", text).casefold(), " "]:
        unspaced = lexical._unspaced.match(character) is not None
        if word and (character in MARKS or (character.isalnum() and not unspaced)):
            word += character
            continue
        if word:
            tokens.append(word)
            word = ""
        if unspaced:
            run += character
            continue
        if run:
            tokens += [run[at : at + 2] for at in range(len(run) - 1)] or [run]
            run = ""
        if character.isalnum():
            word = character
    return tokens


@given(st.lists(texts, max_size=6), st.sampled_from(["english", "turkish", "hindi", "japanese"]), st.booleans())
@settings(max_examples=200)
def test_tokens_are_those_of_reading_character_by_character(texts: list[str], language: str, flat: bool) -> None:
    analyzer = Analyzer(language, stopwords=False, stemming=False)
    expected = [one_by_one(text, language) for text in texts]
    assert (unpacked(analyzer.analyze_flat(texts)) if flat else analyzer.analyze(texts)) == expected


def test_every_character_there_is() -> None:
    analyzer = Analyzer("english", stopwords=False, stemming=False)
    # each beside a letter, a separator and its like; beyond the scripts with marks and unspaced ones, samples will do
    characters = [chr(c) for c in [*range(0x3400), *range(0x3400, 0x30000, 11)]]
    texts = [f"a{c}b {c}{c}_{c}" for c in characters]
    assert analyzer.analyze(texts) == [one_by_one(text, "english") for text in texts]


def unpacked(analysis: lexical.Analysis) -> list[list[str]]:
    terms = [analysis.terms[token] for token in analysis.tokens.tolist()]
    return [terms[start:end] for start, end in pairwise(analysis.starts.tolist())]


@given(st.lists(texts, max_size=8), st.sampled_from(list(LANGUAGES)), st.integers(1, 40))
def test_flat_is_the_same_at_any_slice_size(texts: list[str], language: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexical, "_SLICE", size)
        analysis = Analyzer(language).analyze_flat(iter(texts))
    expected = Analyzer(language).analyze(texts)
    assert unpacked(analysis) == expected
    assert analysis.terms == list(dict.fromkeys(term for terms in expected for term in terms))
    assert (analysis.starts.dtype, analysis.tokens.dtype) == (np.int64, np.int32)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Résumé, running!", "the résumé running"),
        ("検索 RAG", "検 索 rag"),
        ("ＦＵＬＬ ß", "full ss"),
        ("किताबों", "किताबों"),
        ("?!", ""),
    ],
)
def test_words(text: str, found: str) -> None:
    assert words(text, "en") == found.split()


@given(texts, st.integers(0, 20), st.integers(0, 20))
def test_words_of_a_part_are_found_in_a_row(text: str, start: int, end: int) -> None:
    whole = words(text, "english")
    part = " ".join(whole[start:end])
    assert words(part, "english") == whole[start:end]


def test_importing_the_rooms_is_cheap() -> None:
    modules = "lexical, vocabulary, dense, factory, langchain, wordpieces"
    heavy = "{'torch', 'transformers', 'faiss', 'Stemmer', 'stop_words', 'tokenizers', 'huggingface_hub'}"
    code = f"import sys; from ragkit.encoders import {modules}; import ragkit.indexes.bm25; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "set()"
