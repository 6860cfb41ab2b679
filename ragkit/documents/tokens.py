"""Counting tokens by where they start: the one thing splitting and budgets need from a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Tokenizer(Protocol):
    """Anything that can say where in a text its tokens start."""

    def starts(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Character offset of the start of each token, ascending, for each text; special tokens are left out."""
        ...


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text."""
    return [len(starts) for starts in tokenizer.starts(texts)]


class RegexTokenizer:
    """A model-free stand-in: word pieces of at most six letters, single CJK characters, single punctuation marks."""

    _pattern = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W_぀-ヿ㐀-鿿가-힯]{1,6}|[^\w\s]|_")

    def starts(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """See `Tokenizer.starts`."""
        return [np.fromiter((m.start() for m in self._pattern.finditer(text)), np.int64) for text in texts]
