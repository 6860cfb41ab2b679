"""What a model has said lately, so that a pruner behind a reranker need not ask again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import NamedTuple

from ragkit.provence.pair import Judged, Pair

_ENTRY = 64  # what a pair costs beside its tokens, in tokens


class Known(NamedTuple):
    """A judgement, and the hashes of the pairs that it was made in the light of; None if they made no difference."""

    judged: Judged
    beside: frozenset[int] | None


class Memo:
    """The pairs judged last, as many as have about `tokens` tokens together. Threads may share it."""

    def __init__(self, tokens: int = 2_000_000) -> None:
        """The default takes some 100 MB when it is full."""
        self._room = tokens
        self._known: OrderedDict[Pair, Known] = OrderedDict()
        self._lock = Lock()

    def find(self, pairs: Iterable[Pair], beside: frozenset[int]) -> dict[Pair, Judged]:
        """Those of the pairs that are known; they are then the last to be forgotten.

        `beside` holds the hashes of all pairs that were found together. What was judged in the light of fewer is not known: a
        pruner behind a reranker sees some of the passages that the reranker saw, and a new search is a new one.
        """
        found = {}
        enough: dict[int, bool] = {}  # most have the same company
        with self._lock:
            for pair in pairs:
                known = self._known.get(pair)
                if known is None:
                    continue
                if known.beside is not None and id(known.beside) not in enough:
                    enough[id(known.beside)] = known.beside >= beside
                if known.beside is None or enough[id(known.beside)]:
                    self._known.move_to_end(pair)
                    found[pair] = known.judged
        return found

    def add(self, pair: Pair, known: Known) -> None:
        """Remember this, and forget what was not asked for the longest time where room is needed.

        What was judged in the light of more stays.
        """
        with self._lock:
            before = self._known.get(pair)
            if before is not None:
                if known.beside is None or (before.beside is not None and before.beside >= known.beside):
                    return
                self._room += _cost(self._known.pop(pair))
            self._known[pair] = known
            self._room -= _cost(known)
            while self._room < 0:
                _, forgotten = self._known.popitem(last=False)
                self._room += _cost(forgotten)


def _cost(known: Known) -> int:
    return len(known.judged.keep) + _ENTRY
