"""Pairs to windows that fit the model, and what the network says of the windows back to one judgement per pair."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragkit.encoders.pairs import PairTokenizer
from ragkit.provence.pair import PASSAGE, QUESTION, SPECIAL, TITLE, Judged, Pair, Window

if TYPE_CHECKING:
    from tokenizers import Encoding

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(question: str) -> str:
    """Lower-cased, without ASCII punctuation, with single spaces: what Naver's Provence reads."""
    return " ".join(question.lower().translate(_PUNCTUATION).split())


def cut(tokenizer: PairTokenizer, pairs: Sequence[Pair]) -> list[list[Window]]:
    """The windows of each pair, at least one, in the order of its text; nothing of title and passage is left out.

    The title stands before the passage and so in the first window alone, unless it is longer than that. Two neighbours share
    `tokenizer.overlap` tokens. The question of a window's pair is the one that was read: a long one is cut, with a warning.
    """
    questions = tokenizer.cut([pair.question for pair in pairs])
    read = [pair._replace(question=question) for pair, question in zip(pairs, questions, strict=True)]
    texts = [(pair.question, f"{pair.title} {pair.passage}" if pair.title else pair.passage) for pair in read]
    return [
        [_window(pair, run, tokenizer.typed) for run in runs] for pair, runs in zip(read, tokenizer.encode(texts), strict=True)
    ]


def _window(pair: Pair, run: Encoding, typed: bool) -> Window:
    offsets = np.array(run.offsets, np.int64).reshape(-1, 2)
    starts, ends = offsets[:, 0], offsets[:, 1]
    sides = np.array([-1 if side is None else side for side in run.sequence_ids], np.int64)
    passage_start = len(pair.title) + 1 if pair.title else 0
    # a token across the border is the passage's, of which no character may go without one; an empty one before it is the space
    behind = (ends > passage_start) | (passage_start == 0)
    segments = np.select([sides < 0, sides == 0, behind], [SPECIAL, QUESTION, PASSAGE], TITLE).astype(np.int8)
    limits = np.array([0, len(pair.question), len(pair.title), len(pair.passage)])[segments]
    shifts = np.where(segments == PASSAGE, passage_start, 0)
    return Window(
        pair=pair,
        ids=np.array(run.ids, np.int64),
        types=np.array(run.type_ids if typed else [0] * len(run.ids), np.int64),
        segments=segments,
        starts=np.clip(starts - shifts, 0, limits),
        ends=np.clip(ends - shifts, 0, limits),
    )


def merge(windows: Sequence[Window], rank: NDArray[np.float64], keep: Sequence[NDArray[np.float32]], overlap: int) -> Judged:
    """One judgement of a pair from those of its windows, the score before activation.

    The score is the best window's: a passage is relevant if a part of it is. Of two windows that share `overlap` tokens, each
    decides on the half further from its own edge, where it sees more of what stands around them; a mean would let the window
    that sees half a sentence spoil what the other one knows. Scores that are not numbers stay so.
    """
    parts = []
    for at, (window, its_keep) in enumerate(zip(windows, keep, strict=True)):
        text = np.flatnonzero(window.segments >= TITLE)
        first = (overlap + 1) // 2 if at else 0
        last = len(text) - (overlap // 2 if at + 1 < len(windows) else 0)
        own = text[first:last]
        own = own[window.segments[own] == PASSAGE]
        parts.append((its_keep[own], window.starts[own], window.ends[own]))
    probabilities, starts, ends = map(np.concatenate, zip(*parts, strict=True))
    return Judged(float(np.max(rank)), probabilities.astype(np.float32), starts, _apart(starts, ends))


def _apart(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ends of tokens so that none reaches beyond the start of the next.

    Several tokens may stand for one character, the bytes of an emoji for example; all but the last are then empty.
    """
    apart: NDArray[np.int64] = np.minimum(ends, np.append(starts[1:], ends[-1:]))
    return apart
