"""The conventions by which families of Provence checkpoints differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rounding = Literal["mean", "vote", "released"]


@dataclass(frozen=True)
class Family:
    """How a checkpoint was trained to be used. `ProvencePruner` follows it wherever the caller does not say otherwise."""

    name: str
    activation: Literal["raw", "sigmoid"]
    """Whether the passage score is the ranking logit or its sigmoid."""
    rounding: Rounding
    """How token probabilities become a decision per sentence."""
    threshold: float
    keep_title: bool
    """Whether a first sentence that is the title stays if another sentence does."""
    normalize_question: bool
    """Whether the question is lower-cased and loses its punctuation."""
    max_length: int
    """Tokens per window, special tokens included."""
    top_k: int | None
    """How many passages the original keeps."""
