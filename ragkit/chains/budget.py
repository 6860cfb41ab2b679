"""How many tokens a context may have, and who counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ragkit.documents.tokens import Tokenizer, count_tokens


class Budget(Protocol):
    """The room for a question's context."""

    def tokens(self, question: str) -> int:
        """The most tokens that the context may have, at least 1. Raises `InputError` if the question leaves no room."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        ...


@dataclass(frozen=True)
class FixedBudget:
    """The same for every question, in tokens of a tokenizer."""

    most: int
    tokenizer: Tokenizer

    def tokens(self, question: str) -> int:
        """See `Budget`."""
        return self.most

    def count(self, texts: Sequence[str]) -> list[int]:
        """See `Budget`."""
        return count_tokens(self.tokenizer, texts)
