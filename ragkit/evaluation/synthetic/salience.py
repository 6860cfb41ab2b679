"""Which sentence of a passage says most of what the passage is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt


def salience(sentences: Sequence[Sequence[str]], idf: Mapping[str, float]) -> list[float]:
    """The cosine of each sentence's terms, weighted by tf times idf, with those of all sentences together.

    The centroid score of Radev et al., "Centroid-based summarization of multiple documents" (IPM 2004), scaled by length. A
    sentence without terms has 0.
    """
    vectors = [{term: count * idf[term] for term, count in Counter(terms).items()} for terms in sentences]
    centroid: Counter[str] = Counter()
    for vector in vectors:
        centroid.update(vector)
    return [_cosine(vector, centroid) for vector in vectors]


def _cosine(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    product = sum(weight * other[term] for term, weight in one.items())
    norm = sqrt(sum(w * w for w in one.values()) * sum(w * w for w in other.values()))
    return product / norm if norm else 0.0
