"""Compiled loops of the inverted index: building, decoding, and the exact top k by block maxima.

The layout is that of `segment.Segment`. The search is block-max pruning (Mallia, Suel, Tonellotto: "Faster Learned Sparse
Retrieval with Block-Max Pruning", SIGIR 2024): every block of documents gets an upper bound from the 8-bit maxima of the query's
terms in it; the best blocks are looked at first, and then, in the order of memory, those that can still reach the top k. Within a
block documents are bounded likewise, by 8-bit impacts; only those that may enter the top k are scored from the full values. So
the result is exact, while nearly all the work is integer additions over bytes.

Compiled once per machine and kept by numba in its cache. Nothing here holds the GIL.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

MAX_SHIFT = 8
"""Blocks have 2 ** shift documents: at most 256, since places within a block are bytes."""
_BUCKETS = 4096
_FIRST = 64  # blocks looked at before all others
_GROUP = 32  # blocks that are passed over together
_DENSE = 4  # a term in one of so many blocks has an entry for every block: found without a search, added up eight at a time
_LIMIT = 2.0**29  # of a bound as an integer; half of it is left for rounding up


@njit(cache=True, nogil=True)
def worth(value: float, n: float, offset: float, scale: float, c: float, slope: float, e: float) -> Any:
    """See `bm25_formulas.Saturation`."""
    return offset + scale * (value + c * n) / (slope * value + e * n)


@njit(cache=True, nogil=True)
def invert(starts: Any, terms: Any, weights: Any, size: int) -> tuple[Any, Any, Any]:
    """From rows to terms: where each term's postings start [size + 1], their rows (ascending) and their weights."""
    post_starts = np.zeros(size + 1, np.int64)
    for term in terms:
        post_starts[term + 1] += 1
    for term in range(size):
        post_starts[term + 1] += post_starts[term]
    cursor = post_starts[:-1].copy()
    rows = np.empty(len(terms), np.int32)
    values = np.empty(len(terms), np.float32)
    for row in range(len(starts) - 1):
        for i in range(starts[row], starts[row + 1]):
            at = cursor[terms[i]]
            cursor[terms[i]] = at + 1
            rows[at] = row
            values[at] = weights[i]
    return post_starts, rows, values


@njit(cache=True, nogil=True)
def encode(
    post_starts: Any, rows: Any, values: Any, lengths: Any, length_unit: float, formula: Any, shift: int
) -> tuple[Any, ...]:
    """Peaks of terms, entries (starts per term, block, maximum, first posting), and place and bound of each posting."""
    offset, scale, c, slope, e, b = formula
    size = len(post_starts) - 1
    n_blocks = (len(lengths) + (1 << shift) - 1) >> shift
    peaks = np.zeros(size, np.float64)
    entry_starts = np.zeros(size + 1, np.int64)
    for term in range(size):
        count, block = 0, -1
        for p in range(post_starts[term], post_starts[term + 1]):
            n = 1 - b + b * lengths[rows[p]] * length_unit
            peaks[term] = max(peaks[term], worth(values[p], n, offset, scale, c, slope, e))
            if rows[p] >> shift != block:
                block = rows[p] >> shift
                count += 1
        entry_starts[term + 1] = entry_starts[term] + (n_blocks if count * _DENSE >= n_blocks else count)
    entries = entry_starts[size]
    blocks = np.empty(entries, np.int32)
    maxima = np.zeros(entries, np.uint8)
    firsts = np.empty(entries + 1, np.uint32)
    postings = np.empty(len(rows), np.uint16)
    firsts[entries] = len(rows)
    for term in range(size):
        entry = entry_starts[term] - 1
        dense = entry_starts[term + 1] - entry_starts[term] == n_blocks
        block = -1
        for p in range(post_starts[term], post_starts[term + 1]):
            while rows[p] >> shift != block:
                block = block + 1 if dense else rows[p] >> shift
                entry += 1
                blocks[entry] = block
                firsts[entry] = p
            n = 1 - b + b * lengths[rows[p]] * length_unit
            share = worth(values[p], n, offset, scale, c, slope, e) / peaks[term] if peaks[term] > 0 else 0.0
            bound = min(max(np.ceil(share * 255), 1), 255)
            postings[p] = (rows[p] - (block << shift)) << 8 | np.int32(bound)
            maxima[entry] = max(maxima[entry], np.uint8(bound))
        for left in range(entry + 1, entry_starts[term + 1]):
            blocks[left] = n_blocks - (entry_starts[term + 1] - left)
            firsts[left] = post_starts[term + 1]
    return peaks, entry_starts, blocks, maxima, firsts, postings


@njit(cache=True, nogil=True)
def decode(
    shift: int, entry_starts: Any, blocks: Any, firsts: Any, postings: Any, values: Any, starts: Any, terms: Any, weights: Any
) -> None:
    """From terms back to rows: fills `terms` and `weights`, row by row in ascending order of terms."""
    cursor = starts[:-1].copy()
    for term in range(len(entry_starts) - 1):
        for entry in range(entry_starts[term], entry_starts[term + 1]):
            for p in range(firsts[entry], firsts[entry + 1]):
                row = (np.int64(blocks[entry]) << shift) + (postings[p] >> 8)
                terms[cursor[row]] = term
                weights[cursor[row]] = values[p]
                cursor[row] += 1


@njit(cache=True, nogil=True)
def row_sizes(shift: int, rows: int, entry_starts: Any, blocks: Any, firsts: Any, postings: Any) -> Any:
    """[rows] how many terms each row has."""
    sizes = np.zeros(rows, np.int64)
    for entry in range(entry_starts[-1]):
        for p in range(firsts[entry], firsts[entry + 1]):
            sizes[(np.int64(blocks[entry]) << shift) + (postings[p] >> 8)] += 1
    return sizes


@njit(cache=True, nogil=True)
def live_frequencies(terms: Any, shift: int, entry_starts: Any, blocks: Any, firsts: Any, postings: Any, live: Any) -> Any:
    """[terms] how many of the rows marked in `live` each term is in."""
    counts = np.zeros(len(terms), np.int64)
    for i in range(len(terms)):
        for entry in range(entry_starts[terms[i]], entry_starts[terms[i] + 1]):
            for p in range(firsts[entry], firsts[entry + 1]):
                counts[i] += live[(np.int64(blocks[entry]) << shift) + (postings[p] >> 8)]
    return counts


@njit(cache=True, nogil=True)
def _worse(score: float, position: int, other: float, other_position: int) -> Any:
    return score < other or (score == other and position > other_position)


@njit(cache=True, nogil=True)
def _sift_down(scores: Any, positions: Any, size: int) -> None:
    """Restore a heap whose worst hit is at the root, after the root has changed."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        right = child + 1
        if right < size and _worse(scores[right], positions[right], scores[child], positions[child]):
            child = right
        if not _worse(scores[child], positions[child], scores[at], positions[at]):
            return
        scores[at], scores[child] = scores[child], scores[at]
        positions[at], positions[child] = positions[child], positions[at]
        at = child


@njit(cache=True, nogil=True)
def _push(scores: Any, positions: Any, size: int, score: float, position: int) -> Any:
    """Add a hit to a heap of at most len(scores), whose worst hit is at the root; returns its new size."""
    if size == len(scores):
        if _worse(scores[0], positions[0], score, position):
            scores[0], positions[0] = score, position
            _sift_down(scores, positions, size)
        return size
    at = size
    scores[at], positions[at] = score, position
    while at > 0:
        parent = (at - 1) >> 1
        if not _worse(scores[at], positions[at], scores[parent], positions[parent]):
            break
        scores[at], scores[parent] = scores[parent], scores[at]
        positions[at], positions[parent] = positions[parent], positions[at]
        at = parent
    return size + 1


@njit(cache=True, nogil=True)
def sort_heaps(scores: Any, positions: Any, sizes: Any) -> None:
    """Turn every heap into a ranking, best first."""
    for query in range(len(sizes)):
        for last in range(sizes[query] - 1, 0, -1):
            scores[query, 0], scores[query, last] = scores[query, last], scores[query, 0]
            positions[query, 0], positions[query, last] = positions[query, last], positions[query, 0]
            _sift_down(scores[query], positions[query], last)


@njit(cache=True, nogil=True)
def _highest(values: Any) -> Any:
    highest = np.int32(0)
    for i in range(len(values)):
        highest = values[i] if values[i] > highest else highest
    return highest


@njit(cache=True, nogil=True)
def _cut(groups: Any, count: int) -> Any:
    """A bound that at least `count` groups of blocks reach, as far as so many have any, and hardly more do."""
    highest = _highest(groups)
    shift = 0
    while highest >> shift >= _BUCKETS:
        shift += 1
    counts = np.zeros(_BUCKETS, np.int32)
    for group in range(len(groups)):
        counts[groups[group] >> shift] += 1
    bucket = _BUCKETS - 1
    count -= counts[bucket]
    while count > 0 and bucket > 0:
        bucket -= 1
        count -= counts[bucket]
    return max(bucket << shift, 1)


@njit(cache=True, nogil=True)
def _add_up(upper: Any, maxima: Any, step: Any) -> None:
    """Add a dense term's bounds to those of the blocks; 1 more where the term is, so that also what is worth nothing is a hit."""
    for block in range(len(maxima)):
        upper[block] += step * np.int32(maxima[block]) + np.int32(maxima[block] > 0)


@njit(cache=True, nogil=True, inline="always")
def _advance(blocks: Any, cursors: Any, ends: Any, j: int, block: int) -> Any:
    """Move a query's j-th term on to its first entry that is not before a block."""
    entry = cursors[j]
    while entry < ends[j] and blocks[entry] < block:
        entry += 1
    cursors[j] = entry
    return entry


@njit(cache=True, nogil=True)
def search(
    query_starts: Any, query_terms: Any, query_weights: Any, heap_scores: Any, heap_positions: Any, heap_sizes: Any, spent: Any,
    shift: int, peaks: Any, entry_starts: Any, blocks: Any, maxima: Any, firsts: Any, postings: Any, values: Any,
    positions: Any, lengths: Any, length_unit: float, formula: Any, slack: float, live: Any, open_blocks: Any, budget: int,
) -> None:  # fmt: skip
    """Put a segment's best hits for each query on its heap.

    `query_terms` are the segment's own numbers of terms. `slack` is how much higher than at its building a worth may be now.
    `live` and `open_blocks` (either may be empty: everything) mark rows that may be found, and blocks that have any. No further
    block is looked at for a query whose `spent` postings, over all segments, have reached `budget`.
    """
    offset, scale, c, slope, e, b = formula
    width = 1 << shift
    n_blocks = (len(positions) + width - 1) >> shift
    groups = np.empty((n_blocks + _GROUP - 1) // _GROUP, np.int32)
    upper = np.empty(len(groups) * _GROUP, np.int32)
    sums = np.zeros(width, np.int32)
    exact = np.zeros(width)
    longest = 0
    for query in range(len(heap_sizes)):
        longest = max(longest, query_starts[query + 1] - query_starts[query])
    steps = np.empty(longest, np.int32)
    dense = np.empty(longest, np.bool_)
    cursors = np.empty(longest, np.int64)
    ends = np.empty(longest, np.int64)
    lows = np.empty(longest, np.int64)
    highs = np.empty(longest, np.int64)
    heads = np.empty(longest, np.uint16)
    for query in range(len(heap_sizes)):
        begin = query_starts[query]
        terms = query_terms[begin : query_starts[query + 1]]
        weights = query_weights[begin : query_starts[query + 1]]
        scores, hits, size = heap_scores[query], heap_positions[query], heap_sizes[query]
        total = 0.0
        for j in range(len(terms)):
            total += max(weights[j], 0.0) * peaks[terms[j]] * slack
        unit = _LIMIT / total if total > 1e-200 else 1.0
        upper[:] = 0
        for j in range(len(terms)):
            first, ends[j] = entry_starts[terms[j]], entry_starts[terms[j] + 1]
            steps[j] = np.int32(np.ceil(max(weights[j], 0.0) * peaks[terms[j]] * slack * unit / 255))
            dense[j] = ends[j] - first == n_blocks
            if dense[j]:
                _add_up(upper, maxima[first : ends[j]], steps[j])
            else:
                for entry in range(first, ends[j]):
                    upper[blocks[entry]] += steps[j] * np.int32(maxima[entry]) + np.int32(1)
        if len(open_blocks):
            for block in range(n_blocks):
                if not open_blocks[block]:
                    upper[block] = 0
        for group in range(len(groups)):
            groups[group] = _highest(upper[group * _GROUP : (group + 1) * _GROUP])
        least = np.int64(1)
        if size == len(scores):
            least = max(least, np.int64(np.floor(max(scores[0], 0.0) * unit)))
        # a few of the best blocks first, so that the pass through the rest, in the order of memory, can leave most of them out;
        # where the time may end before, in steps from the best to the rest
        count, cut = _FIRST, np.int64(2**31)
        while cut > 1:
            cut = np.int64(_cut(groups, count)) if count == _FIRST or budget < 2**62 else np.int64(1)
            count *= 4
            for j in range(len(terms)):
                cursors[j] = entry_starts[terms[j]]
            for group in range(len(groups)):
                if groups[group] < max(cut, least):
                    continue
                for block in range(group * _GROUP, min((group + 1) * _GROUP, n_blocks)):
                    if upper[block] < max(cut, least) or spent[query] >= budget:
                        continue
                    upper[block] = 0
                    for j in range(len(terms)):
                        entry = entry_starts[terms[j]] + block if dense[j] else _advance(blocks, cursors, ends, j, block)
                        lows[j], highs[j] = firsts[entry], firsts[min(entry + 1, len(firsts) - 1)]
                        if not dense[j] and (entry == ends[j] or blocks[entry] > block):
                            highs[j] = lows[j]
                    for j in range(len(terms)):
                        heads[j] = postings[min(lows[j], len(postings) - 1)]
                    for j in range(len(terms)):
                        step = steps[j]
                        spent[query] += highs[j] - lows[j]
                        for p in range(lows[j], highs[j]):
                            sums[postings[p] >> np.uint16(8)] += step * np.int32(postings[p] & np.uint16(255)) + np.int32(1)
                    if _highest(sums) >= least:
                        base = np.int64(block) << shift
                        for j in range(len(terms)):
                            for p in range(lows[j], highs[j]):
                                place = postings[p] >> np.uint16(8)
                                if sums[place] >= least:
                                    n = 1 - b + b * lengths[base + place] * length_unit
                                    exact[place] += weights[j] * worth(values[p], n, offset, scale, c, slope, e)
                        for place in range(width):
                            row = base + place
                            if sums[place] >= least and (not len(live) or live[row]):
                                size = _push(scores, hits, size, exact[place], positions[row])
                                if size == len(scores):
                                    least = max(least, np.int64(np.floor(max(scores[0], 0.0) * unit)))
                        exact[:] = 0
                    sums[:] = 0
        heap_sizes[query] = size
