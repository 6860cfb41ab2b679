"""One figure for how likely a passage is wanted by any question, from its features."""

from __future__ import annotations

from math import prod

from ragkit.care.features import Features

WEIGHTS = Features(repeated=0.9, links=0.8, redundancy=0.5, brevity=0.6, symbols=0.6, telegraphic=0.2)
"""The share of its quality that a passage loses if the feature is 1.

Set by hand, by what the feature may mean besides: a line that many sources have is hardly ever the answer, and neither is a list
of links. A short passage may well be one, if less often. What repeats itself, or has no stop words, may be a table of facts or
code."""


def quality(features: Features) -> float:
    """From 1 (nothing speaks against the passage) down to 0: the product of 1 - weight * feature.

    So one bad feature is enough, and several together are worse than one. Chang et al., "Neural passage quality estimation for
    static pruning" (SIGIR 2024), find that much of a corpus can be left out this way; theirs is a trained model, this is none.
    """
    return prod(1 - weight * value for weight, value in zip(WEIGHTS, features, strict=True))


def reasons(features: Features) -> list[str]:
    """The names of the features that cost most, the worst first; those that cost less than a tenth are left out."""
    costs = {name: weight * value for name, weight, value in zip(Features._fields, WEIGHTS, features, strict=True)}
    return [name for name in sorted(costs, key=lambda name: -costs[name]) if costs[name] >= 0.1]
