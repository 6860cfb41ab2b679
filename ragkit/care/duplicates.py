"""Passages that are nearly the same, by the overlap of their word sequences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError

_WORDS = 4
"""Of a shingle."""
_BANDS, _ROWS = 32, 4
"""A pair of similarity s becomes a candidate with probability 1 - (1 - s^4)^32: .98 at .6, and more than .9999 at .75."""
_MOST = 50
"""Neighbours in a bucket that each is compared with: of equal texts, all meet in every band anyway."""


def near_duplicates(texts: Sequence[Sequence[str]], threshold: float = 0.8) -> list[list[int]]:
    """Groups of texts that are nearly the same, given the words of each; ascending, and only those of two and more.

    Two belong together if their sets of four consecutive words have a Jaccard similarity of at least `threshold`, or if they are
    linked by others that do. Candidates are found by MinHash (Broder, "On the resemblance and containment of documents", 1997)
    in bands, and then compared exactly, so nothing is grouped below the threshold, and at the default hardly anything is
    missed. Texts without words belong to no group. Raises `InputError` for a threshold that is not between 0.5 and 1.
    """
    if not 0.5 <= threshold <= 1:
        raise InputError(f"threshold: must be a similarity from 0.5 to 1, not {threshold!r}")
    shingles = [shingle_hashes(words) for words in texts]
    parent = list(range(len(texts)))
    for first, second in _candidates(shingles):
        one, other = _root(parent, first), _root(parent, second)
        if one != other and jaccard(shingles[first], shingles[second]) >= threshold:
            parent[max(one, other)] = min(one, other)
    groups = defaultdict(list)
    for at in range(len(texts)):
        groups[_root(parent, at)].append(at)
    return [group for group in groups.values() if len(group) > 1]


def shingle_hashes(words: Sequence[str]) -> NDArray[np.uint64]:
    """One hash for each distinct run of four words, ascending; of a shorter text, for the whole."""
    if not words:
        return np.empty(0, np.uint64)
    size = min(_WORDS, len(words))
    runs = np.lib.stride_tricks.sliding_window_view(np.array(list(map(_hash, words)), np.uint64), size)
    mixed = np.zeros(len(runs), np.uint64)
    for column in runs.T:
        mixed = _mix((mixed ^ column) + np.uint64(1))
    return np.unique(mixed)


def jaccard(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    """The share of all hashes that both have; 0 for two empty sets."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - shared
    return shared / union if union else 0.0


def _candidates(shingles: Sequence[NDArray[np.uint64]]) -> Iterator[tuple[int, int]]:
    """Pairs that agree in all rows of a band, each as often as they do."""
    filled = [at for at, hashes in enumerate(shingles) if len(hashes)]
    signatures = np.array([_signature(shingles[at]) for at in filled], np.uint64).reshape(len(filled), _BANDS, _ROWS)
    for band in range(_BANDS):
        buckets = defaultdict(list)
        for at, rows in zip(filled, signatures[:, band], strict=True):
            buckets[rows.tobytes()].append(at)
        for bucket in buckets.values():
            for start in range(0, len(bucket), _MOST):
                # neighbouring parts share one, so that equal texts are linked however many there are
                yield from combinations(bucket[start : start + _MOST + 1], 2)


def _signature(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The smallest of the hashes under each of 128 random functions, [128]."""
    smallest: NDArray[np.uint64] = _mix(hashes[:, None] ^ _SALTS).min(axis=0)
    return smallest


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of each number (SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=2**18)
def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


_SALTS = np.random.default_rng(7).integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64)


def _root(parent: list[int], at: int) -> int:
    while parent[at] != at:
        parent[at] = at = parent[parent[at]]
    return at
