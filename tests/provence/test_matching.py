"""Shared words and their rarity against sets of stems and straight loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from math import log
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import Stemmer
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.documents.model import Unit
from ragkit.provence.matching import BUCKETS, Words, match, rarity_of, unit_evidence, words

VOCABULARY = [
    "run",
    "running",
    "Runs",
    "cat",
    "CATS",
    "Straße",
    "STRASSE",
    "naïve",
    "42",
    "x2",
    "日本",
    "かな",
    "ไทย",
    "한국어",
    "the",
    "ⅷ",
]
GAPS = [" ", "  ", ". ", "-", "_", "\n", "'", "é́ "]
TEXT = st.lists(st.tuples(st.sampled_from(VOCABULARY), st.sampled_from(GAPS)).map("".join), max_size=12).map("".join)
UNSPACED = "日本かなไทย々𠀀ກမខ"
STEMMER = Stemmer.Stemmer("english")
RARITY = np.random.default_rng(5).random(BUCKETS).astype(np.float32)


def stem(word: str) -> str:
    stemmed: str = STEMMER.stemWord(word.casefold())
    return stemmed


def bucket(word: str) -> int:
    return crc32(stem(word).encode()) % BUCKETS


def straight_spans(text: str) -> list[tuple[int, int]]:
    """Runs of alphanumeric characters, but one with a character out of `UNSPACED` character by character."""
    spans: list[tuple[int, int]] = []
    for inside, run in groupby(enumerate(text), lambda place: place[1].isalnum()):
        places = [at for at, _ in run]
        if inside and any(text[at] in UNSPACED for at in places):
            spans += [(at, at + 1) for at in places]
        elif inside:
            spans.append((places[0], places[-1] + 1))
    return spans


def spans_of(found: Words) -> list[tuple[int, int]]:
    return list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))


def stems_of(text: str) -> list[str]:
    return [stem(text[start:end]) for start, end in straight_spans(text)]


def units_at(cuts: Sequence[int]) -> list[Unit]:
    """Units with gaps between them, and some that follow one another directly."""
    edges = sorted(set(cuts))
    return [Unit(start, end) for start, end in pairwise(edges) if (start + end) % 3]


CUTS = st.lists(st.integers(0, 70), max_size=8)


# ---- words ----


@given(TEXT)
@settings(max_examples=80, deadline=None)
def test_words_are_runs_of_letters_and_digits(text: str) -> None:
    found = words(text)
    assert spans_of(found) == straight_spans(text)
    assert found.buckets.tolist() == [bucket(text[start:end]) for start, end in straight_spans(text)]
    assert {array.dtype for array in found} == {np.dtype(np.int64)}


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_every_letter_and_digit_of_any_text_is_in_one_word_and_nothing_else_is(text: str) -> None:
    spans = spans_of(words(text))
    places = [at for start, end in spans for at in range(start, end)]
    assert places == [at for at, char in enumerate(text) if char.isalnum()]
    for start, end in spans:
        edges = text[max(start - 1, 0) : start] + text[end : end + 1]
        assert end - start == 1 or not any(map(str.isalnum, edges))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("東京タワー は 333m", ["東", "京", "タ", "ワ", "ー", "は", "333m"]),
        ("版本v2.0", ["版", "本", "v", "2", "0"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("don't x_y", ["don", "t", "x", "y"]),
        ("𠀀𠀁", ["𠀀", "𠀁"]),
        ("\ud800a \U0010ffff😀", ["a"]),
        ("", []),
        (" .\n", []),
    ],
)
def test_words_of_a_text(text: str, parts: list[str]) -> None:
    assert [text[start:end] for start, end in spans_of(words(text))] == parts


def test_forms_of_a_word_share_a_bucket() -> None:
    for forms in ("run runs running Running", "straße STRASSE strasse", "Élan élan"):
        assert len(set(words(forms).buckets.tolist())) == 1
    assert len(set(words(" ".join(VOCABULARY)).buckets.tolist())) == len(set(stems_of(" ".join(VOCABULARY))))


# ---- rarity ----


@given(st.lists(TEXT, min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_rarity_counts_in_how_many_passages_a_word_is(passages: list[str]) -> None:
    counts: Counter[int] = Counter()
    for passage in passages:
        counts.update({crc32(its_stem.encode()) % BUCKETS for its_stem in stems_of(passage)})
    expected = np.full(BUCKETS, 255, np.uint8)
    total = log(len(passages) + 1)
    for place, count in counts.items():
        expected[place] = round(255 * log((len(passages) + 1) / (count + 1)) / total)
    found = rarity_of(passages)
    assert found.dtype == np.uint8
    # a half may fall either way
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found != expected).sum() <= 1


def test_a_word_of_every_passage_is_not_rare_and_an_unseen_one_is_most() -> None:
    table = rarity_of(["the cat", "the dog", "the cows"])
    assert [table[bucket(word)] for word in ("the", "unseen")] == [0, 255]
    assert table[bucket("cat")] == table[bucket("cow")] == round(255 * log(2) / log(4))


# ---- match ----


def straight_evidence(question: str, passage: str, units: Sequence[Unit]) -> list[list[float]]:
    """Coverage and BM25 of each unit, word by word."""
    wanted = set(stems_of(question))
    weights = {one: float(RARITY[crc32(one.encode()) % BUCKETS]) for one in wanted}
    total = max(sum(weights.values()), 1e-6)
    spans = straight_spans(passage)
    inside = [[stem(passage[at:to]) for at, to in spans if unit.start <= at < unit.end] for unit in units]
    mean = max(sum(map(len, inside)) / len(units), 1.0) if units else 1.0
    share, bm25 = [], []
    for its in inside:
        counts = Counter(its)
        share.append(sum(weights[one] for one in wanted if counts[one]) / total)
        damped = {one: counts[one] / (counts[one] + 1.2 * (0.25 + 0.75 * len(its) / mean)) for one in wanted if counts[one]}
        bm25.append(sum(weights[one] * value for one, value in damped.items()) / total)
    best = [max(values, default=0.0) or 1.0 for values in (share, bm25)]
    return [[s, s / best[0], b, b / best[1]] for s, b in zip(share, bm25, strict=True)]


@given(question=TEXT, title=TEXT, passage=TEXT, cuts=CUTS)
@settings(max_examples=100, deadline=None)
def test_a_match_is_what_sets_of_stems_say(question: str, title: str, passage: str, cuts: list[int]) -> None:
    units = units_at(cuts)
    found = match(question, title, passage, units, RARITY)
    asked, headed, told = map(stems_of, (question, title, passage))
    there = {*headed, *told}
    expected = [[one in there for one in asked], [one in asked for one in headed], [one in asked for one in told]]
    assert [shared.tolist() for shared in found.shared] == expected
    for ours, text in zip(found[:3], (question, title, passage), strict=True):
        assert spans_of(ours) == straight_spans(text)

    evidence = straight_evidence(question, passage, units)
    assert found.units.shape == (len(units), 4)
    np.testing.assert_allclose(found.units, np.array(evidence).reshape(-1, 4), atol=1e-5)
    assert ((found.units >= 0) & (found.units <= 1 + 1e-6)).all()

    weights = {one: float(RARITY[crc32(one.encode()) % BUCKETS]) for one in asked}
    total = max(sum(weights.values()), 1e-6)
    covered = [sum(weights[one] for one in weights if one in side) / total for side in (there, headed)]
    best = max((row[0] for row in evidence), default=0.0)
    np.testing.assert_allclose(found.whole, [covered[0], best, covered[1]], atol=1e-5)


@pytest.mark.parametrize(
    ("question", "title", "passage", "units"),
    [
        ("", "", "", ()),
        ("", "A title", "Some words.", (Unit(0, 11),)),
        ("cat", "", "", ()),
        ("cat", "cat", "", (Unit(0, 0),)),
        ("cat", "", "cat", ()),
        ("?!", "...", "- -", (Unit(0, 1), Unit(2, 3))),
    ],
)
def test_what_is_empty_gives_zeros(question: str, title: str, passage: str, units: tuple[Unit, ...]) -> None:
    found = match(question, title, passage, units, RARITY)
    assert found.units.shape == (len(units), 4)
    assert found.units.dtype == found.whole.dtype == np.float32
    assert not found.units.any()
    assert found.whole.tolist() == [float(question == "cat" and "cat" in title + passage), 0, float(question == title == "cat")]
    assert [len(shared) for shared in found.shared] == [len(straight_spans(text)) for text in (question, title, passage)]


def test_words_that_every_passage_has_are_no_evidence() -> None:
    nothing = np.zeros(BUCKETS, np.float32)
    found = match("the cat", "the", "the cat", [Unit(0, 7)], nothing)
    assert not found.units.any()
    assert not found.whole.any()
    assert [shared.tolist() for shared in found.shared] == [[True, True], [True], [True, True]]


def test_a_word_counts_for_the_unit_in_which_it_begins() -> None:
    told = words("one two three")
    wanted = np.sort(told.buckets)
    weights = np.full(3, 1 / 3, np.float32)
    found: Any = unit_evidence(wanted, weights, told, [Unit(0, 5), Unit(6, 9), Unit(9, 13)])
    # "two" and "three" reach into the next unit, and the last has no beginning of a word
    np.testing.assert_allclose(found[:, 0], [2 / 3, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(found[:, 1], [1, 0.5, 0], atol=1e-6)
