"""Pairs of question and text to runs of tokens that fit a model: the question in each, the text spread over them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ragkit.encoders.wordpieces import WordPieces, encodable, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding

_log = logging.getLogger(__name__)


class PairTokenizer:
    """The tokenizer of a model folder, for pairs of at most `length` tokens, special tokens included.

    A text that does not fit beside its question is spread over several runs, each with the question and the special tokens
    around it; two neighbours share `overlap` tokens of the text, and all but the last are full. Nothing changes after
    construction, so threads may share it.
    """

    def __init__(self, folder: Path, length: int, purpose: str = "reranking") -> None:
        """`purpose` says in the warning about a long question what it was cut for."""
        self._tokenizer = read_tokenizer(folder)
        self._tokenizer.no_padding()
        self._purpose = purpose
        special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        self._question_length = (length - special) // 2
        self.overlap = (length - special) // 8
        self._tokenizer.enable_truncation(length, stride=self.overlap, strategy="only_second")
        self._pieces = WordPieces(folder)
        self.typed = any(self._tokenizer.encode("a", "a").type_ids)
        """Whether segment ids tell question and text apart; if not, those of the runs after the first are not to be used."""

    def cut(self, questions: Sequence[str]) -> list[str]:
        """The questions as they are, but one that would leave its text less than half of a run is cut, with a warning."""
        distinct = list(dict.fromkeys(questions))
        shortened = {}
        for question, starts in zip(distinct, self._pieces.starts(distinct), strict=True):
            shortened[question] = question
            if len(starts) > self._question_length:
                _log.warning("question of %d tokens cut to %d for %s", len(starts), self._question_length, self._purpose)
                shortened[question] = question[: starts[self._question_length]].rstrip()
        return [shortened[question] for question in questions]

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[list[Encoding]]:
        """The runs of each pair, in order; the questions are those that `cut` gave. Offsets count characters of the pair."""
        encodings = self._tokenizer.encode_batch([(encodable(question), encodable(text)) for question, text in pairs])
        return [[encoding, *encoding.overflowing] for encoding in encodings]
