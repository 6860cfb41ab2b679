"""Rows against one token at a time: in which unit it lies, and what its mark says about its word."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from zlib import crc32

import numpy as np
import pytest
import Stemmer
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.documents.model import Unit
from ragkit.encoders.folder import locate
from ragkit.encoders.pairs import PairTokenizer
from ragkit.provence.company import accompanied
from ragkit.provence.inputs import MARKS, PASSAGE_INPUTS, UNIT_INPUTS, Row, rows
from ragkit.provence.matching import BUCKETS, match
from ragkit.provence.pair import PASSAGE, QUESTION, SPECIAL, TITLE, Pair, Window
from ragkit.provence.windows import cut

WORDS = ["cat", "Cats", "running", "run", "of", "unbelievably", "x2y", "naïve", "日本", "...", "-", "😀", "e\u0301t", "[SEP]"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
LONG = st.lists(st.sampled_from(WORDS), min_size=30, max_size=120).map(" ".join)
CUTS = st.lists(st.integers(0, 250), max_size=10)
RARITY = np.random.default_rng(2).random(BUCKETS).astype(np.float32)
STEMMER = Stemmer.Stemmer("english")


@cache
def tokenizer(length: int) -> PairTokenizer:
    return PairTokenizer(locate(None), length)


def pair_of(question: str, title: str, passage: str, cuts: list[int]) -> Pair:
    """Units with gaps between them, and some that follow one another directly."""
    edges = sorted({min(at, len(passage)) for at in cuts})
    units = [Unit(start, end) for start, end in pairwise(edges) if (start + end) % 4]
    return Pair(question, passage, tuple(units), title)


def words_of(text: str) -> list[tuple[int, int, str]]:
    """Where each word lies, and its stem."""
    spans = [found.span() for found in re.finditer(r"[日本]|[^\W_日本]+", text)]
    return [(start, end, STEMMER.stemWord(text[start:end].casefold())) for start, end in spans]


def straight_marks(window: Window) -> list[tuple[str, bool, int] | None]:
    """Side, whether shared, grade of rarity; None for special tokens."""
    pair = window.pair
    texts = {QUESTION: words_of(pair.question), TITLE: words_of(pair.title), PASSAGE: words_of(pair.passage)}
    asked = {stem for _, _, stem in texts[QUESTION]}
    there = {stem for _, _, stem in texts[TITLE] + texts[PASSAGE]}
    marks: list[tuple[str, bool, int] | None] = []
    for start, segment in zip(window.starts, window.segments, strict=True):
        if segment == SPECIAL:
            marks.append(None)
            continue
        side = "question" if segment == QUESTION else "passage"
        stems = [stem for first, last, stem in texts[segment] if first <= start < last]
        if not stems:
            marks.append((side, False, 0))
            continue
        rarity = RARITY[crc32(stems[0].encode()) % BUCKETS]
        grade = sum(bool(rarity > border) for border in (0.35, 0.55, 0.75))
        marks.append((side, stems[0] in (there if segment == QUESTION else asked), grade))
    return marks


def decoded(mark: int) -> tuple[str, bool, int] | None:
    assert 0 <= mark < 16 or mark == MARKS - 1
    return None if mark == MARKS - 1 else ("passage" if mark // 8 else "question", bool(mark % 8 // 4), mark % 4)


def straight_owners(window: Window) -> list[int]:
    """The unit that holds a token's first character."""
    owners = []
    for start, segment in zip(window.starts, window.segments, strict=True):
        its = [at for at, unit in enumerate(window.pair.units) if unit.start <= start < unit.end]
        owners.append(its[0] if its and segment == PASSAGE else -1)
    return owners


def same(ours: Row, theirs: Row) -> bool:
    return all(map(np.array_equal, ours, theirs))


@given(question=TEXT, title=TEXT | st.just(""), passage=TEXT | LONG, cuts=CUTS, length=st.sampled_from([24, 64, 512]))
@settings(max_examples=60, deadline=None)
def test_rows_say_of_each_token_what_a_straight_loop_says(
    question: str, title: str, passage: str, cuts: list[int], length: int
) -> None:
    pair = pair_of(question, title, passage, cuts)
    [windows] = cut(tokenizer(length), [pair])
    for window, row in zip(windows, rows(windows, RARITY), strict=True):
        assert np.array_equal(row.ids, window.ids)
        assert [decoded(mark) for mark in row.marks] == straight_marks(window)
        assert row.owners.tolist() == straight_owners(window)
        # the question of a window is the one that was read
        matched = match(window.pair.question, title, passage, pair.units, RARITY)
        assert np.array_equal(row.units[:, :4], matched.units)
        assert np.array_equal(row.whole[:3], matched.whole)
        # nothing leads to a passage that is alone
        assert not row.units[:, 4:].any()
        assert not row.whole[[3, 4, 5, 8]].any()


@given(question=TEXT, title=TEXT, passage=LONG, cuts=CUTS)
@settings(max_examples=30, deadline=None)
def test_windows_agree_on_what_they_share_and_with_one_large_window(
    question: str, title: str, passage: str, cuts: list[int]
) -> None:
    pair = pair_of(" ".join(question.split()[:3]), title, passage, cuts)
    seen: dict[tuple[int, int, int], tuple[int, int]] = {}
    for length in (512, 48, 30):
        [windows] = cut(tokenizer(length), [pair])
        assert len(windows) > 1 or length > 30
        for window, row in zip(windows, rows(windows, RARITY), strict=True):
            for at, segment in enumerate(window.segments):
                if segment in (TITLE, PASSAGE):
                    place = (int(segment), int(window.starts[at]), int(window.ends[at]))
                    found = (int(row.marks[at]), int(row.owners[at]))
                    assert seen.setdefault(place, found) == found
            assert row.units.shape == (len(pair.units), UNIT_INPUTS)


@given(question=TEXT, passage=TEXT, title=TEXT, cuts=CUTS)
@settings(max_examples=40, deadline=None)
def test_without_rarity_nothing_lexical_goes_in(question: str, passage: str, title: str, cuts: list[int]) -> None:
    [windows] = cut(tokenizer(64), [pair_of(question, title, passage, cuts)])
    for window, row in zip(windows, rows(windows, None), strict=True):
        sides = {SPECIAL: None, QUESTION: ("question", False, 0), TITLE: ("passage", False, 0), PASSAGE: ("passage", False, 0)}
        assert [decoded(mark) for mark in row.marks] == [sides[int(segment)] for segment in window.segments]
        assert row.owners.tolist() == straight_owners(window)
        assert (row.units.shape, row.whole.shape) == ((len(window.pair.units), UNIT_INPUTS), (PASSAGE_INPUTS,))
        assert not row.units.any()
        assert not row.whole.any()


def test_windows_of_many_pairs_at_once_are_as_one_at_a_time() -> None:
    texts = [("cat", "", "Cats running. Of cats."), ("run", "cat", "unbelievably naïve " * 40), ("cat", "", "x2y")]
    pairs = [pair_of(question, title, passage, [0, 9, 14, 40]) for question, title, passage in texts]
    windows = [window for its_windows in cut(tokenizer(32), pairs) for window in its_windows]
    assert len(windows) > len(pairs)
    mixed = windows[::2] + windows[1::2]
    alone = [rows([window], RARITY)[0] for window in mixed]
    assert all(map(same, rows(mixed, RARITY), alone))
    assert rows([], RARITY) == []


@pytest.mark.parametrize("rarity", [RARITY, None])
def test_empty_texts(rarity: np.ndarray | None) -> None:
    for question, title, passage in (("", "", ""), ("cat", "", ""), ("", "cat", "cat"), ("cat", "cat", "")):
        [[window]] = cut(tokenizer(64), [Pair(question, passage, (), title)])
        [row] = rows([window], rarity)
        assert len(row.ids) == len(row.marks) == len(row.owners)
        assert (row.owners == -1).all()
        assert (row.units.shape, row.whole.shape) == ((0, UNIT_INPUTS), (PASSAGE_INPUTS,))


def test_rare_words_that_lead_from_one_passage_to_another_are_marked() -> None:
    """By hand: the mark of a linked word is 16 + 2 * (grade - 2) + strength."""
    one = pair_of("who directed the film of Jung", "", "Jung played in Cobbler, a film.", [0, 31])
    other = pair_of("who directed the film of Jung", "", "Cobbler and a zebra came out.", [0, 29])
    rarity = np.full(BUCKETS, 0.6, np.float32)  # of grade 2
    rarity[crc32(b"zebra") % BUCKETS] = 0.9  # of grade 3
    for word in ("a", "and", "out", "came", "play", "in"):
        rarity[crc32(word.encode()) % BUCKETS] = 0.1
    pairs = accompanied([one, other], rarity)
    found = {}
    for pair in pairs:
        [[window]] = cut(tokenizer(64), [pair])
        [row] = rows([window], rarity)
        for at in np.flatnonzero(window.segments == PASSAGE):
            word = re.search(r"\w+|\W", pair.passage[window.starts[at] :])
            assert word
            if window.starts[at] == 0 or not pair.passage[window.starts[at] - 1].isalpha():
                found[pair.passage[:4], word[0]] = int(row.marks[at])
    # the first passage is the best sentence for the question: as strong as can be; the other one has none of its words
    assert found["Cobb", "Cobbler"] == 16 + 1
    assert found["Jung", "Cobbler"] == 8 + 2
    assert found["Cobb", "zebra"] == 8 + 3
    assert found["Jung", "film"] == 8 + 4 + 2
