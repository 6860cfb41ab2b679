"""What a model has said lately, so that a pruner behind a reranker need not ask again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import NamedTuple

from ragkit.provence.pair import Judged, Pair

_ENTRY = 64  # what a pair costs beside its tokens, in tokens


class Known(NamedTuple):
    """A judgement, and the pairs of the question that it was made in the light of; None if they made no difference."""

    judged: Judged
    beside: frozenset[Pair] | None


class Memo:
    """The pairs judged last, as many as have about `tokens` tokens together. Threads may share it."""

    def __init__(self, tokens: int = 2_000_000) -> None:
        """The default takes some 100 MB when it is full."""
        self._room = tokens
        self._known: OrderedDict[Pair, Known] = OrderedDict()
        self._lock = Lock()

    def find(self, pairs: Iterable[Pair], beside: Mapping[str, frozenset[Pair]]) -> dict[Pair, Judged]:
        """Those of the pairs that are known; they are then the last to be forgotten.

        `beside` holds the pairs of each question. What was judged in the light of fewer is not known: a pruner behind a reranker
        sees some of the passages that the reranker saw, and a new search is a new one.
        """
        found = {}
        with self._lock:
            for pair in pairs:
                known = self._known.get(pair)
                if known is not None and (known.beside is None or known.beside >= beside[pair.question]):
                    self._known.move_to_end(pair)
                    found[pair] = known.judged
        return found

    def add(self, known: Mapping[Pair, Known]) -> None:
        """Remember these, and forget what was not asked for the longest time where room is needed."""
        with self._lock:
            for pair, verdict in known.items():
                # judged again beside others, or by two threads
                if pair in self._known:
                    self._room += _cost(self._known.pop(pair))
                self._known[pair] = verdict
                self._room -= _cost(verdict)
            while self._room < 0:
                _, forgotten = self._known.popitem(last=False)
                self._room += _cost(forgotten)


def _cost(known: Known) -> int:
    return len(known.judged.keep) + _ENTRY
