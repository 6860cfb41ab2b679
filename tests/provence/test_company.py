"""What a passage's company says of it, against sets of words and loops over sentences."""

from __future__ import annotations

import math
import re
from itertools import accumulate, pairwise
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import Stemmer
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.documents.model import Unit
from ragkit.provence.company import PASSAGE_LINKS, UNIT_LINKS, Company, accompanied
from ragkit.provence.matching import BUCKETS, words
from ragkit.provence.pair import Pair

RARITY = np.random.default_rng(4).random(BUCKETS).astype(np.float32)
STEMMER = Stemmer.Stemmer("english")
WORD = st.sampled_from(["film", "Jung", "Cobbler", "directed", "Park", "born", "Seoul", "river", "of", "x2", "Cobblers"])
SENTENCE = st.lists(WORD, max_size=7).map(lambda chosen: " ".join(chosen) + ". ")
PASSAGE = st.tuples(
    st.lists(SENTENCE, max_size=4),
    st.sampled_from(["", "Jung", "Cobbler (film)", "Seoul river", "x2"]),
    st.sampled_from(["", "Park"]),
)


def pair_of(question: str, sentences: list[str], name: str = "", title: str = "") -> Pair:
    edges = [0, *accumulate(map(len, sentences))]
    return Pair(question, "".join(sentences), tuple(Unit(a, b) for a, b in pairwise(edges)), title, name)


def stems(text: str) -> list[str]:
    return [STEMMER.stemWord(word.casefold()) for word in re.findall(r"[^\W_]+", text)]


def rare(stem: str) -> float:
    return float(RARITY[crc32(stem.encode()) % BUCKETS])


def contains(sentence: list[str], name: list[str]) -> int:
    return sum(sentence[at : at + len(name)] == name for at in range(len(sentence) - len(name) + 1)) if name else 0


class Straight:
    """The same numbers from the definitions."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.asked = set(stems(pairs[0].question))
        distinct = list({pair.passage: pair for pair in pairs}.values())
        self.all = sorted((self.held(pair) for pair in distinct), reverse=True)
        self.members = sorted(distinct, key=lambda pair: -self.held(pair))[:10]

    def share(self, text: str) -> float:
        total = sum(map(rare, self.asked))
        return sum(rare(stem) for stem in self.asked & set(stems(text))) / max(total, 1e-6)

    def held(self, pair: Pair) -> float:
        return self.share(f"{pair.title} {pair.passage}")

    def sentences(self, pair: Pair) -> list[str]:
        return [pair.passage[unit.start : unit.end] for unit in pair.units]

    def fit(self, pair: Pair, sentence: str) -> float:
        return 0.5 * self.share(sentence) + 0.5 * self.held(pair)

    def strength(self, stem: str, others: list[Pair]) -> float:
        if stem in self.asked:
            return 0.0
        return max((self.fit(other, s) for other in others for s in self.sentences(other) if stem in stems(s)), default=0.0)

    def links(self, pair: Pair) -> tuple[list[float], list[float], list[list[float]], list[float]]:
        others = [other for other in self.members if other.passage != pair.passage]
        top = max((self.fit(member, s) for member in self.members for s in self.sentences(member)), default=0.0)
        title, passage = (
            [self.strength(stem, others) / max(top, 1e-6) for stem in stems(text)] for text in (pair.title, pair.passage)
        )
        units = []
        for sentence in self.sentences(pair):
            strengths = [(self.strength(stem, others) * rare(stem), rare(stem)) for stem in stems(sentence)]
            named = [self.held(o) for o in others if contains(stems(sentence), stems(o.name.removesuffix(" (film)")))]
            units.append(
                [
                    sum(value for value, _ in strengths) / max(len(strengths), 1),
                    max((value for value, _ in strengths), default=0.0),
                    math.log1p(sum(value for value, rarity in strengths if rarity >= 0.5)),
                    max(named, default=0.0),
                ]
            )
        name = stems(pair.name.removesuffix(" (film)"))
        naming = [self.fit(o, s) for o in others for s in self.sentences(o) if contains(stems(s), name)]
        whole = [
            max(naming, default=0.0) * max(map(rare, name), default=0.0),
            math.log1p(len(naming)) / 3,
            sum(self.strength(stem, others) * rare(stem) for stem in name) / max(sum(map(rare, name)), 1e-6),
            self.held(pair) / (self.all[0] or 1.0),
            1 / (1 + sum(value > self.held(pair) + 1e-6 for value in self.all)),
            math.log1p(len(others)) / math.log(11),
        ]
        return title, passage, units, whole


@given(question=SENTENCE, passages=st.lists(PASSAGE, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_links_are_what_the_definitions_say(question: str, passages: list[tuple[list[str], str, str]]) -> None:
    pairs = [pair_of(question, *passage) for passage in passages]
    # of equal passages only one is looked at, whichever title it has
    pairs = list({pair.passage: pair for pair in pairs}.values())
    straight = Straight(pairs)
    company = Company(pairs, RARITY)
    for pair in pairs:
        found = company.links(pair, words(pair.title), words(pair.passage))
        title, passage, units, whole = straight.links(pair)
        assert found.title == pytest.approx(title, abs=1e-5)
        assert found.passage == pytest.approx(passage, abs=1e-5)
        assert found.units.shape == (len(pair.units), UNIT_LINKS)
        assert np.allclose(found.units, np.array(units).reshape(-1, UNIT_LINKS), atol=1e-5)
        assert found.whole == pytest.approx(whole, abs=1e-5)


def test_only_the_ten_that_hold_most_of_the_question_are_looked_at() -> None:
    question = "Who directed the film"
    good = [pair_of(question, [f"They directed the film number {n} in Seoul. "]) for n in range(10)]
    poor = pair_of(question, ["A film about zebras. "])
    target = pair_of(question, ["Nothing but zebras. "])
    for others, led in (([*good[:9], poor], True), ([*good, poor], False)):
        found = Company([target, *others], RARITY).links(target, words(""), words(target.passage))
        assert bool(found.passage.any()) == led


def test_those_found_together_have_one_company() -> None:
    pairs = [pair_of("Jung", ["Jung in Cobbler. "]), pair_of("Jung", ["Cobbler. "])]
    found = accompanied(pairs, RARITY)
    assert [pair._replace(company=None) for pair in found] == pairs
    assert found[0].company is found[1].company
    linked = [pair.company.links(pair, words(""), words(pair.passage)).passage.any() for pair in found if pair.company]
    assert linked == [False, True]
    assert accompanied([], RARITY) == []


@given(question=SENTENCE, passages=st.lists(PASSAGE, min_size=2, max_size=14), seed=st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_passages_makes_no_difference(
    question: str, passages: list[tuple[list[str], str, str]], seed: Any
) -> None:
    pairs = [pair_of(question, *passage) for passage in passages]
    shuffled = seed.sample(pairs, len(pairs))
    companies = Company(pairs, RARITY), Company(shuffled, RARITY)
    for pair in pairs:
        ours, theirs = (company.links(pair, words(pair.title), words(pair.passage)) for company in companies)
        assert all(map(np.array_equal, ours, theirs))


@pytest.mark.parametrize("question", ["", "?", "日本"])
def test_odd_questions_and_passages(question: str) -> None:
    pairs = [pair_of(question, []), pair_of(question, ["\n"]), pair_of(question, ["日本 😀"], "日本"), pair_of(question, ["日"])]
    for pair in accompanied(pairs, RARITY):
        assert pair.company is not None
        found = pair.company.links(pair, words(pair.title), words(pair.passage))
        assert np.isfinite(found.units).all()
        assert np.isfinite(found.whole).all()
        assert found.whole.shape == (PASSAGE_LINKS,)
