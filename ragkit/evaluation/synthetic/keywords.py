"""A sentence as the few words that somebody might search with who half remembers it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ragkit.evaluation.synthetic.pieces import Piece

_MOST_INFORMATIVE, _LEAST_INFORMATIVE = 1 / 4, 1 / 3
_FEWEST, _MOST = 3, 8
"""Words of a question; two characters of an unspaced script count as one."""


def keyword_question(pieces: Sequence[Piece]) -> str | None:
    """What is left of a sentence without its most and its least informative pieces; None if that is too little to search with.

    Stop words go, repeats go, and of the rest the quarter with the highest weights (rounded up: they stand for the answer, which
    somebody who asks does not know, and any search would find the sentence by them) and the third with the lowest (rounded
    down). Of what remains the 8 heaviest are kept, and stand in their order. In an unspaced script that is 16 characters, and
    one whose neighbours are both gone goes, too.
    """
    places = _distinct(pieces)
    places.sort(key=lambda at: (-pieces[at].weight, at))
    first = ceil(len(places) * _MOST_INFORMATIVE)
    last = len(places) - int(len(places) * _LEAST_INFORMATIVE)
    chosen = _heaviest(pieces, places[first:last])
    kept = sorted(at for at in chosen if not pieces[at].character or _has_neighbour(pieces, chosen, at))
    if _size(pieces, kept) < _FEWEST:
        return None
    return "".join(_spaced(pieces, kept)).strip()


def _distinct(pieces: Sequence[Piece]) -> list[int]:
    """The places of pieces that count: of equal words the first, of characters each."""
    seen = set()
    places = []
    for at, piece in enumerate(pieces):
        word = piece.text.casefold()
        if piece.weight > 0 and (piece.character or word not in seen):
            places.append(at)
            seen.add(word)
    return places


def _heaviest(pieces: Sequence[Piece], places: Sequence[int]) -> set[int]:
    chosen: list[int] = []
    for at in places:
        if _size(pieces, [*chosen, at]) <= _MOST:
            chosen.append(at)
    return set(chosen)


def _size(pieces: Sequence[Piece], places: Sequence[int]) -> float:
    return sum(0.5 if pieces[at].character else 1.0 for at in places)


def _has_neighbour(pieces: Sequence[Piece], chosen: set[int], at: int) -> bool:
    before = pieces[at].attached and at - 1 in chosen and pieces[at - 1].character
    after = at + 1 in chosen and pieces[at + 1].attached and pieces[at + 1].character
    return before or after


def _spaced(pieces: Sequence[Piece], places: Sequence[int]) -> list[str]:
    """The texts of these pieces, with a space before each that does not follow its neighbour."""
    return [
        piece.text if piece.attached and at - 1 in places else f" {piece.text}"
        for at, piece in ((at, pieces[at]) for at in places)
    ]
