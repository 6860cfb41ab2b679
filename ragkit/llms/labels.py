"""Labels as chat models give them: among the likeliest first tokens, or named in a text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

_THOUGHTS = re.compile(r".*</think>", re.DOTALL)


def from_tokens(tokens: Iterable[tuple[str, float]], labels: Sequence[str]) -> tuple[float, ...]:
    """The log-probability of each label: log of the sum of p over the tokens that spell it, -inf where none does.

    White space around a token does not count, nor does case, unless labels differ in nothing else.
    """
    normal = _normal(labels)
    spellings: dict[str, list[float]] = {}
    for token, logprob in tokens:
        spellings.setdefault(normal(token), []).append(logprob)
    return tuple(_log_sum(spellings.get(normal(label), ())) for label in labels)


def named(text: str, labels: Sequence[str]) -> int | None:
    """Which label an answer names: it is nothing but the label, begins with it, or names no other; None if that is not clear.

    Markup, case and what stands before a closing </think> do not count; in the middle of a text case does.
    """
    said = _THOUGHTS.sub("", text).strip(" \t\r\n\"'`*_#.,:;!()[]{}<>")
    normal = _normal(labels)
    for at, label in enumerate(labels):
        if normal(said) == normal(label):
            return at
    # "Yes, there is no doubt", but not "A passage that ..."
    opening = [at for at, label in enumerate(labels) if re.match(rf"{re.escape(normal(label))}\s*[^\w\s'’-]", normal(said))]
    if len(opening) == 1:
        return opening[0]
    whole = [re.compile(rf"(?<!\w){re.escape(label.strip())}(?!\w)") for label in labels]
    inside = [at for at, pattern in enumerate(whole) if pattern.search(said)]
    return inside[0] if len(inside) == 1 else None


def of_named(at: int, labels: Sequence[str]) -> tuple[float, ...]:
    """The scores that a label which is only named stands for: certainty."""
    return tuple(0.0 if i == at else -math.inf for i in range(len(labels)))


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
