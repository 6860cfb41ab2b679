"""Labels as chat models give them: among the likeliest first tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence


def from_tokens(tokens: Iterable[tuple[str, float]], labels: Sequence[str]) -> tuple[float, ...]:
    """The log-probability of each label: log of the sum of p over the tokens that spell it, -inf where none does.

    White space around a token does not count, nor does case, unless labels differ in nothing else.
    """
    normal = _normal(labels)
    spellings: dict[str, list[float]] = {}
    for token, logprob in tokens:
        spellings.setdefault(normal(token), []).append(logprob)
    return tuple(_log_sum(spellings.get(normal(label), ())) for label in labels)


def first_tokens(response_metadata: Mapping[str, object]) -> list[tuple[str, float]] | None:
    """The likeliest first tokens with their log-probabilities, from an answer in OpenAI's format; None if it has none."""
    logprobs = response_metadata.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not content:
        return None
    first = content[0]
    # the token that was drawn counts even if it is not among the likeliest
    both = {entry["token"]: float(entry["logprob"]) for entry in (first, *(first.get("top_logprobs") or ()))}
    return list(both.items()) if first.get("top_logprobs") else None


def _normal(labels: Sequence[str]) -> Callable[[str], str]:
    if len({label.strip().casefold() for label in labels}) == len(labels):
        return lambda text: text.strip().casefold()
    return str.strip


def _log_sum(logprobs: Sequence[float]) -> float:
    highest = max(logprobs, default=-math.inf)
    if highest == -math.inf:
        return highest
    return highest + math.log(sum(math.exp(logprob - highest) for logprob in logprobs))
