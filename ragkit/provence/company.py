"""What the other passages found for a question say of one of them: the words and names by which they lead to it.

The second passage of a question in two steps often shares no word with the question; the first one names it. This is
pseudo-relevance feedback (Rocchio 1971; Lavrenko and Croft 2001) as evidence for a network rather than as a longer query.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragkit.provence.matching import Words, columns_of, units_at, words
from ragkit.provence.pair import Pair

UNIT_LINKS, PASSAGE_LINKS = 4, 6
_PASSAGES = 10
_RARE = 0.5
_APART = re.compile(r"\s*\([^()]*\)\s*$")  # as in "Mercury (planet)", which no sentence calls it


class Links(NamedTuple):
    """How others lead to a passage; all numbers lie between 0 and about 1, and are 0 where there are no others."""

    title: NDArray[np.float32]
    """For each word of the title how well the best sentence of another passage that has it fits the question, relative to the
    best sentence of any; 0 for the question's own words."""
    passage: NDArray[np.float32]
    """The same for each word of the passage."""
    units: NDArray[np.float32]
    """[units, UNIT_LINKS]: fit times rarity of the unit's words, in the mean, at most, and ln(1 + sum) over the rare ones; how
    much of the question is held by the best passage that the unit names."""
    whole: NDArray[np.float32]
    """[PASSAGE_LINKS]: fit of the best sentence elsewhere that names the passage, how many do (ln(1 + n) / 3), fit times rarity
    of the name's words; the share of the question that the passage holds relative to the best passage, 1 / its rank by that
    share, and how many others there are (ln(1 + n) / ln 11)."""


class _Member(NamedTuple):
    passage: str
    name: Words
    told: Words
    held: float
    """Share of the question's words, by rarity, in title and passage."""
    rows: NDArray[np.int64]
    """The unit of each word, -1 for none."""
    fits: NDArray[np.float64]
    """How well each unit fits the question: half its own share of the question's words, half `held`."""
    buckets: NDArray[np.int64]
    """The distinct words, sorted."""
    best: NDArray[np.float64]
    """The best fit of a unit with that word."""


class Company:
    """The passages found together for a question. The ten that hold most of its words are looked at from each of them."""

    def __init__(self, pairs: Sequence[Pair], rarity: NDArray[np.float32]) -> None:
        """`pairs` all have one question; `rarity` is a table by bucket, see `matching.rarity_of`."""
        self._rarity = rarity
        self._wanted = np.unique(words(pairs[0].question).buckets) if pairs else np.empty(0, np.int64)
        weights = rarity[self._wanted]
        self._weights = weights / max(float(weights.sum()), 1e-6)
        # in an order of their own, so that the order of the pairs makes no difference
        distinct = {pair.passage: pair for pair in sorted(pairs, key=lambda pair: (pair.passage, pair.title, pair.name))}.values()
        found = [self._member(pair) for pair in distinct]
        self._held = sorted((member.held for member in found), reverse=True)
        order = np.argsort([-member.held for member in found], kind="stable")[:_PASSAGES]
        self._members = [found[at] for at in order]
        self._top = max((float(member.fits.max(initial=0.0)) for member in self._members), default=0.0)

    def links(self, pair: Pair, title: Words, told: Words) -> Links:
        """How the others lead to one of the passages; `title` and `told` are the words of the pair's title and passage."""
        others = [member for member in self._members if member.passage != pair.passage]
        in_title, in_passage = self._strengths(title, others), self._strengths(told, others)
        rows = units_at(told, pair.units)
        weighed = in_passage * self._rarity[told.buckets]
        fit = np.zeros((len(pair.units), UNIT_LINKS))
        inside = rows >= 0
        counts = np.maximum(np.bincount(rows[inside], minlength=len(pair.units)), 1)
        fit[:, 0] = np.bincount(rows[inside], weighed[inside], minlength=len(pair.units)) / counts
        np.maximum.at(fit[:, 1], rows[inside], weighed[inside])
        rare = inside & (self._rarity[told.buckets] >= _RARE)
        fit[:, 2] = np.log1p(np.bincount(rows[rare], weighed[rare], minlength=len(pair.units)))
        for member in others:
            np.maximum.at(fit[:, 3], _naming(told, rows, member.name), member.held)
        held = self._share(np.append(title.buckets, told.buckets))
        whole = self._whole(_name(pair), held, others)
        relative = np.float32(1 / max(self._top, 1e-6))
        return Links(in_title * relative, in_passage * relative, fit.astype(np.float32), whole)

    def _member(self, pair: Pair) -> _Member:
        told = words(pair.passage)
        rows = units_at(told, pair.units)
        held = self._share(np.append(words(pair.title).buckets, told.buckets))
        has = np.zeros((len(pair.units), len(self._wanted)))
        columns, hits = columns_of(self._wanted, told.buckets)
        hits &= rows >= 0
        has[rows[hits], columns[hits]] = 1
        fits = 0.5 * (has @ self._weights.astype(float)) + 0.5 * held
        inside = rows >= 0
        buckets, places = np.unique(told.buckets[inside], return_inverse=True)
        best = np.zeros(len(buckets))
        np.maximum.at(best, places, fits[rows[inside]])
        return _Member(pair.passage, _name(pair), told, held, rows, fits, buckets, best)

    def _share(self, buckets: NDArray[np.int64]) -> float:
        return float(self._weights[np.isin(self._wanted, buckets)].sum())

    def _strengths(self, said: Words, others: Sequence[_Member]) -> NDArray[np.float32]:
        """For each word the best fit of a unit elsewhere that has it; 0 for the question's own."""
        strengths = np.zeros(len(said.buckets))
        for member in others:
            columns, hits = columns_of(member.buckets, said.buckets)
            np.maximum(strengths, np.where(hits, np.append(member.best, 0.0)[columns], 0.0), out=strengths)
        strengths[columns_of(self._wanted, said.buckets)[1]] = 0
        return strengths.astype(np.float32)

    def _whole(self, name: Words, held: float, others: Sequence[_Member]) -> NDArray[np.float32]:
        """See `Links.whole`, for a passage of that name that holds such a share of the question."""
        ranks = [1 / (1 + sum(more > held for more in self._held)), float(np.log1p(len(others)) / np.log(11))]
        best_held = self._held[0] if self._held and self._held[0] > 0 else 1.0
        fit, naming = 0.0, 0
        for member in others:
            rows = np.unique(_naming(member.told, member.rows, name))
            naming += len(rows)
            fit = max(fit, float(member.fits[rows].max(initial=0.0)))
        own = self._rarity[name.buckets]
        rarest = float(own.max(initial=0.0))
        strengths = self._strengths(name, others)
        by_words = float((strengths * own).sum() / max(float(own.sum()), 1e-6))
        return np.array([fit * rarest, np.log1p(naming) / 3, by_words, held / best_held, *ranks], np.float32)


def accompanied(pairs: Sequence[Pair], rarity: NDArray[np.float32]) -> list[Pair]:
    """The passages found together for a question, each with their company."""
    company = Company(pairs, rarity)
    return [pair._replace(company=company) for pair in pairs]


def _name(pair: Pair) -> Words:
    return words(_APART.sub("", pair.name))


def _naming(told: Words, rows: NDArray[np.int64], name: Words) -> NDArray[np.int64]:
    """The units that have the words of a name one after the other; `rows` is the unit of each word told."""
    last = len(name.buckets) - 1
    if last < 0 or len(told.buckets) <= last:
        return np.empty(0, np.int64)
    starts = np.flatnonzero(told.buckets[: len(told.buckets) - last] == name.buckets[0])
    for at in range(1, last + 1):
        starts = starts[told.buckets[starts + at] == name.buckets[at]]
    found: NDArray[np.int64] = rows[starts[(rows[starts] >= 0) & (rows[starts] == rows[starts + last])]]
    return found
