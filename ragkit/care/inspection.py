"""What a corpus could do without: passages of low quality, and all but one of those that are nearly the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragkit.care.duplicates import near_duplicates
from ragkit.care.features import Features, features
from ragkit.care.quality import quality, reasons
from ragkit.care.repeats import repeated_lines
from ragkit.encoders.lexical import words
from ragkit.errors import InputError
from ragkit.store.passages import Passage


@dataclass(frozen=True)
class Poor:
    """A passage whose quality is too low, with the features that cost most of it."""

    passage: Passage
    quality: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Twins:
    """Passages that are nearly the same: the one to keep, which has the best quality, or else is the longest or the first."""

    kept: Passage
    others: tuple[Passage, ...]


@dataclass(frozen=True)
class Inspection:
    """What was found in a corpus; nothing has been changed."""

    passages: int
    poor: tuple[Poor, ...]
    """The worst first."""
    twins: tuple[Twins, ...]
    """The largest groups first."""

    @property
    def doomed(self) -> list[str]:
        """The ids of the passages that could go, each once."""
        alike = [passage.id for group in self.twins for passage in group.others]
        return list(dict.fromkeys([*(one.passage.id for one in self.poor), *alike]))


def inspect(
    passages: Sequence[Passage], language: str = "english", *, lowest: float = 0.3, similarity: float = 0.8
) -> Inspection:
    """Find the passages with a quality below `lowest`, and groups with at least that `similarity` (see `near_duplicates`).

    Headings above a passage do not count. Raises `InputError` for bounds out of their range.
    """
    if not 0 <= lowest <= 1:
        raise InputError(f"lowest: must be a quality from 0 to 1, not {lowest!r}")
    described = describe(passages, language)
    values = [quality(one) for one in described]
    poor = [
        Poor(passage, value, tuple(reasons(one)))
        for passage, one, value in zip(passages, described, values, strict=True)
        if value < lowest
    ]
    groups = []
    for group in near_duplicates([words(passage.text, language) for passage in passages], similarity):
        best = min(group, key=lambda at: (-values[at], -len(passages[at].text), at))
        groups.append(Twins(passages[best], tuple(passages[at] for at in group if at != best)))
    poor.sort(key=lambda one: one.quality)
    groups.sort(key=lambda group: -len(group.others))
    return Inspection(len(passages), tuple(poor), tuple(groups))


def describe(passages: Sequence[Passage], language: str = "english") -> list[Features]:
    """The features of each passage, beside the others."""
    repeated = repeated_lines((passage.source, passage.text) for passage in passages)
    return [features(passage.text, repeated, language) for passage in passages]
