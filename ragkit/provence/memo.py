"""What a model has said lately, so that a pruner behind a reranker need not ask again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import Lock

from ragkit.provence.pair import Judged, Pair

_ENTRY = 64  # what a pair costs beside its tokens, in tokens


class Memo:
    """The pairs judged last, as many as have about `tokens` tokens together. Threads may share it."""

    def __init__(self, tokens: int = 2_000_000) -> None:
        """The default takes some 100 MB when it is full."""
        self._room = tokens
        self._known: OrderedDict[Pair, Judged] = OrderedDict()
        self._lock = Lock()

    def find(self, pairs: Iterable[Pair]) -> dict[Pair, Judged]:
        """Those of the pairs that are known; they are then the last to be forgotten."""
        found = {}
        with self._lock:
            for pair in pairs:
                if pair in self._known:
                    self._known.move_to_end(pair)
                    found[pair] = self._known[pair]
        return found

    def add(self, judged: Mapping[Pair, Judged]) -> None:
        """Remember these, and forget what was not asked for the longest time where room is needed."""
        with self._lock:
            for pair, verdict in judged.items():
                # two threads may have judged the same pair
                if pair not in self._known:
                    self._known[pair] = verdict
                    self._room -= _cost(verdict)
            while self._room < 0:
                _, forgotten = self._known.popitem(last=False)
                self._room += _cost(forgotten)


def _cost(verdict: Judged) -> int:
    return len(verdict.keep) + _ENTRY
